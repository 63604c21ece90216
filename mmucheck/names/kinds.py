"""Kinds and names inside bodies: every expression and statement of a routine is checked here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mmucheck.names.builtins import CONSTANTS, LOOKS, PARAM_KINDS, STEP_PARAM_NAMES, STEPS, Signature
from mmucheck.names.library import Library
from mmucheck.names.shapes import difference, leaves, say_kind
from mmucheck.records import record
from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, Span, suggest

_ARITH = frozenset("+ - * / % & | ^ << >>".split())
_ORDER = frozenset("< <= > >=".split())


@dataclass
class Scope:
    """Names visible at a point: kind, and whether they may be assigned."""

    names: dict[str, tuple[str, bool]] = field(default_factory=dict)
    parent: Scope | None = None

    def find(self, name: str) -> tuple[str, bool] | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def all(self) -> list[str]:
        return [*self.names, *(self.parent.all() if self.parent else [])]


@record
class Context:
    """What surrounds a body: the kernel version, the device it belongs to, whether it is a property's formula, and whether it must be the
    same in every state."""

    version: str = ""
    device: ast.Device | None = None
    in_property: bool = False
    in_loop: bool = False
    constant: bool = False


class BodyChecker:
    """Checks bodies against a library; findings gather in ``diagnostics``."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.diagnostics: list[Diagnostic] = []
        self._values: dict[tuple[str, str], str] = {}
        self._functions: dict[str, ast.Routine] = {}
        self._callbacks: dict[str, ast.Callback] = {}
        for protocol in library.protocols.values():
            for function in protocol.functions:
                self._functions.setdefault(function.name, function)
            for callback in protocol.callbacks:
                self._callbacks.setdefault(callback.name, callback)

    def say(self, code: str, message: str, span: Span, hint: str = "") -> None:
        self.diagnostics.append(Diagnostic(code, message, span, hint))

    def not_shared(self, name: str, span: Span) -> None:
        """A name in a body must not hide a variable of the address space."""
        if name in self.library.shared:
            self.say("E119", f"`{name}` is a variable of the address space", span, "choose another name")

    # ---- parameters

    def scope_of(self, params: Iterable[ast.Param], like: Iterable[ast.Param] = ()) -> Scope:
        """The scope a routine's parameters make; ``like`` gives kinds that the parameters leave out."""
        defaults = [p.kind for p in like]
        scope = Scope()
        for i, param in enumerate(params):
            kind = param.kind or (defaults[i] if i < len(defaults) else "")
            if kind not in PARAM_KINDS:
                self.say("E201", f"`{kind}` is not a kind", param.span, suggest(kind, PARAM_KINDS))
            if param.name in scope.names:
                self.say("E104", f"`{param.name}` is a parameter twice", param.span)
            self.not_shared(param.name, param.span)
            scope.names[param.name] = (PARAM_KINDS.get(kind, "number"), False)
        return scope

    # ---- expressions

    def expect(self, expr: ast.Expr, kind: str, scope: Scope, ctx: Context) -> None:
        found = self.kind(expr, scope, ctx)
        if found and found != kind:
            self.say("E202", f"this is a {say_kind(found)}, but a {say_kind(kind)} belongs here", expr.span)

    def kind(self, expr: ast.Expr, scope: Scope, ctx: Context) -> str:
        """The kind of an expression, "" if it is unknown after an error."""
        match expr:
            case ast.Number():
                return "number"
            case ast.Name(name=name):
                return self._name(expr, name, scope, ctx)
            case ast.Member(base=base):
                found = scope.find(base)
                if found is None or found[0] != "device":
                    self.say("E106", f"`{base}` is not a device here", expr.span)
                return "number"
            case ast.Unary(op=op, operand=operand):
                kind = "bool" if op == "!" else "number"
                self.expect(operand, kind, scope, ctx)
                return kind
            case ast.Call():
                return self._call(expr, scope, ctx)
            case ast.Binary(op=op, left=left, right=right):
                if op in ("&&", "||", "->"):
                    self.expect(left, "bool", scope, ctx)
                    self.expect(right, "bool", scope, ctx)
                    return "bool"
                if op in _ARITH or op in _ORDER:
                    self.expect(left, "number", scope, ctx)
                    self.expect(right, "number", scope, ctx)
                    return "number" if op in _ARITH else "bool"
                one, other = self.kind(left, scope, ctx), self.kind(right, scope, ctx)
                if one and other and one != other:
                    self.say("E203", f"a {say_kind(one)} is compared with a {say_kind(other)}", expr.span)
                return "bool"

    def _name(self, expr: ast.Expr, name: str, scope: Scope, ctx: Context) -> str:
        found = scope.find(name)
        if found:
            return found[0]
        if name in self.library.consts:
            return "number"
        if name in CONSTANTS:
            return CONSTANTS[name][1]
        if ctx.device and name in {v.name for v in ctx.device.variables}:
            return "number"
        if name in self.library.shared:
            if ctx.constant:
                self.say("E212", f"`{name}` changes while paths run: no constant can be made of it", expr.span)
            self._beside_devices(name, expr.span, ctx)
            return "number"
        known = [*scope.all(), *self.library.consts, *self.library.shared, *CONSTANTS]
        hint = suggest(name, known)
        if name in LOOKS or self.library.named(name):
            hint = f"write `{name}(...)`"
        self.say("E106", f"`{name}` is not defined", expr.span, hint)
        return ""

    def _beside_devices(self, name: str, span: Span, ctx: Context) -> None:
        if ctx.device:
            self.say("E213", f"`{name}` is a variable of the address space: devices know nothing of it", span)

    def _call(self, call: ast.Call, scope: Scope, ctx: Context) -> str:
        if call.name == "nondet":
            self._count(call, (), call.args)
            return "bool"
        signature = LOOKS.get(call.name)
        if signature is not None:
            wrong_place = {"device": ctx.device is None, "property": not ctx.in_property}.get(signature.where, False)
            if wrong_place:
                where = "a device" if signature.where == "device" else "a property"
                self.say("E204", f"`{call.name}` can be asked only in {where}", call.span)
            self._arguments(call, signature.params, call.args, scope, ctx)
            return signature.results[0]
        if call.name in STEPS:
            self.say("E205", f"`{call.name}` is a step, not a look", call.span, "give it a line of its own, or `let x = ... else ...`")
            return (*STEPS[call.name].results, "")[0]
        macro = self.library.find(call.name, ctx.version)
        if macro and isinstance(macro.declaration, ast.Macro) and macro.declaration.value is not None:
            kinds = tuple(PARAM_KINDS.get(p.kind, "number") for p in macro.declaration.params)
            self._arguments(call, kinds, call.args, scope, ctx)
            return self._value_kind(macro.declaration, macro.declaration.value, macro.version)
        if macro:
            self.say("E205", f"`{call.name}` has no value: it is a macro of steps", call.span)
            return ""
        names = [*LOOKS, *(n for n, _ in self.library.code)]
        self.say("E106", f"`{call.name}` is not defined", call.span, suggest(call.name, names))
        for arg in call.args:
            self.kind(arg, scope, ctx)
        return ""

    def _value_kind(self, macro: ast.Macro, value: ast.Expr, version: str) -> str:
        """Of what the macro stands for; "" if it stands for itself. Found out once: macros that use each other twice would double it
        at every level."""
        key = (macro.name, version)
        if key not in self._values:
            self._values[key] = ""
            quiet = BodyChecker(self.library)
            quiet._values = self._values
            self._values[key] = quiet.kind(value, self.scope_of(macro.params), Context(version))
        return self._values[key]

    def _arguments(self, call: ast.Call | ast.CallStmt | ast.Dispatch, kinds: tuple[str, ...], args: tuple[ast.Expr, ...],
                   scope: Scope, ctx: Context) -> None:  # fmt: skip
        if not self._count(call, kinds, args):
            return
        for kind, arg in zip(kinds, args, strict=True):
            if kind == "cache":
                self._cache(arg, ctx)
            elif kind == "variable":
                self._variable(arg, scope, ctx)
            elif kind == "device":
                if self.kind(arg, scope, ctx) not in ("device", ""):
                    self.say("E202", "a device belongs here", arg.span)
            else:
                self.expect(arg, kind, scope, ctx)

    def _count(self, call: ast.Call | ast.CallStmt | ast.Dispatch, kinds: tuple[str, ...], args: tuple[ast.Expr, ...]) -> bool:
        if len(kinds) == len(args):
            return True
        name = call.callback if isinstance(call, ast.Dispatch) else call.name
        needs = f"{len(kinds)} argument{'s' * (len(kinds) != 1)}"
        self.say("E206", f"`{name}` takes {needs}, {len(args)} given", call.span)
        return False

    def _variable(self, arg: ast.Expr, scope: Scope, ctx: Context) -> None:
        if isinstance(arg, ast.Name) and arg.name in self.library.shared and scope.find(arg.name) is None:
            self._beside_devices(arg.name, arg.span, ctx)
        else:
            hint = suggest(getattr(arg, "name", ""), self.library.shared)
            self.say("E120", "a variable of the address space belongs here", arg.span, hint)

    def _cache(self, arg: ast.Expr, ctx: Context) -> None:
        caches = [c.name for c in ctx.device.caches] if ctx.device else []
        if not isinstance(arg, ast.Name) or arg.name not in caches:
            self.say("E107", "a cache of this device belongs here", arg.span, suggest(getattr(arg, "name", ""), caches))

    # ---- statements

    def block(self, block: ast.Block, outer: Scope, ctx: Context) -> None:
        scope = Scope(parent=outer)
        for i, stmt in enumerate(block.body):
            self._statement(stmt, scope, ctx)
            if leaves(stmt) and i + 1 < len(block.body):
                self.say("E301", "this step is never reached", block.body[i + 1].span, "the line before always leaves")
                break

    def _statement(self, stmt: ast.Stmt, scope: Scope, ctx: Context) -> None:
        match stmt:
            case ast.Block():
                self.block(stmt, scope, ctx)
            case ast.Let():
                self._let(stmt, scope, ctx)
            case ast.Var(name=name, value=value):
                self._define(name, self.kind(value, scope, ctx), True, stmt.span, scope)
            case ast.Assign():
                self._assign(stmt, scope, ctx)
            case ast.If(condition=condition, then=then, otherwise=otherwise):
                self.expect(condition, "bool", scope, ctx)
                self.block(then, scope, ctx)
                if otherwise:
                    self.block(otherwise, scope, ctx)
            case ast.Choose(branches=branches):
                for branch in branches:
                    self.block(branch, scope, ctx)
            case ast.For(name=name, start=start, end=end, step=step, body=body):
                for bound in (start, end, *([step] if step else [])):
                    self.expect(bound, "number", scope, ctx)
                self._forward(start, end, stmt.span)
                self.not_shared(name, stmt.span)
                if step is not None and difference(ast.Number(step.span, 0), step, self.library.consts) == 0:
                    self.say("E303", "the loop does not advance: its step is 0", step.span)
                inner = Scope({name: ("number", False)}, scope)
                self.block(body, inner, Context(ctx.version, ctx.device, False, True))
            case ast.While(condition=condition, body=body):
                if condition is not None:
                    self.expect(condition, "bool", scope, ctx)
                self.block(body, scope, Context(ctx.version, ctx.device, False, True))
            case ast.Leave(kind=kind):
                if kind != "return" and not ctx.in_loop:
                    self.say("E302", f"`{kind}` outside a loop", stmt.span)
            case ast.With(lock=lock, body=body):
                self._lock(lock, scope, ctx)
                self.block(body, scope, ctx)
            case ast.Locking(lock=lock):
                self._lock(lock, scope, ctx)
            case ast.CallStmt():
                self._call_statement(stmt, scope, ctx)
            case ast.Dispatch(callback=callback, args=args):
                known = self._callbacks.get(callback)
                if known is None:
                    self.say("E401", f"no protocol has a callback `{callback}`", stmt.span, suggest(callback, self._callbacks))
                else:
                    self._arguments(stmt, tuple(PARAM_KINDS.get(p.kind, "number") for p in known.params), args, scope, ctx)
            case ast.Assume(condition=condition) | ast.Assert(condition=condition) | ast.Wait(condition=condition):
                self.expect(condition, "bool", scope, ctx)
            case ast.Drop(cache=cache, start=start, end=end):
                self._cache(ast.Name(stmt.span, cache), ctx)
                if start is not None and end is not None:
                    self.expect(start, "number", scope, ctx)
                    self.expect(end, "number", scope, ctx)
                    self._forward(start, end, stmt.span)
            case ast.Fill(cache=cache, address=address, frame=frame, writable=writable):
                self._cache(ast.Name(stmt.span, cache), ctx)
                of_tables = ctx.device and any(c.name == cache and c.of == "tables" for c in ctx.device.caches)
                self.expect(address, "number", scope, ctx)
                self.expect(frame, "table" if of_tables else "frame", scope, ctx)
                if writable is not None:
                    self.expect(writable, "bool", scope, ctx)

    def _define(self, name: str, kind: str, assignable: bool, span: Span, scope: Scope) -> None:
        if name in scope.names:
            self.say("E104", f"`{name}` is defined twice in this block", span, "`var` makes a name that can be assigned again")
        self.not_shared(name, span)
        scope.names[name] = (kind or "number", assignable)

    def _let(self, stmt: ast.Let, scope: Scope, ctx: Context) -> None:
        value = stmt.value
        signature = STEPS.get(value.name) if isinstance(value, ast.Call) else None
        if signature and signature.partial and isinstance(value, ast.Call):
            self._arguments(value, signature.params, value.args, scope, ctx)
            if stmt.otherwise is None:
                self.say("E304", f"`{value.name}()` may fail: say what happens then", stmt.span, "add `else return;` or an else block")
            if len(stmt.names) > len(signature.results):
                self.say("E207", f"`{value.name}()` gives {len(signature.results)} value(s)", stmt.span)
            kinds: tuple[str, ...] = signature.results
        else:
            kinds = (self.kind(value, scope, ctx),)
            if stmt.otherwise is not None:
                self.say("E304", "only a step that may fail can have an `else` here", stmt.span)
            if len(stmt.names) > 1:
                self.say("E207", "one value cannot give several names", stmt.span)
        if stmt.otherwise is not None:
            self.block(stmt.otherwise, scope, ctx)
            if not leaves(stmt.otherwise):
                self.say("E305", "this `else` must leave: there is no value to go on with", stmt.otherwise.span, "end it with `return;`")
        for name, kind in zip(stmt.names, kinds, strict=False):
            self._define(name, kind, False, stmt.span, scope)

    def _assign(self, stmt: ast.Assign, scope: Scope, ctx: Context) -> None:
        found = scope.find(stmt.name)
        if found is None and ctx.device and stmt.name in {v.name for v in ctx.device.variables}:
            found = ("number", True)
        if found is None and stmt.name in self.library.shared:
            self._beside_devices(stmt.name, stmt.span, ctx)
            found = ("number", True)
        if found is None:
            self.say("E106", f"`{stmt.name}` is not defined", stmt.span, suggest(stmt.name, [*scope.all(), *self.library.shared]))
            return
        if not found[1]:
            self.say("E306", f"`{stmt.name}` is fixed and cannot be assigned", stmt.span, "declare it with `var`")
        self.expect(stmt.value, found[0] if stmt.op == "=" else "number", scope, ctx)

    def _lock(self, ref: ast.LockRef, scope: Scope, ctx: Context) -> None:
        own = {lock.name: lock for lock in ctx.device.locks} if ctx.device else {}
        lock = own.get(ref.name) or self.library.locks.get(ref.name)
        if lock is None:
            self.say("E108", f"there is no lock `{ref.name}`", ref.span, suggest(ref.name, [*own, *self.library.locks]))
            return
        if (lock.kind == "rwsem") != bool(ref.mode):
            hint = f"write `read {ref.name}` or `write {ref.name}`" if lock.kind == "rwsem" else f"drop `{ref.mode}`"
            self.say("E208", f"`{ref.name}` is a {lock.kind}", ref.span, hint)
        if bool(lock.key) != (ref.key is not None):
            message = f"`{ref.name}` needs to know which: `{ref.name}({lock.key})`" if lock.key else f"there is only one `{ref.name}`"
            self.say("E209", message, ref.span)
        elif ref.key is not None:
            self.expect(ref.key, PARAM_KINDS.get(lock.key, "number"), scope, ctx)

    def _call_statement(self, stmt: ast.CallStmt, scope: Scope, ctx: Context) -> None:
        found = self._callee(stmt, ctx)
        if found is None and stmt.name in LOOKS:
            self.say("E205", f"`{stmt.name}` is a look, not a step", stmt.span, "it belongs in a condition or a `let`")
            return
        if found is None:
            names = [*STEPS, *self._functions, *(n for n, _ in self.library.code)]
            self.say("E106", f"`{stmt.name}` is not defined", stmt.span, suggest(stmt.name, names))
            return
        signature, names_of_params = found
        self._arguments(stmt, signature.params, stmt.args, scope, ctx)
        if signature.partial:
            self.say("E304", f"`{stmt.name}()` may fail: say what happens then", stmt.span, "write `let x = ... else ...`")
        if len(stmt.args) == len(names_of_params) and "start" in names_of_params and "end" in names_of_params:
            self._forward(stmt.args[names_of_params.index("start")], stmt.args[names_of_params.index("end")], stmt.span)

    def _callee(self, stmt: ast.CallStmt, ctx: Context) -> tuple[Signature, tuple[str, ...]] | None:
        if stmt.name in STEPS:
            return STEPS[stmt.name], STEP_PARAM_NAMES.get(stmt.name, ())
        macro = self.library.find(stmt.name, ctx.version)
        params: tuple[ast.Param, ...] | None = None
        if macro is not None:
            if isinstance(macro.declaration, ast.Path):
                self.say("E205", f"`{stmt.name}` is a path; a path cannot be called", stmt.span, "make the shared part a macro")
            elif macro.declaration.body is None:
                self.say("E205", f"`{stmt.name}` is an expression, not a step", stmt.span)
            params = macro.declaration.params
        elif stmt.name in self._functions:
            params = self._functions[stmt.name].params
        if params is None:
            return None
        kinds = tuple(PARAM_KINDS.get(p.kind, "number") for p in params)
        return Signature(kinds), tuple(p.name for p in params)

    # ---- ranges

    def _forward(self, start: ast.Expr, end: ast.Expr, span: Span) -> None:
        distance = difference(start, end, self.library.consts)
        if distance is not None and (distance == 0 or distance >> 63):
            what = "is empty" if distance == 0 else "runs backwards"
            self.say("E210", f"the range {what}", span, "a range is [start, end) with start below end")
