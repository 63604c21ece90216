"""Syntax tree to intermediate form: macros inlined with provenance, callbacks dispatched into the devices' hooks.

Bodies are generated backwards: the code behind a statement exists before the statement, so every step is made with its
successors known. Only loop heads are patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from mmucheck.ir.expressions import Env, Expressions, Held, kind_of
from mmucheck.ir.program import (
    CacheDecl,
    Const,
    DeviceDecl,
    DeviceVar,
    Expr,
    Frame,
    Local,
    LockDecl,
    Look,
    Node,
    Nondet,
    Op,
    Origin,
    Program,
    PropertyDecl,
    Step,
    subexpressions,
)  # fmt: skip
from mmucheck.names.builtins import OF_THREADS, PARAM_KINDS, STEPS
from mmucheck.names.library import Library
from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span, suggest

MAX_NODES = 20_000
MAX_CALLS = 40


class Expander(Expressions):
    """Expands the paths, hooks and handlers of one library (a change already applied) under one protocol."""

    def __init__(self, library: Library, protocol: str, devices: Sequence[ast.Device]) -> None:
        super().__init__(library)
        self._protocol = protocol
        self._callbacks, self._functions = library.callbacks(protocol), library.functions(protocol)
        self._devices = tuple(devices)
        self._lines = {path: file.text.split("\n") for path, file in library.files.items()}
        self._nodes: list[Node] = []
        self._locals: dict[str, str] = {}
        self._mutable: set[str] = set()

    # ---- entry points

    def path(self, path: ast.Path, version: str) -> Program:
        """The program of a path. Raises InputError for what only shows under this protocol."""
        names, params = self._begin(path.params)
        env = Env(names, version)
        return self._finish(path, path.body, env, params, path.requires, path.anchor)

    def handler(self, device: ast.Device, handler: ast.Routine) -> Program:
        names, params = self._begin(handler.params)
        env = Env(names, "", actor=device.name, device=device)
        return self._finish(handler, handler.body, env, params, (), "")

    def device(self, device: ast.Device) -> DeviceDecl:
        env = Env({}, "", actor=device.name, device=device)
        caches = tuple(
            CacheDecl(c.name, c.of, c.source, self._pure(c.when, env) if c.when is not None else None, c.span) for c in device.caches
        )
        variables = tuple((v.name, self._pure(v.value, Env({}, ""))) for v in device.variables)
        locks = tuple(self.lock(lock, f"{device.name}.") for lock in device.locks)
        handlers = tuple(self.handler(device, h) for h in device.handlers)
        hooks = tuple(h.name for h in device.hooks)
        return DeviceDecl(device.name, device.title, caches, variables, locks, handlers, hooks, device.doc)

    def shared(self, variable: ast.Shared) -> tuple[str, Expr | None]:
        """The name of a variable of the address space, and what it holds at the start."""
        return variable.name, self._pure(variable.value, Env({}, "")) if variable.value is not None else None

    def lock(self, lock: ast.Lock, prefix: str = "") -> LockDecl:
        granule = self._pure(lock.granule, Env({}, "")) if lock.granule is not None else Const(0)
        kind = "frame" if lock.key == "frame" else ("address" if lock.key else "")
        return LockDecl(prefix + lock.name, lock.kind, kind, granule.value if isinstance(granule, Const) else 0)

    def prop(self, prop: ast.Property) -> PropertyDecl:
        names: dict[str, Expr] = {b.name: Local(b.name, PARAM_KINDS.get(b.kind, b.kind)) for b in prop.binders}
        assert prop.formula is not None
        formula = self._pure(prop.formula, Env(names, ""))
        return PropertyDecl(prop.name, prop.title, prop.when, tuple((b.name, b.kind) for b in prop.binders), formula)

    # ---- programs

    def _begin(self, params: Sequence[ast.Param]) -> tuple[dict[str, Expr], tuple[tuple[str, str], ...]]:
        self._nodes, self._locals, self._mutable, self._labels, self._expansions, self._parts = [], {}, set(), 0, 0, {}
        names: dict[str, Expr] = {}
        unique: list[str] = []
        for param in params:
            names[param.name] = local = self._fresh(param.name, PARAM_KINDS[param.kind])
            unique.append(local.name)
        return names, tuple((name, p.kind) for name, p in zip(unique, params, strict=True))

    def _finish(self, decl: ast.Path | ast.Routine, body: ast.Block, env: Env, params: tuple[tuple[str, str], ...],
                requires: tuple[ast.Expr, ...], anchor: str) -> Program:  # fmt: skip
        end = Span(decl.span.file, body.span.end_line, max(1, body.span.end_column - 1), body.span.end_line, body.span.end_column)
        exit_node = self._emit(Step("nop", (), Origin(end, "done", (), env.actor)), ())
        env = replace(env, targets={"return": (exit_node, 0)})
        entry = self._block(body, env, exit_node)
        if requires:
            text = f"requires {self._text(requires[0].span)}" + (", ..." if len(requires) > 1 else "")
            conditions = [self._expr(c, env) for c in requires]
            every = reduce(lambda one, other: Op("&&", (one, other)), conditions)
            entry = self._emit(Step("assume", (every,), self._origin(requires[0].span, env, text)), (entry,))
        return _renumber(decl.name, self._nodes, entry, exit_node, params, self._locals, anchor, decl.doc)

    def _emit(self, step: Step, successors: tuple[int, ...]) -> int:
        if len(self._nodes) >= MAX_NODES:
            message = f"expands to more than {MAX_NODES} steps"
            raise InputError([Diagnostic("E311", message, step.origin.span, "the macros it calls multiply")])
        self._nodes.append(Node(step, successors))
        return len(self._nodes) - 1

    def _origin(self, span: Span, env: Env, text: str = "") -> Origin:
        return Origin(span, text or self._text(span), env.frames, env.actor)

    def _text(self, span: Span) -> str:
        lines = self._lines.get(span.file, [])
        if not 0 < span.line <= len(lines):
            return ""
        end = span.end_column - 1 if span.end_line == span.line else None
        return lines[span.line - 1][span.column - 1 : end].strip().removesuffix("{").strip()

    def _fresh(self, name: str, kind: str) -> Local:
        base = f"{name}'" if name in OF_THREADS else name
        unique, n = base, 1
        while unique in self._locals:
            n += 1
            unique = f"{base}.{n}"
        self._locals[unique] = kind
        return Local(unique, kind)

    # ---- statements

    def _block(self, block: ast.Block, env: Env, after: int) -> int:
        envs = [env]
        targets: list[tuple[Local, ...]] = []
        for stmt in block.body:
            env = envs[-1]
            made: tuple[Local, ...] = ()
            if isinstance(stmt, ast.Let | ast.Var):
                wanted = stmt.names if isinstance(stmt, ast.Let) else (stmt.name,)
                kinds = self._kinds_of(stmt.value, env, len(wanted))
                made = tuple(self._fresh(n, k) for n, k in zip(wanted, kinds, strict=True))
                for name, local in zip(wanted, made, strict=True):
                    env = env.bind(name, local)
                if isinstance(stmt, ast.Var):
                    self._mutable.add(made[0].name)
            targets.append(made)
            envs.append(env)
        for stmt, before, made in reversed(list(zip(block.body, envs, targets, strict=False))):
            after = self._statement(stmt, before, made, after)
        return after

    def _kinds_of(self, value: ast.Expr, env: Env, count: int) -> tuple[str, ...]:
        if isinstance(value, ast.Call) and value.name in STEPS:
            return STEPS[value.name].results[:count]
        return (kind_of(self._pure(value, env)),)

    def _statement(self, stmt: ast.Stmt, env: Env, made: tuple[Local, ...], after: int) -> int:
        match stmt:
            case ast.Block():
                return self._block(stmt, env, after)
            case ast.Let(value=ast.Call(name=name, args=args), otherwise=otherwise) if otherwise is not None and name in STEPS:
                failed = self._block(otherwise, env, after)
                step = Step(name, self._args(args, env), self._origin(stmt.span, env), tuple(m.name for m in made))
                return self._emit(step, (after, failed))
            case ast.Let(value=value) | ast.Var(value=value):
                step = Step("assign", (self._expr(value, env),), self._origin(stmt.span, env), (made[0].name,))
                return self._emit(step, (after,))
            case ast.Assign():
                return self._assign(stmt, env, after)
            case ast.If(condition=condition, then=then, otherwise=otherwise):
                taken = self._block(then, env, after)
                missed = self._block(otherwise, env, after) if otherwise else after
                return self._branch(condition, stmt.span, env, taken, missed)
            case ast.Choose(branches=branches):
                entry = self._block(branches[-1], env, after)
                for branch in reversed(branches[:-1]):
                    origin = self._origin(stmt.span, env, "choose")
                    entry = self._emit(Step("branch", (self._nondet(stmt.span, env),), origin), (self._block(branch, env, after), entry))
                return entry
            case ast.For():
                return self._for(stmt, env, after)
            case ast.While(condition=condition, body=body):
                return self._while(stmt, condition, body, env, after)
            case ast.Leave(kind=kind):
                target, depth = env.targets[kind]
                for lock, span in env.locks[depth:]:
                    target = self._unlock(lock, span, env, target)
                return target
            case ast.With(lock=ref, body=body):
                return self._with(stmt, ref, body, env, after)
            case ast.Locking(kind=kind, lock=ref):
                return self._emit(self._locking(kind, self._lock_of(ref, env), stmt.span, env), (after,))
            case ast.CallStmt():
                return self._call(stmt, env, after)
            case ast.Dispatch():
                return self._dispatch(stmt, env, after)
            case ast.Assume(condition=condition):
                return self._emit(Step("assume", (self._expr(condition, env),), self._origin(stmt.span, env)), (after,))
            case ast.Assert(condition=condition, text=text):
                step = Step("assert", (self._expr(condition, env),), self._origin(stmt.span, env), names=(text,))
                return self._emit(step, (after,))
            case ast.Wait(condition=condition):
                return self._emit(Step("wait", (self._expr(condition, env),), self._origin(stmt.span, env)), (after,))
            case ast.Drop(cache=cache, start=start, end=end):
                bounds = () if start is None or end is None else (self._expr(start, env), self._expr(end, env))
                assert env.device is not None
                step = Step("drop", bounds, self._origin(stmt.span, env), names=(env.device.name, cache))
                return self._emit(step, (after,))
            case ast.Fill(cache=cache, address=address, frame=frame, writable=writable):
                assert env.device is not None
                allowed = self._expr(writable, env) if writable is not None else Const(1, "bool")
                filled = (self._expr(address, env), self._expr(frame, env), allowed)
                return self._emit(Step("fill", filled, self._origin(stmt.span, env), names=(env.device.name, cache)), (after,))

    def _branch(self, condition: ast.Expr, span: Span, env: Env, taken: int, missed: int) -> int:
        value = self._expr(condition, env)
        if isinstance(value, Const):
            return taken if value.value else missed
        shown = self._text(condition.span)
        return self._emit(Step("branch", (value,), self._origin(span, env, f"if ({shown})")), (taken, missed))

    def _assign(self, stmt: ast.Assign, env: Env, after: int) -> int:
        value = self._expr(stmt.value, env)
        origin = self._origin(stmt.span, env)
        current = self._expr(ast.Name(stmt.span, stmt.name), env)
        if stmt.op != "=":
            value = Op(stmt.op[0], (current, value))
        if isinstance(current, DeviceVar):
            return self._emit(Step("set_var", (value,), origin, names=(current.device, current.name)), (after,))
        assert isinstance(current, Local)
        return self._emit(Step("assign", (value,), origin, (current.name,)), (after,))

    def _for(self, stmt: ast.For, env: Env, after: int) -> int:
        cursor = self._fresh(stmt.name, "number")
        self._mutable.add(cursor.name)
        start, start_at = self._hold(stmt.start, "start", env)
        end, end_at = self._hold(stmt.end, "end", env)
        step, step_at = self._hold(stmt.step, "step", env) if stmt.step is not None else (Const(4096), None)
        origin = self._origin(stmt.span, env, f"for {stmt.name}")
        head = self._emit(Step("nop", (), origin), ())
        onward = Step("assign", (Op("+", (cursor, step)),), self._origin(stmt.span, env, f"next {stmt.name}"), (cursor.name,))
        advance = self._emit(onward, (head,))
        inner = env.bind(stmt.name, cursor)
        depth = len(env.locks)
        inner = replace(inner, targets={**env.targets, "break": (after, depth), "continue": (advance, depth)})
        body = self._block(stmt.body, inner, advance)
        self._nodes[head] = Node(Step("branch", (Op("<", (cursor, end)),), origin), (body, after))
        entry = self._emit(Step("assign", (start,), origin, (cursor.name,)), (head,))
        for held in (step_at, end_at, start_at):
            if held is not None:
                entry = self._emit(held, (entry,))
        return entry

    def _while(self, stmt: ast.While, condition: ast.Expr | None, body: ast.Block, env: Env, after: int) -> int:
        origin = self._origin(stmt.span, env, "loop" if condition is None else f"while ({self._text(condition.span)})")
        head = self._emit(Step("nop", (), origin), ())
        depth = len(env.locks)
        inner = replace(env, targets={**env.targets, "break": (after, depth), "continue": (head, depth)})
        entry = self._block(body, inner, head)
        value: Expr = Const(1, "bool") if condition is None else self._expr(condition, env)
        successors = (entry, after) if condition is not None else (entry, entry)
        self._nodes[head] = Node(Step("branch", (value,), origin), successors)
        return head

    def _hold(self, expr: ast.Expr, name: str, env: Env) -> tuple[Expr, Step | None]:
        """The value of an argument, evaluated once: itself if it cannot change, else a local and the step that sets it."""
        value = self._expr(expr, env)
        if self._fixed(value):
            return value, None
        local = self._fresh(name, kind_of(value))
        return local, Step("assign", (value,), self._origin(expr.span, env, f"{name} = {self._text(expr.span)}"), (local.name,))

    def _fixed(self, value: Expr) -> bool:
        return not any(
            isinstance(e, Look | Nondet | DeviceVar) or (isinstance(e, Local) and e.name in self._mutable)
            for e in subexpressions(value)
        )

    # ---- locks

    def _lock_of(self, ref: ast.LockRef, env: Env) -> Held:
        own = env.device is not None and ref.name in {lock.name for lock in env.device.locks}
        name = f"{env.device.name}.{ref.name}" if own and env.device else ref.name
        return Held(name, ref.mode, self._expr(ref.key, env) if ref.key is not None else None)

    def _locking(self, kind: str, lock: Held, span: Span, env: Env) -> Step:
        args = (lock.key,) if lock.key is not None else ()
        text = self._text(span) if kind == "lock" else f"unlock {lock.name}"
        return Step(kind, args, self._origin(span, env, text), names=(lock.name, lock.mode))

    def _unlock(self, lock: Held, span: Span, env: Env, after: int) -> int:
        return self._emit(self._locking("unlock", lock, span, env), (after,))

    def _with(self, stmt: ast.With, ref: ast.LockRef, body: ast.Block, env: Env, after: int) -> int:
        lock = self._lock_of(ref, env)
        held: Step | None = None
        if ref.key is not None:
            key, held = self._hold(ref.key, "key", env)
            lock = replace(lock, key=key)
        release = self._unlock(lock, stmt.body.span, env, after)
        inner = replace(env, locks=(*env.locks, (lock, stmt.body.span)))
        entry = self._emit(self._locking("lock", lock, stmt.span, env), (self._block(body, inner, release),))
        return self._emit(held, (entry,)) if held is not None else entry

    # ---- calls

    def _call(self, stmt: ast.CallStmt, env: Env, after: int) -> int:
        if stmt.name in STEPS:
            args = self._args(stmt.args, env)
            step = Step(stmt.name, args, self._origin(stmt.span, env))
            if stmt.name == "cmpxchg":
                assert isinstance(args[0], DeviceVar)
                step = Step("set_var", (args[2], Op("==", args[:2])), step.origin, names=(args[0].device, args[0].name))
            return self._emit(step, (after,))
        macro = self._library.find(stmt.name, env.version)
        if macro is not None and macro.declaration.body is not None:
            code = macro.declaration
            return self._inline(stmt, code.params, code.body, macro.version, code.anchor, env, after)  # type: ignore[arg-type]
        function = self._functions.get(stmt.name)
        if function is None:
            message = f"protocol `{self._protocol}` has no `{stmt.name}`"
            raise InputError([Diagnostic("E404", message, stmt.span, suggest(stmt.name, self._functions))])
        return self._inline(stmt, function.params, function.body, "", "", env, after)

    def _inline(self, stmt: ast.CallStmt | ast.Dispatch, params: Sequence[ast.Param], body: ast.Block, version: str, anchor: str,
                env: Env, after: int, device: ast.Device | None = None) -> int:  # fmt: skip
        name = stmt.name if isinstance(stmt, ast.CallStmt) else stmt.callback
        caller = f"{device.name}.{name}" if device else name
        self._expanded(stmt.span)
        if caller in env.calls or len(env.calls) > MAX_CALLS:
            raise InputError([Diagnostic("E310", f"`{name}` expands into itself", stmt.span, "a macro may not call itself")])
        names: dict[str, Expr] = {}
        held: list[Step] = []
        for param, arg in zip(params, stmt.args, strict=True):
            value, step = self._hold(arg, param.name, env)
            names[param.name] = value
            held.extend([step] if step else [])
        frames = (*env.frames, Frame(name, anchor, stmt.span))
        inner = Env(names, version, frames, device.name if device else env.actor, device or env.device, env.locks,
                     {"return": (after, len(env.locks))}, (*env.calls, caller))  # fmt: skip
        entry = self._block(body, inner, after)
        for step in reversed(held):
            entry = self._emit(step, (entry,))
        return entry

    def _dispatch(self, stmt: ast.Dispatch, env: Env, after: int) -> int:
        for device in reversed(self._devices):
            hook = next((h for h in device.hooks if h.name == stmt.callback), None)
            if hook is not None:
                after = self._inline(stmt, hook.params, hook.body, "", "", env, after, device)
        origin = self._origin(stmt.span, env)
        return self._emit(Step("dispatch", self._args(stmt.args, env), origin, names=(stmt.callback,)), (after,))

def _renumber(name: str, nodes: list[Node], entry: int, exit_node: int, params: tuple[tuple[str, str], ...], variables: dict[str, str],
              anchor: str, doc: str) -> Program:  # fmt: skip
    """Reachable nodes only, numbered from the entry in the order control meets them."""
    draft = Program(name, tuple(nodes), entry, exit_node, params, variables)
    order = draft.topological()
    if exit_node not in order:
        order.append(exit_node)
    number = {old: new for new, old in enumerate(order)}
    final = tuple(Node(nodes[old].step, tuple(number[s] for s in nodes[old].successors)) for old in order)
    return Program(name, final, 0, number[exit_node], params, dict(variables), anchor, doc)
