"""The abstract syntax of `.mmu`: frozen dataclasses, a Span on every node, no behaviour."""

from __future__ import annotations

from mmucheck.records import record
from mmucheck.syntax.diagnostics import Span


@record
class Node:
    span: Span


# ---- expressions


@record
class Number(Node):
    value: int


@record
class Name(Node):
    name: str


@record
class Member(Node):
    """``d.name``: a device variable, in properties."""

    base: str
    name: str


@record
class Unary(Node):
    op: str
    operand: Expr


@record
class Binary(Node):
    op: str
    left: Expr
    right: Expr


@record
class Call(Node):
    """A look, or a macro with ``=``."""

    name: str
    args: tuple[Expr, ...]


Expr = Number | Name | Member | Unary | Binary | Call

# ---- statements


@record
class LockRef(Node):
    name: str
    mode: str  # "", "read" or "write"
    key: Expr | None


@record
class Block(Node):
    body: tuple[Stmt, ...]


@record
class Let(Node):
    """``let a, b = e [else ...];`` -- the right side may be a partial step such as alloc_page()."""

    names: tuple[str, ...]
    value: Expr
    otherwise: Block | None


@record
class Var(Node):
    name: str
    value: Expr


@record
class Assign(Node):
    name: str
    op: str
    value: Expr


@record
class If(Node):
    condition: Expr
    then: Block
    otherwise: Block | None


@record
class Choose(Node):
    branches: tuple[Block, ...]


@record
class For(Node):
    name: str
    start: Expr
    end: Expr
    step: Expr | None
    body: Block


@record
class While(Node):
    condition: Expr | None
    body: Block


@record
class Leave(Node):
    kind: str


@record
class With(Node):
    lock: LockRef
    body: Block


@record
class Locking(Node):
    kind: str
    lock: LockRef


@record
class CallStmt(Node):
    name: str
    args: tuple[Expr, ...]


@record
class Dispatch(Node):
    callback: str
    args: tuple[Expr, ...]


@record
class Assume(Node):
    condition: Expr


@record
class Assert(Node):
    condition: Expr
    text: str


@record
class Drop(Node):
    cache: str
    start: Expr | None
    end: Expr | None


@record
class Fill(Node):
    cache: str
    address: Expr
    frame: Expr
    writable: Expr | None


@record
class Wait(Node):
    condition: Expr


Stmt = (
    Block | Let | Var | Assign | If | Choose | For | While | Leave | With | Locking | CallStmt | Dispatch
    | Assume | Assert | Drop | Fill | Wait
)  # fmt: skip

# ---- declarations


@record
class Use(Node):
    target: str
    system: bool


@record
class Kernel(Node):
    version: str


@record
class Declaration(Node):
    name: str
    doc: str


@record
class Const(Declaration):
    value: Expr


@record
class Shared(Declaration):
    """A variable of the address space. ``value``: what it holds at the start, None for any number."""

    value: Expr | None


@record
class Lock(Declaration):
    kind: str  # spinlock, mutex, rwsem
    key: str  # "", or the kind of its key
    granule: Expr | None


@record
class Param(Node):
    name: str
    kind: str


@record
class Macro(Declaration):
    params: tuple[Param, ...]
    anchor: str
    body: Block | None
    value: Expr | None


@record
class Path(Declaration):
    params: tuple[Param, ...]
    anchor: str
    levels: tuple[Name, Name] | None  # the lower and the upper level; None: PTE, PMD
    requires: tuple[Expr, ...]
    body: Block


@record
class Cache(Declaration):
    of: str  # pages, tables
    source: str  # "", page_table, or another cache
    when: Expr | None


@record
class DeviceVar(Declaration):
    value: Expr


@record
class Routine(Declaration):
    """A hook, a handler, or a function of a protocol."""

    params: tuple[Param, ...]
    body: Block


@record
class Device(Declaration):
    title: str
    caches: tuple[Cache, ...]
    variables: tuple[DeviceVar, ...]
    locks: tuple[Lock, ...]
    hooks: tuple[Routine, ...]
    handlers: tuple[Routine, ...]


@record
class Callback(Declaration):
    params: tuple[Param, ...]
    attributes: tuple[str, ...]


@record
class Protocol(Declaration):
    title: str
    base: str
    callbacks: tuple[Callback, ...]
    functions: tuple[Routine, ...]
    without: tuple[Name, ...]


@record
class Property(Declaration):
    """``alias`` and ``device`` are set for ``property p = q on d;``, the formula for the others."""

    title: str
    when: str  # always, finally
    binders: tuple[Param, ...]
    formula: Expr | None
    alias: str = ""
    device: str = ""


@record
class Edit(Node):
    """``kind`` is replace, remove, before or after; ``ordinal`` 0 means every call (or the only one)."""

    kind: str
    callee: str
    ordinal: int
    replacement: str
    inserted: Block | None


@record
class QName(Node):
    """A path or macro, with the kernel version where it is needed."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


@record
class Hunk(Node):
    target: QName
    edits: tuple[Edit, ...]


@record
class Change(Declaration):
    title: str
    before: str
    after: str
    hunks: tuple[Hunk, ...]


@record
class Side(Node):
    """``under PROTOCOL`` or ``before|after CHANGE [except ...]``."""

    kind: str
    name: str
    excepted: tuple[Name, ...] = ()


@record
class Verdict(Node):
    verdict: str
    properties: tuple[Name, ...]
    reason: str


@record
class Threads(Node):
    """``A || B``: one run of each; ``again``: ``loop { choose A, B }``, two threads that run any of them any number of times."""

    paths: tuple[QName, ...]
    again: bool = False


@record
class Check(Declaration):
    """``again``: see Threads."""

    threads: tuple[QName, ...]
    devices: tuple[tuple[Name, ...], ...]
    side: Side | None
    verdicts: tuple[Verdict, ...]
    again: bool = False


@record
class Spec(Declaration):
    title: str
    checks: tuple[Check, ...]


@record
class File:
    """One parsed file. ``items`` keep their order."""

    path: str
    kernel: str
    uses: tuple[Use, ...]
    items: tuple[Declaration, ...]
    text: str
