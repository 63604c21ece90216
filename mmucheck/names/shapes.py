"""What can be told of expressions and statements by their form: distances that are the same for all values, ways that always leave."""

from __future__ import annotations

from collections.abc import Mapping

from mmucheck.names.builtins import CONSTANTS
from mmucheck.syntax import ast


def difference(start: ast.Expr, end: ast.Expr, consts: Mapping[str, ast.Const]) -> int | None:
    """end - start, modulo 2^64, if it is the same for all values, else None."""
    total: dict[object, int] = {}
    constant = _linear(end, 1, total, consts) - _linear(start, -1, total, consts) * -1
    return None if any(v % (1 << 64) for v in total.values()) else constant % (1 << 64)


def _linear(expr: ast.Expr, sign: int, total: dict[object, int], consts: Mapping[str, ast.Const]) -> int:
    """Adds the expression's terms into ``total``; returns its constant part times ``sign``."""
    match expr:
        case ast.Number(value=value):
            return sign * value
        case ast.Name(name=name) if name in CONSTANTS:
            return sign * CONSTANTS[name][0]
        case ast.Name(name=name) if name in consts and isinstance(consts[name].value, ast.Number):
            return sign * consts[name].value.value  # type: ignore[union-attr]
        case ast.Binary(op="+", left=left, right=right):
            return _linear(left, sign, total, consts) + _linear(right, sign, total, consts)
        case ast.Binary(op="-", left=left, right=right):
            return _linear(left, sign, total, consts) + _linear(right, -sign, total, consts)
    key = _shape(expr)
    total[key] = total.get(key, 0) + sign
    return 0


def _shape(expr: ast.Expr) -> object:
    """The expression's shape without places, to compare two by text."""
    match expr:
        case ast.Number(value=value):
            return value
        case ast.Name(name=name):
            return name
        case ast.Member(base=base, name=name):
            return (base, ".", name)
        case ast.Unary(op=op, operand=operand):
            return (op, _shape(operand))
        case ast.Binary(op=op, left=left, right=right):
            return (op, _shape(left), _shape(right))
        case ast.Call(name=name, args=args):
            return (name, *map(_shape, args))


def walk_expr(expr: ast.Expr) -> list[ast.Expr]:
    """The expression and all its parts."""
    parts: tuple[ast.Expr, ...] = ()
    match expr:
        case ast.Unary(operand=operand):
            parts = (operand,)
        case ast.Binary(left=left, right=right):
            parts = (left, right)
        case ast.Call(args=args):
            parts = args
    return [expr, *(e for p in parts for e in walk_expr(p))]


def leaves(stmt: ast.Stmt) -> bool:
    """Whether control never comes out behind the statement."""
    match stmt:
        case ast.Leave():
            return True
        case ast.Block(body=body) | ast.With(body=ast.Block(body=body)):
            return any(leaves(s) for s in body)
        case ast.If(then=then, otherwise=otherwise):
            return otherwise is not None and leaves(then) and leaves(otherwise)
        case ast.Choose(branches=branches):
            return all(leaves(b) for b in branches)
    return False


def say_kind(kind: str) -> str:
    """A kind in words."""
    return {"number": "number (address, size, count)", "bool": "condition", "table": "page-table page"}.get(kind, kind)
