"""Expressions of the syntax tree as those of the intermediate form: names resolved, macros that have a value put in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace

from mmucheck.ir.program import Const, DeviceVar, Expr, Frame, Local, Look, Nondet, Op
from mmucheck.names.builtins import ADDRESS_SPACE, CONSTANTS, LOOKS
from mmucheck.names.library import Library
from mmucheck.records import record
from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span

MAX_EXPANSIONS = 100_000
"""Macros and callbacks expanded for one program, whether or not steps come of them."""
MAX_PARTS = 5_000
"""Of one expression, after macros."""


@record
class Held:
    """A lock that a ``with`` holds."""

    name: str
    mode: str
    key: Expr | None


@record
class Env:
    """Where we are: names in scope, macro frames, locks held by enclosing ``with``, where leaving goes."""

    names: dict[str, Expr]
    version: str
    frames: tuple[Frame, ...] = ()
    actor: str = ""
    device: ast.Device | None = None
    locks: tuple[tuple[Held, Span], ...] = ()
    targets: dict[str, tuple[int, int]] = field(default_factory=dict)
    calls: tuple[str, ...] = ()

    def bind(self, name: str, value: Expr) -> Env:
        return replace(self, names={**self.names, name: value})


class Expressions:
    """Expands expressions, and measures what becomes of them."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._labels = 0
        self._expansions = 0
        self._parts: dict[int, tuple[Expr, int]] = {}
        self._consts: dict[str, Expr | None] = {}

    def _args(self, args: Sequence[ast.Expr], env: Env) -> tuple[Expr, ...]:
        return tuple(self._expr(a, env) for a in args)

    def _nondet(self, span: Span, env: Env) -> Nondet:
        self._labels += 1
        return Nondet(f"choice{self._labels}@{span.line}")

    def _pure(self, expr: ast.Expr, env: Env) -> Expr:
        """An expression outside the flow of steps; labels it may make are not used."""
        labels = self._labels
        value = self._expr(expr, env)
        self._labels = labels
        return value

    def _expr(self, expr: ast.Expr, env: Env) -> Expr:
        match expr:
            case ast.Number(value=value):
                return Const(value)
            case ast.Name(name=name):
                if name in env.names:
                    return env.names[name]
                if env.device is not None and name in {v.name for v in env.device.variables}:
                    return DeviceVar(env.device.name, name)
                if name in self._library.consts:
                    return self._const(name, expr.span)
                if name in self._library.shared:
                    return DeviceVar(ADDRESS_SPACE, name)
                return Const(*CONSTANTS[name])
            case ast.Member(base=base, name=name):
                return Look("device_var", (Local(base, "device"), Look(name, ())))
            case ast.Unary(op=op, operand=operand):
                inner = self._expr(operand, env)
                return self._measured(fold(Op(op, (inner,))), (inner,), expr.span)
            case ast.Binary(op=op, left=left, right=right):
                sides = self._expr(left, env), self._expr(right, env)
                return self._measured(fold(Op(op, sides)), sides, expr.span)
            case ast.Call(name="nondet"):
                return self._nondet(expr.span, env)
            case ast.Call(name="has", args=args):
                assert env.device is not None
                assert isinstance(args[0], ast.Name)
                return Look("has", (Look(f"{env.device.name}.{args[0].name}", ()), self._expr(args[1], env)))
            case ast.Call(name=name, args=args):
                values = tuple(self._expr(a, env) for a in args)
                if name in LOOKS:
                    return self._measured(Look(name, values), values, expr.span)
                self._expanded(expr.span)
                macro = self._library.find(name, env.version)
                assert macro is not None
                assert isinstance(macro.declaration, ast.Macro)
                assert macro.declaration.value is not None
                if name in env.calls:
                    raise InputError([Diagnostic("E310", f"`{name}` expands into itself", expr.span)])
                names = {p.name: v for p, v in zip(macro.declaration.params, values, strict=True)}
                return self._expr(macro.declaration.value, replace(env, names=names, version=macro.version, calls=(*env.calls, name)))

    def _expanded(self, span: Span) -> None:
        self._expansions += 1
        if self._expansions > MAX_EXPANSIONS:
            message = f"expands more than {MAX_EXPANSIONS} macros"
            raise InputError([Diagnostic("E311", message, span, "the macros it calls multiply")])

    def _measured(self, value: Expr, parts: Sequence[Expr], span: Span) -> Expr:
        """The value, its size noted: parts that are shared count each time they occur, since what reads an expression reads a tree."""
        if isinstance(value, Const):
            return value
        size = 1 + sum(self._parts.get(id(p), (p, 1))[1] for p in parts)
        if size > MAX_PARTS:
            message = f"an expression grows to more than {MAX_PARTS} parts"
            raise InputError([Diagnostic("E311", message, span, "the macros it calls multiply; a `let` holds what is used twice")])
        self._parts[id(value)] = (value, size)
        return value

    def _const(self, name: str, span: Span) -> Expr:
        if name in self._consts:
            known = self._consts[name]
            if known is None:
                raise InputError([Diagnostic("E310", f"`{name}` is defined by itself", span)])
            return known
        self._consts[name] = None
        value = self._consts[name] = self._expr(self._library.consts[name].value, Env({}, ""))
        return value


def fold(op: Op) -> Expr:
    """Constant arithmetic on numbers, so that ranges and masks read as values."""
    if not all(isinstance(a, Const) and a.kind == "number" for a in op.args):
        return op
    values = [a.value for a in op.args if isinstance(a, Const)]
    mask = (1 << 64) - 1
    if op.op == "~":
        return Const(~values[0] & mask)
    if len(values) == 2:
        a, b = values
        match op.op:
            case "+":
                return Const((a + b) & mask)
            case "-":
                return Const((a - b) & mask)
            case "*":
                return Const((a * b) & mask)
            case "&":
                return Const(a & b)
            case "|":
                return Const(a | b)
            case "<<":
                return Const((a << b) & mask if b < 64 else 0)
    return op


def kind_of(expr: Expr) -> str:
    """The kind of an expression of the intermediate form."""
    match expr:
        case Const(kind=kind) | Local(kind=kind):
            return kind
        case Nondet():
            return "bool"
        case DeviceVar():
            return "number"
        case Look(name=name):
            return LOOKS[name].results[0] if name in LOOKS else "number"
        case Op(op=op):
            return "bool" if op in ("!", "&&", "||", "->", "==", "!=", "<", "<=", ">", ">=") else "number"
