"""Parse tree to syntax tree: one method per grammar rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span, whole_file
from mmucheck.syntax.driver import Node, Token

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


class TreeBuilder:
    """One method per grammar rule. ``line_offset``: lines of the file before the text."""

    def __init__(self, path: str, line_offset: int, text: str) -> None:
        self._path, self._offset, self._source = path, line_offset, text

    def file(self, tree: Node) -> ast.File:
        """The file of a whole tree. Raises InputError for what the grammar lets pass, RecursionError for what is nested too deeply."""
        found = self._built(tree)
        assert isinstance(found, ast.File)
        return found

    def _built(self, node: Node) -> Any:
        return getattr(self, node.data)(node, [self._built(c) if isinstance(c, Node) else c for c in node.children])

    def _span(self, at: Node | Token) -> Span:
        if at.first is None or at.last is None:
            return whole_file(self._path)
        (line, column), (end_line, end_column) = at.first, at.last
        return Span(self._path, line + self._offset, column, end_line + self._offset, end_column)

    def _name(self, token: Token) -> ast.Name:
        return ast.Name(self._span(token), str(token))

    def start(self, node: Node, items: list[Any]) -> ast.File:
        kernels = [i for i in items if isinstance(i, ast.Kernel)]
        uses = tuple(i for i in items if isinstance(i, ast.Use))
        if not items and not self._offset:
            raise InputError([Diagnostic("E005", "the file is empty", whole_file(self._path))])
        if len(kernels) > 1:
            raise InputError([Diagnostic("E015", "a file describes one kernel version", kernels[1].span)])
        declarations = tuple(i for i in items if isinstance(i, ast.Declaration))
        version = kernels[0].version if kernels else ""
        return ast.File(self._path, version, uses, declarations, self._source)

    def use(self, node: Node, items: list[Token]) -> ast.Use:
        return ast.Use(self._span(node), str(items[0])[1:-1], items[0].type == "SYSTEM")

    def kernel(self, node: Node, items: list[Token]) -> ast.Kernel:
        return ast.Kernel(self._span(node), str(items[0]))

    def const(self, node: Node, items: list[Any]) -> ast.Const:
        return ast.Const(self._span(items[0]), str(items[0]), "", items[1])

    def shared(self, node: Node, items: list[Any]) -> ast.Shared:
        doc, name, value = items
        return ast.Shared(self._span(name), str(name), doc, None if isinstance(value, Token) else value)

    def lock_kind(self, node: Node, items: list[Token]) -> str:
        return str(items[0])

    def lock_key(self, node: Node, items: list[Any]) -> tuple[str, ast.Expr | None]:
        return str(items[0]), items[1]

    def lockdecl(self, node: Node, items: list[Any]) -> ast.Lock:
        doc, kind, name, key = items if len(items) == 4 else (*items, None)
        key_kind, granule = key or ("", None)
        return ast.Lock(self._span(name), str(name), doc, kind, key_kind, granule)

    def doc(self, node: Node, items: list[Token]) -> str:
        return " ".join(str(line)[3:].strip() for line in items)

    def anchor(self, node: Node, items: list[Token]) -> str:
        return _text(items[0])

    def params(self, node: Node, items: list[Any]) -> tuple[ast.Param, ...]:
        return tuple(i for i in items if i is not None)

    def param(self, node: Node, items: list[Any]) -> ast.Param:
        return ast.Param(self._span(items[0]), str(items[0]), str(items[1]) if items[1] else "")

    def requires(self, node: Node, items: list[Any]) -> tuple[str, ast.Expr]:
        return ("requires", items[0])

    def macro(self, node: Node, items: list[Any]) -> ast.Macro:
        doc, name, params, anchor, body = items
        return ast.Macro(self._span(name), str(name), doc, params, anchor or "", body, None)

    def exprmacro(self, node: Node, items: list[Any]) -> ast.Macro:
        doc, name, params, anchor, value = items
        return ast.Macro(self._span(name), str(name), doc, params, anchor or "", None, value)

    def path(self, node: Node, items: list[Any]) -> ast.Path:
        doc, name, params, anchor, levels, *requires, body = items
        conditions = tuple(r[1] for r in requires)
        return ast.Path(self._span(name), str(name), doc, params, anchor or "", levels, conditions, body)

    def levels(self, node: Node, items: list[Any]) -> tuple[ast.Name, ast.Name]:
        lower, upper = (ast.Name(self._span(item), str(item)) for item in items)
        return lower, upper

    def when(self, node: Node, items: list[Any]) -> ast.Expr:
        return items[0]  # type: ignore[no-any-return]

    def cache(self, node: Node, items: list[Any]) -> ast.Cache:
        name, of, source, when = items
        return ast.Cache(self._span(name), str(name), "", str(of), str(source) if source else "", when)

    def devvar(self, node: Node, items: list[Any]) -> ast.DeviceVar:
        return ast.DeviceVar(self._span(items[0]), str(items[0]), "", items[1])

    def hook(self, node: Node, items: list[Any]) -> tuple[str, ast.Routine]:
        return "hook", ast.Routine(self._span(items[0]), str(items[0]), "", items[1], items[2])

    def handler(self, node: Node, items: list[Any]) -> tuple[str, ast.Routine]:
        return "handler", ast.Routine(self._span(items[0]), str(items[0]), "", items[1], items[2])

    def device(self, node: Node, items: list[Any]) -> ast.Device:
        doc, name, title, *parts = items
        routines = [p for p in parts if isinstance(p, tuple)]
        return ast.Device(
            self._span(name), str(name), doc, _text(title),
            tuple(p for p in parts if isinstance(p, ast.Cache)),
            tuple(p for p in parts if isinstance(p, ast.DeviceVar)),
            tuple(p for p in parts if isinstance(p, ast.Lock)),
            tuple(r for kind, r in routines if kind == "hook"),
            tuple(r for kind, r in routines if kind == "handler"),
        )  # fmt: skip

    def attr(self, node: Node, items: list[Token]) -> str:
        return str(items[0])

    def callback(self, node: Node, items: list[Any]) -> ast.Callback:
        doc, name, params, *attributes = items
        return ast.Callback(self._span(name), str(name), doc, params, tuple(attributes))

    def function(self, node: Node, items: list[Any]) -> ast.Routine:
        doc, name, params, body = items
        return ast.Routine(self._span(name), str(name), doc, params, body)

    def without(self, node: Node, items: list[Any]) -> ast.Name:
        return self._name(items[1])

    def protocol(self, node: Node, items: list[Any]) -> ast.Protocol:
        doc, name, base, title, *parts = items
        return ast.Protocol(
            self._span(name), str(name), doc, _text(title), str(base) if base else "",
            tuple(p for p in parts if isinstance(p, ast.Callback)),
            tuple(p for p in parts if isinstance(p, ast.Routine)),
            tuple(p for p in parts if isinstance(p, ast.Name)),
        )  # fmt: skip

    def when_kw(self, node: Node, items: list[Token]) -> str:
        return str(items[0])

    def binders(self, node: Node, items: list[Any]) -> tuple[ast.Param, ...]:
        return tuple(items)

    binder = param

    def property(self, node: Node, items: list[Any]) -> ast.Property:
        doc, name, title, when, binders, formula = items
        return ast.Property(self._span(name), str(name), doc, _text(title), when, binders, formula)

    def property_alias(self, node: Node, items: list[Any]) -> ast.Property:
        doc, name, title, alias, device = items
        span = self._span(name)
        return ast.Property(span, str(name), doc, _text(title), "", (), None, str(alias), str(device))

    def change_protocol(self, node: Node, items: list[Token]) -> tuple[str, str]:
        return str(items[0]), str(items[1])

    def qname(self, node: Node, items: list[Any]) -> ast.QName:
        return ast.QName(self._span(node), str(items[0]), str(items[1]) if items[1] else "")

    def hunk(self, node: Node, items: list[Any]) -> ast.Hunk:
        return ast.Hunk(items[0].span, items[0], tuple(items[1:]))

    def replace(self, node: Node, items: list[Any]) -> ast.Edit:
        name, ordinal, new = items
        return ast.Edit(self._span(node), "replace", str(name), _ordinal(ordinal), str(new), None)

    def remove(self, node: Node, items: list[Any]) -> ast.Edit:
        return ast.Edit(self._span(node), "remove", str(items[0]), _ordinal(items[1]), "", None)

    def where(self, node: Node, items: list[Token]) -> str:
        return str(items[0])

    def insert(self, node: Node, items: list[Any]) -> ast.Edit:
        where, name, ordinal, block = items
        return ast.Edit(self._span(node), where, str(name), _ordinal(ordinal), "", block)

    def change(self, node: Node, items: list[Any]) -> ast.Change:
        doc, name, title, *parts = items
        protocols = [p for p in parts if isinstance(p, tuple)]
        if len(protocols) != 1:
            message = "a change names its protocols once: `protocol BEFORE -> AFTER;`"
            raise InputError([Diagnostic("E016", message, self._span(name))])
        hunks = tuple(p for p in parts if isinstance(p, ast.Hunk))
        before, after = protocols[0]
        return ast.Change(self._span(name), str(name), doc, _text(title), before, after, hunks)

    def together(self, node: Node, items: list[Any]) -> ast.Threads:
        return ast.Threads(self._span(node), tuple(items))

    def again(self, node: Node, items: list[Any]) -> ast.Threads:
        return ast.Threads(self._span(node), tuple(items), again=True)

    def device_set(self, node: Node, items: list[Token]) -> tuple[ast.Name, ...]:
        return tuple(self._name(t) for t in items)

    def devices(self, node: Node, items: list[Any]) -> tuple[tuple[ast.Name, ...], ...]:
        return tuple(items)

    def side_under(self, node: Node, items: list[Token]) -> ast.Side:
        return ast.Side(self._span(items[0]), "under", str(items[0]))

    def side_change(self, node: Node, items: list[Any]) -> ast.Side:
        kind, name, excepted = items
        return ast.Side(self._span(name), kind, str(name), excepted or ())

    def names(self, node: Node, items: list[Token]) -> tuple[ast.Name, ...]:
        return tuple(self._name(t) for t in items)

    def verdict(self, node: Node, items: list[Any]) -> ast.Verdict:
        return ast.Verdict(self._span(node), str(items[0]), items[1], _text(items[2]))

    def check(self, node: Node, items: list[Any]) -> ast.Check:
        doc, name, threads, devices, side, *verdicts = items
        return ast.Check(self._span(name), str(name), doc, threads.paths, devices, side, tuple(verdicts), threads.again)

    def spec(self, node: Node, items: list[Any]) -> ast.Spec:
        doc, name, title, *checks = items
        return ast.Spec(self._span(name), str(name), doc, _text(title), tuple(checks))

    # statements

    def block(self, node: Node, items: list[Any]) -> ast.Block:
        return ast.Block(self._span(node), tuple(items))

    def lnames(self, node: Node, items: list[Token]) -> tuple[str, ...]:
        return tuple(str(t) for t in items)

    def let(self, node: Node, items: list[Any]) -> ast.Let:
        return ast.Let(self._span(node), items[0], items[1], None)

    def letelse(self, node: Node, items: list[Any]) -> ast.Let:
        names, value, otherwise = items
        return ast.Let(self._span(node), names, value, _as_block(otherwise))

    def var(self, node: Node, items: list[Any]) -> ast.Var:
        return ast.Var(self._span(node), str(items[0]), items[1])

    def assign(self, node: Node, items: list[Any]) -> ast.Assign:
        return ast.Assign(self._span(node), str(items[0]), str(items[1]), items[2])

    def if_(self, node: Node, items: list[Any]) -> ast.If:
        otherwise = None if items[2] is None else _as_block(items[2])
        return ast.If(self._span(node), items[0], items[1], otherwise)

    def choose(self, node: Node, items: list[Any]) -> ast.Choose:
        return ast.Choose(self._span(node), tuple(items))

    def for_(self, node: Node, items: list[Any]) -> ast.For:
        name, bounds, step, body = items
        return ast.For(self._span(node), str(name), bounds[0], bounds[1], step, body)

    def while_(self, node: Node, items: list[Any]) -> ast.While:
        return ast.While(self._span(node), items[0], items[1])

    def loop(self, node: Node, items: list[Any]) -> ast.While:
        return ast.While(self._span(node), None, items[0])

    def leave(self, node: Node, items: list[Token]) -> ast.Leave:
        return ast.Leave(self._span(node), str(items[0]))

    def lockref(self, node: Node, items: list[Any]) -> ast.LockRef:
        mode, name, key = items
        return ast.LockRef(self._span(node), str(name), str(mode) if mode else "", key)

    def with_(self, node: Node, items: list[Any]) -> ast.With:
        return ast.With(self._span(node), items[0], items[1])

    def locking(self, node: Node, items: list[Any]) -> ast.Locking:
        return ast.Locking(self._span(node), str(items[0]), items[1])

    def callstmt(self, node: Node, items: list[Any]) -> ast.CallStmt:
        return ast.CallStmt(self._span(node), str(items[0]), items[1])

    def dispatch(self, node: Node, items: list[Any]) -> ast.Dispatch:
        return ast.Dispatch(self._span(node), str(items[0]), items[1])

    def assume(self, node: Node, items: list[Any]) -> ast.Assume:
        return ast.Assume(self._span(node), items[0])

    def assertion(self, node: Node, items: list[Any]) -> ast.Assert:
        return ast.Assert(self._span(node), items[0], _text(items[1]))

    def drop(self, node: Node, items: list[Any]) -> ast.Drop:
        name, what = items
        start, end = (None, None) if isinstance(what, Token) else what
        return ast.Drop(self._span(node), str(name), start, end)

    def fill(self, node: Node, items: list[Any]) -> ast.Fill:
        name, address, frame, writable = items
        return ast.Fill(self._span(node), str(name), address, frame, writable)

    def wait(self, node: Node, items: list[Any]) -> ast.Wait:
        return ast.Wait(self._span(node), items[0])

    def range(self, node: Node, items: list[Any]) -> tuple[ast.Expr, ast.Expr]:
        return items[0], items[1]

    def args(self, node: Node, items: list[Any]) -> tuple[ast.Expr, ...]:
        return tuple(i for i in items if i is not None)

    # expressions

    def number(self, node: Node, items: list[Token]) -> ast.Number:
        value = _number(items[0])
        if value is None:
            raise InputError([Diagnostic("E018", "this number does not fit into 64 bits", self._span(node))])
        return ast.Number(self._span(node), value)

    def name(self, node: Node, items: list[Token]) -> ast.Name:
        return self._name(items[0])

    def member(self, node: Node, items: list[Token]) -> ast.Member:
        return ast.Member(self._span(node), str(items[0]), str(items[1]))

    def callexpr(self, node: Node, items: list[Any]) -> ast.Call:
        return ast.Call(self._span(node), str(items[0]), items[1])

    def compare(self, node: Node, items: list[Any]) -> ast.Binary:
        return ast.Binary(self._span(node), str(items[1]), items[0], items[2])

    arith = compare

    def neg(self, node: Node, items: list[Any]) -> ast.Binary:
        return ast.Binary(self._span(node), "-", ast.Number(self._span(node), 0), items[0])


def _ordinal(token: Token | None) -> int:
    return int(str(token)[1:_DIGITS]) if token is not None else 0


def _as_block(stmt: ast.Block | ast.If | ast.Leave) -> ast.Block:
    return stmt if isinstance(stmt, ast.Block) else ast.Block(stmt.span, (stmt,))


def _operator(op: str, unary: bool = False) -> Callable[[TreeBuilder, Node, list[Any]], ast.Expr]:
    def build(self: TreeBuilder, node: Node, items: list[Any]) -> ast.Expr:
        if unary:
            return ast.Unary(self._span(node), op, items[0])
        return ast.Binary(self._span(node), op, items[0], items[1])

    return build


for _rule, _op in (("or_", "||"), ("and_", "&&"), ("bor", "|"), ("bxor", "^"), ("band", "&"), ("implies", "->")):
    setattr(TreeBuilder, _rule, _operator(_op))
for _rule, _op in (("not_", "!"), ("bnot", "~")):
    setattr(TreeBuilder, _rule, _operator(_op, unary=True))
for _rule in ("if", "for", "while", "with"):
    setattr(TreeBuilder, _rule, getattr(TreeBuilder, _rule + "_"))
