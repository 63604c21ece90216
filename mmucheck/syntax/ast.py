"""The abstract syntax of `.mmu`: frozen dataclasses, a Span on every node, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from mmucheck.syntax.diagnostics import Span


@dataclass(frozen=True)
class Node:
    span: Span


# ---- expressions


@dataclass(frozen=True)
class Number(Node):
    value: int


@dataclass(frozen=True)
class Name(Node):
    name: str


@dataclass(frozen=True)
class Member(Node):
    """``d.name``: a device variable, in properties."""

    base: str
    name: str


@dataclass(frozen=True)
class Unary(Node):
    op: str
    operand: Expr


@dataclass(frozen=True)
class Binary(Node):
    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Call(Node):
    """A look, or a macro with ``=``."""

    name: str
    args: tuple[Expr, ...]


Expr = Number | Name | Member | Unary | Binary | Call

# ---- statements


@dataclass(frozen=True)
class LockRef(Node):
    name: str
    mode: str  # "", "read" or "write"
    key: Expr | None


@dataclass(frozen=True)
class Block(Node):
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Let(Node):
    """``let a, b = e [else ...];`` -- the right side may be a partial step such as alloc_page()."""

    names: tuple[str, ...]
    value: Expr
    otherwise: Block | None


@dataclass(frozen=True)
class Var(Node):
    name: str
    value: Expr


@dataclass(frozen=True)
class Assign(Node):
    name: str
    op: str
    value: Expr


@dataclass(frozen=True)
class If(Node):
    condition: Expr
    then: Block
    otherwise: Block | None


@dataclass(frozen=True)
class Choose(Node):
    branches: tuple[Block, ...]


@dataclass(frozen=True)
class For(Node):
    name: str
    start: Expr
    end: Expr
    step: Expr | None
    body: Block


@dataclass(frozen=True)
class While(Node):
    condition: Expr | None
    body: Block


@dataclass(frozen=True)
class Leave(Node):
    kind: str


@dataclass(frozen=True)
class With(Node):
    lock: LockRef
    body: Block


@dataclass(frozen=True)
class Locking(Node):
    kind: str
    lock: LockRef


@dataclass(frozen=True)
class CallStmt(Node):
    name: str
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Dispatch(Node):
    callback: str
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Assume(Node):
    condition: Expr


@dataclass(frozen=True)
class Assert(Node):
    condition: Expr
    text: str


@dataclass(frozen=True)
class Drop(Node):
    cache: str
    start: Expr | None
    end: Expr | None


@dataclass(frozen=True)
class Fill(Node):
    cache: str
    address: Expr
    frame: Expr
    writable: Expr | None


@dataclass(frozen=True)
class Wait(Node):
    condition: Expr


Stmt = (
    Block | Let | Var | Assign | If | Choose | For | While | Leave | With | Locking | CallStmt | Dispatch
    | Assume | Assert | Drop | Fill | Wait
)  # fmt: skip

# ---- declarations


@dataclass(frozen=True)
class Use(Node):
    target: str
    system: bool


@dataclass(frozen=True)
class Kernel(Node):
    version: str


@dataclass(frozen=True)
class Declaration(Node):
    name: str
    doc: str


@dataclass(frozen=True)
class Const(Declaration):
    value: Expr


@dataclass(frozen=True)
class Lock(Declaration):
    kind: str  # spinlock, mutex, rwsem
    key: str  # "", or the kind of its key
    granule: Expr | None


@dataclass(frozen=True)
class Param(Node):
    name: str
    kind: str


@dataclass(frozen=True)
class Macro(Declaration):
    params: tuple[Param, ...]
    anchor: str
    body: Block | None
    value: Expr | None


@dataclass(frozen=True)
class Path(Declaration):
    params: tuple[Param, ...]
    anchor: str
    levels: tuple[Name, Name] | None  # the lower and the upper level; None: PTE, PMD
    requires: tuple[Expr, ...]
    body: Block


@dataclass(frozen=True)
class Cache(Declaration):
    of: str  # pages, tables
    source: str  # "", page_table, or another cache
    when: Expr | None


@dataclass(frozen=True)
class DeviceVar(Declaration):
    value: Expr


@dataclass(frozen=True)
class Routine(Declaration):
    """A hook, a handler, or a function of a protocol."""

    params: tuple[Param, ...]
    body: Block


@dataclass(frozen=True)
class Device(Declaration):
    title: str
    caches: tuple[Cache, ...]
    variables: tuple[DeviceVar, ...]
    locks: tuple[Lock, ...]
    hooks: tuple[Routine, ...]
    handlers: tuple[Routine, ...]


@dataclass(frozen=True)
class Callback(Declaration):
    params: tuple[Param, ...]
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class Protocol(Declaration):
    title: str
    base: str
    callbacks: tuple[Callback, ...]
    functions: tuple[Routine, ...]
    without: tuple[Name, ...]


@dataclass(frozen=True)
class Property(Declaration):
    """``alias`` and ``device`` are set for ``property p = q on d;``, the formula for the others."""

    title: str
    when: str  # always, finally
    binders: tuple[Param, ...]
    formula: Expr | None
    alias: str = ""
    device: str = ""


@dataclass(frozen=True)
class Edit(Node):
    """``kind`` is replace, remove, before or after; ``ordinal`` 0 means every call (or the only one)."""

    kind: str
    callee: str
    ordinal: int
    replacement: str
    inserted: Block | None


@dataclass(frozen=True)
class QName(Node):
    """A path or macro, with the kernel version where it is needed."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


@dataclass(frozen=True)
class Hunk(Node):
    target: QName
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Change(Declaration):
    title: str
    before: str
    after: str
    hunks: tuple[Hunk, ...]


@dataclass(frozen=True)
class Side(Node):
    """``under PROTOCOL`` or ``before|after CHANGE [except ...]``."""

    kind: str
    name: str
    excepted: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Verdict(Node):
    verdict: str
    properties: tuple[Name, ...]
    reason: str


@dataclass(frozen=True)
class Check(Declaration):
    threads: tuple[QName, ...]
    devices: tuple[tuple[Name, ...], ...]
    side: Side | None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Spec(Declaration):
    title: str
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class File:
    """One parsed file. ``items`` keep their order."""

    path: str
    kernel: str
    uses: tuple[Use, ...]
    items: tuple[Declaration, ...]
    text: str
