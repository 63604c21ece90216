"""Parse tree to syntax tree: one method per grammar rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lark import Token, Transformer, v_args
from lark.tree import Meta

from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span, whole_file

_SUFFIX = {"K": 10, "M": 20, "G": 30, "T": 40}


_DIGITS = 64
"""More than any number of 64 bits is written with, in decimal or with a few zeros in front."""


def _number(token: Token) -> int | None:
    """The value; None if it does not fit into 64 bits."""
    text = str(token)
    if len(text) > _DIGITS:
        return None
    shift = _SUFFIX.get(text[-1], 0) if not text.lower().startswith("0x") or text[-1] in "KMGT" else 0
    value = int(text[:-1] if shift else text, 0 if text.lower().startswith("0x") else 10) << shift
    return value if value < 1 << 64 else None


def _text(token: Token | None) -> str:
    return str(token)[1:-1] if token is not None else ""


@v_args(meta=True)
class TreeBuilder(Transformer[Token, Any]):
    """One method per grammar rule."""

    def __init__(self, path: str, line_offset: int, text: str) -> None:
        super().__init__()
        self._path, self._offset, self._source = path, line_offset, text

    def _span(self, meta: Meta) -> Span:
        if meta.empty:
            return whole_file(self._path)
        return Span(self._path, meta.line + self._offset, meta.column, meta.end_line + self._offset, meta.end_column)

    def _token_span(self, token: Token) -> Span:
        line = (token.line or 1) + self._offset
        return Span(self._path, line, token.column or 1, (token.end_line or 1) + self._offset, token.end_column or 2)

    def _name(self, token: Token) -> ast.Name:
        return ast.Name(self._token_span(token), str(token))

    def start(self, meta: Meta, items: list[Any]) -> ast.File:
        kernels = [i for i in items if isinstance(i, ast.Kernel)]
        uses = tuple(i for i in items if isinstance(i, ast.Use))
        if not items and not self._offset:
            raise InputError([Diagnostic("E005", "the file is empty", whole_file(self._path))])
        if len(kernels) > 1:
            raise InputError([Diagnostic("E015", "a file describes one kernel version", kernels[1].span)])
        declarations = tuple(i for i in items if isinstance(i, ast.Declaration))
        version = kernels[0].version if kernels else ""
        return ast.File(self._path, version, uses, declarations, self._source)

    def use(self, meta: Meta, items: list[Token]) -> ast.Use:
        return ast.Use(self._span(meta), str(items[0])[1:-1], items[0].type == "SYSTEM")

    def kernel(self, meta: Meta, items: list[Token]) -> ast.Kernel:
        return ast.Kernel(self._span(meta), str(items[0]))

    def const(self, meta: Meta, items: list[Any]) -> ast.Const:
        return ast.Const(self._token_span(items[0]), str(items[0]), "", items[1])

    def shared(self, meta: Meta, items: list[Any]) -> ast.Shared:
        doc, name, value = items
        return ast.Shared(self._token_span(name), str(name), doc, None if isinstance(value, Token) else value)

    def lock_kind(self, meta: Meta, items: list[Token]) -> str:
        return str(items[0])

    def lock_key(self, meta: Meta, items: list[Any]) -> tuple[str, ast.Expr | None]:
        return str(items[0]), items[1]

    def lockdecl(self, meta: Meta, items: list[Any]) -> ast.Lock:
        doc, kind, name, key = items if len(items) == 4 else (*items, None)
        key_kind, granule = key or ("", None)
        return ast.Lock(self._token_span(name), str(name), doc, kind, key_kind, granule)

    def doc(self, meta: Meta, items: list[Token]) -> str:
        return " ".join(str(line)[3:].strip() for line in items)

    def anchor(self, meta: Meta, items: list[Token]) -> str:
        return _text(items[0])

    def params(self, meta: Meta, items: list[Any]) -> tuple[ast.Param, ...]:
        return tuple(i for i in items if i is not None)

    def param(self, meta: Meta, items: list[Any]) -> ast.Param:
        return ast.Param(self._token_span(items[0]), str(items[0]), str(items[1]) if items[1] else "")

    def requires(self, meta: Meta, items: list[Any]) -> tuple[str, ast.Expr]:
        return ("requires", items[0])

    def macro(self, meta: Meta, items: list[Any]) -> ast.Macro:
        doc, name, params, anchor, body = items
        return ast.Macro(self._token_span(name), str(name), doc, params, anchor or "", body, None)

    def exprmacro(self, meta: Meta, items: list[Any]) -> ast.Macro:
        doc, name, params, anchor, value = items
        return ast.Macro(self._token_span(name), str(name), doc, params, anchor or "", None, value)

    def path(self, meta: Meta, items: list[Any]) -> ast.Path:
        doc, name, params, anchor, levels, *requires, body = items
        conditions = tuple(r[1] for r in requires)
        return ast.Path(self._token_span(name), str(name), doc, params, anchor or "", levels, conditions, body)

    def levels(self, meta: Meta, items: list[Any]) -> tuple[ast.Name, ast.Name]:
        lower, upper = (ast.Name(self._token_span(item), str(item)) for item in items)
        return lower, upper

    def when(self, meta: Meta, items: list[Any]) -> ast.Expr:
        return items[0]  # type: ignore[no-any-return]

    def cache(self, meta: Meta, items: list[Any]) -> ast.Cache:
        name, of, source, when = items
        return ast.Cache(self._token_span(name), str(name), "", str(of), str(source) if source else "", when)

    def devvar(self, meta: Meta, items: list[Any]) -> ast.DeviceVar:
        return ast.DeviceVar(self._token_span(items[0]), str(items[0]), "", items[1])

    def hook(self, meta: Meta, items: list[Any]) -> tuple[str, ast.Routine]:
        return "hook", ast.Routine(self._token_span(items[0]), str(items[0]), "", items[1], items[2])

    def handler(self, meta: Meta, items: list[Any]) -> tuple[str, ast.Routine]:
        return "handler", ast.Routine(self._token_span(items[0]), str(items[0]), "", items[1], items[2])

    def device(self, meta: Meta, items: list[Any]) -> ast.Device:
        doc, name, title, *parts = items
        routines = [p for p in parts if isinstance(p, tuple)]
        return ast.Device(
            self._token_span(name), str(name), doc, _text(title),
            tuple(p for p in parts if isinstance(p, ast.Cache)),
            tuple(p for p in parts if isinstance(p, ast.DeviceVar)),
            tuple(p for p in parts if isinstance(p, ast.Lock)),
            tuple(r for kind, r in routines if kind == "hook"),
            tuple(r for kind, r in routines if kind == "handler"),
        )  # fmt: skip

    def attr(self, meta: Meta, items: list[Token]) -> str:
        return str(items[0])

    def callback(self, meta: Meta, items: list[Any]) -> ast.Callback:
        doc, name, params, *attributes = items
        return ast.Callback(self._token_span(name), str(name), doc, params, tuple(attributes))

    def function(self, meta: Meta, items: list[Any]) -> ast.Routine:
        doc, name, params, body = items
        return ast.Routine(self._token_span(name), str(name), doc, params, body)

    def without(self, meta: Meta, items: list[Any]) -> ast.Name:
        return self._name(items[1])

    def protocol(self, meta: Meta, items: list[Any]) -> ast.Protocol:
        doc, name, base, title, *parts = items
        return ast.Protocol(
            self._token_span(name), str(name), doc, _text(title), str(base) if base else "",
            tuple(p for p in parts if isinstance(p, ast.Callback)),
            tuple(p for p in parts if isinstance(p, ast.Routine)),
            tuple(p for p in parts if isinstance(p, ast.Name)),
        )  # fmt: skip

    def when_kw(self, meta: Meta, items: list[Token]) -> str:
        return str(items[0])

    def binders(self, meta: Meta, items: list[Any]) -> tuple[ast.Param, ...]:
        return tuple(items)

    binder = param

    def property(self, meta: Meta, items: list[Any]) -> ast.Property:
        doc, name, title, when, binders, formula = items
        return ast.Property(self._token_span(name), str(name), doc, _text(title), when, binders, formula)

    def property_alias(self, meta: Meta, items: list[Any]) -> ast.Property:
        doc, name, title, alias, device = items
        span = self._token_span(name)
        return ast.Property(span, str(name), doc, _text(title), "", (), None, str(alias), str(device))

    def change_protocol(self, meta: Meta, items: list[Token]) -> tuple[str, str]:
        return str(items[0]), str(items[1])

    def qname(self, meta: Meta, items: list[Any]) -> ast.QName:
        return ast.QName(self._span(meta), str(items[0]), str(items[1]) if items[1] else "")

    def hunk(self, meta: Meta, items: list[Any]) -> ast.Hunk:
        return ast.Hunk(items[0].span, items[0], tuple(items[1:]))

    def replace(self, meta: Meta, items: list[Any]) -> ast.Edit:
        name, ordinal, new = items
        return ast.Edit(self._span(meta), "replace", str(name), _ordinal(ordinal), str(new), None)

    def remove(self, meta: Meta, items: list[Any]) -> ast.Edit:
        return ast.Edit(self._span(meta), "remove", str(items[0]), _ordinal(items[1]), "", None)

    def where(self, meta: Meta, items: list[Token]) -> str:
        return str(items[0])

    def insert(self, meta: Meta, items: list[Any]) -> ast.Edit:
        where, name, ordinal, block = items
        return ast.Edit(self._span(meta), where, str(name), _ordinal(ordinal), "", block)

    def change(self, meta: Meta, items: list[Any]) -> ast.Change:
        doc, name, title, *parts = items
        protocols = [p for p in parts if isinstance(p, tuple)]
        if len(protocols) != 1:
            message = "a change names its protocols once: `protocol BEFORE -> AFTER;`"
            raise InputError([Diagnostic("E016", message, self._token_span(name))])
        hunks = tuple(p for p in parts if isinstance(p, ast.Hunk))
        before, after = protocols[0]
        return ast.Change(self._token_span(name), str(name), doc, _text(title), before, after, hunks)

    def threads(self, meta: Meta, items: list[Any]) -> tuple[ast.QName, ...]:
        return tuple(items)

    def device_set(self, meta: Meta, items: list[Token]) -> tuple[ast.Name, ...]:
        return tuple(self._name(t) for t in items)

    def devices(self, meta: Meta, items: list[Any]) -> tuple[tuple[ast.Name, ...], ...]:
        return tuple(items)

    def side_under(self, meta: Meta, items: list[Token]) -> ast.Side:
        return ast.Side(self._token_span(items[0]), "under", str(items[0]))

    def side_change(self, meta: Meta, items: list[Any]) -> ast.Side:
        kind, name, excepted = items
        return ast.Side(self._token_span(name), kind, str(name), excepted or ())

    def names(self, meta: Meta, items: list[Token]) -> tuple[ast.Name, ...]:
        return tuple(self._name(t) for t in items)

    def verdict(self, meta: Meta, items: list[Any]) -> ast.Verdict:
        return ast.Verdict(self._span(meta), str(items[0]), items[1], _text(items[2]))

    def check(self, meta: Meta, items: list[Any]) -> ast.Check:
        doc, name, threads, devices, side, *verdicts = items
        return ast.Check(self._token_span(name), str(name), doc, threads, devices, side, tuple(verdicts))

    def spec(self, meta: Meta, items: list[Any]) -> ast.Spec:
        doc, name, title, *checks = items
        return ast.Spec(self._token_span(name), str(name), doc, _text(title), tuple(checks))

    # statements

    def block(self, meta: Meta, items: list[Any]) -> ast.Block:
        return ast.Block(self._span(meta), tuple(items))

    def lnames(self, meta: Meta, items: list[Token]) -> tuple[str, ...]:
        return tuple(str(t) for t in items)

    def let(self, meta: Meta, items: list[Any]) -> ast.Let:
        return ast.Let(self._span(meta), items[0], items[1], None)

    def letelse(self, meta: Meta, items: list[Any]) -> ast.Let:
        names, value, otherwise = items
        return ast.Let(self._span(meta), names, value, _as_block(otherwise))

    def var(self, meta: Meta, items: list[Any]) -> ast.Var:
        return ast.Var(self._span(meta), str(items[0]), items[1])

    def assign(self, meta: Meta, items: list[Any]) -> ast.Assign:
        return ast.Assign(self._span(meta), str(items[0]), str(items[1]), items[2])

    def if_(self, meta: Meta, items: list[Any]) -> ast.If:
        otherwise = None if items[2] is None else _as_block(items[2])
        return ast.If(self._span(meta), items[0], items[1], otherwise)

    def choose(self, meta: Meta, items: list[Any]) -> ast.Choose:
        return ast.Choose(self._span(meta), tuple(items))

    def for_(self, meta: Meta, items: list[Any]) -> ast.For:
        name, bounds, step, body = items
        return ast.For(self._span(meta), str(name), bounds[0], bounds[1], step, body)

    def while_(self, meta: Meta, items: list[Any]) -> ast.While:
        return ast.While(self._span(meta), items[0], items[1])

    def loop(self, meta: Meta, items: list[Any]) -> ast.While:
        return ast.While(self._span(meta), None, items[0])

    def leave(self, meta: Meta, items: list[Token]) -> ast.Leave:
        return ast.Leave(self._span(meta), str(items[0]))

    def lockref(self, meta: Meta, items: list[Any]) -> ast.LockRef:
        mode, name, key = items
        return ast.LockRef(self._span(meta), str(name), str(mode) if mode else "", key)

    def with_(self, meta: Meta, items: list[Any]) -> ast.With:
        return ast.With(self._span(meta), items[0], items[1])

    def locking(self, meta: Meta, items: list[Any]) -> ast.Locking:
        return ast.Locking(self._span(meta), str(items[0]), items[1])

    def callstmt(self, meta: Meta, items: list[Any]) -> ast.CallStmt:
        return ast.CallStmt(self._span(meta), str(items[0]), items[1])

    def dispatch(self, meta: Meta, items: list[Any]) -> ast.Dispatch:
        return ast.Dispatch(self._span(meta), str(items[0]), items[1])

    def assume(self, meta: Meta, items: list[Any]) -> ast.Assume:
        return ast.Assume(self._span(meta), items[0])

    def assertion(self, meta: Meta, items: list[Any]) -> ast.Assert:
        return ast.Assert(self._span(meta), items[0], _text(items[1]))

    def drop(self, meta: Meta, items: list[Any]) -> ast.Drop:
        name, what = items
        start, end = (None, None) if isinstance(what, Token) else what
        return ast.Drop(self._span(meta), str(name), start, end)

    def fill(self, meta: Meta, items: list[Any]) -> ast.Fill:
        name, address, frame, writable = items
        return ast.Fill(self._span(meta), str(name), address, frame, writable)

    def wait(self, meta: Meta, items: list[Any]) -> ast.Wait:
        return ast.Wait(self._span(meta), items[0])

    def range(self, meta: Meta, items: list[Any]) -> tuple[ast.Expr, ast.Expr]:
        return items[0], items[1]

    def args(self, meta: Meta, items: list[Any]) -> tuple[ast.Expr, ...]:
        return tuple(i for i in items if i is not None)

    # expressions

    def number(self, meta: Meta, items: list[Token]) -> ast.Number:
        value = _number(items[0])
        if value is None:
            raise InputError([Diagnostic("E018", "this number does not fit into 64 bits", self._span(meta))])
        return ast.Number(self._span(meta), value)

    def name(self, meta: Meta, items: list[Token]) -> ast.Name:
        return self._name(items[0])

    def member(self, meta: Meta, items: list[Token]) -> ast.Member:
        return ast.Member(self._span(meta), str(items[0]), str(items[1]))

    def callexpr(self, meta: Meta, items: list[Any]) -> ast.Call:
        return ast.Call(self._span(meta), str(items[0]), items[1])

    def compare(self, meta: Meta, items: list[Any]) -> ast.Binary:
        return ast.Binary(self._span(meta), str(items[1]), items[0], items[2])

    arith = compare

    def neg(self, meta: Meta, items: list[Any]) -> ast.Binary:
        return ast.Binary(self._span(meta), "-", ast.Number(self._span(meta), 0), items[0])


def _ordinal(token: Token | None) -> int:
    return int(str(token)[1:_DIGITS]) if token is not None else 0


def _as_block(stmt: ast.Block | ast.If | ast.Leave) -> ast.Block:
    return stmt if isinstance(stmt, ast.Block) else ast.Block(stmt.span, (stmt,))


def _operator(op: str, unary: bool = False) -> Callable[[TreeBuilder, Meta, list[Any]], ast.Expr]:
    def build(self: TreeBuilder, meta: Meta, items: list[Any]) -> ast.Expr:
        if unary:
            return ast.Unary(self._span(meta), op, items[0])
        return ast.Binary(self._span(meta), op, items[0], items[1])

    return v_args(meta=True)(build)


for _rule, _op in (("or_", "||"), ("and_", "&&"), ("bor", "|"), ("bxor", "^"), ("band", "&"), ("implies", "->")):
    setattr(TreeBuilder, _rule, _operator(_op))
for _rule, _op in (("not_", "!"), ("bnot", "~")):
    setattr(TreeBuilder, _rule, _operator(_op, unary=True))
for _rule in ("if", "for", "while", "with"):
    setattr(TreeBuilder, _rule, getattr(TreeBuilder, _rule + "_"))
