"""The intermediate form: what a check runs, with every name resolved and every macro expanded.

A ``Program`` is a control-flow graph of atomic steps. A ``System`` is the programs of one check, the devices with
their hooks inlined where callbacks are dispatched, and the properties. Nothing here knows of a solver or of values.
"""

from __future__ import annotations

from dataclasses import field, replace

from mmucheck.names.builtins import LEVEL_BITS, LEVELS
from mmucheck.records import record
from mmucheck.syntax.diagnostics import Span

# ---- expressions


@record
class Const:
    """A number, or a boolean if ``kind`` is bool."""

    value: int
    kind: str = "number"


@record
class Local:
    """A variable of the thread, or a bound variable of a property."""

    name: str
    kind: str = "number"


@record
class Op:
    """``op`` is one of ! && || -> == != < <= + - * / % & | ^ ~ << >>, with C's meaning on 64-bit unsigned numbers."""

    op: str
    args: tuple[Expr, ...]


@record
class Look:
    """A look at the state: see LOOKS in mmucheck.names.builtins."""

    name: str
    args: tuple[Expr, ...]


@record
class Nondet:
    """A boolean nobody decides; ``label`` tells the places apart."""

    label: str


@record
class DeviceVar:
    """A variable of a device, or of the address space: then ``device`` is ADDRESS_SPACE."""

    device: str
    name: str


Expr = Const | Local | Op | Look | Nondet | DeviceVar


def subexpressions(expr: Expr) -> list[Expr]:
    """The expression and everything in it."""
    found: list[Expr] = [expr]
    if isinstance(expr, Op | Look):
        for arg in expr.args:
            found.extend(subexpressions(arg))
    return found


def conjuncts(expr: Expr) -> list[Expr]:
    """What a condition says, taken apart."""
    if isinstance(expr, Op) and expr.op == "&&":
        return [part for arg in expr.args for part in conjuncts(arg)]
    return [expr]


def is_number(kind: str) -> bool:
    """Whether variables of this kind hold 64-bit numbers (addresses, page indices)."""
    return kind not in ("bool", "frame", "table")


# ---- steps


@record
class Frame:
    """One level of macro expansion: who was called, from where, and the C file it stands for."""

    name: str
    anchor: str
    called_at: Span


@record
class Origin:
    """Where a step comes from: its own place, the source text, the macro frames around it (outermost first), the actor
    ("" for the thread itself, else the device whose hook or handler it belongs to)."""

    span: Span
    text: str
    frames: tuple[Frame, ...] = ()
    actor: str = ""


@record
class Step:
    """One atomic step. ``op`` is a primitive of the machine (mmucheck.machine.steps.STEPS) or one of

    assign (results[0] := args[0]), branch (args[0]), assume, assert, wait (args[0]), nop, set_var (names := args[0], if args[1]).
    ``names`` are the static operands: cache, lock, device, callback.
    """

    op: str
    args: tuple[Expr, ...]
    origin: Origin
    results: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@record
class Node:
    """A step and its successors: one; (taken, not taken) for a branch; (done, failed) for a partial step."""

    step: Step
    successors: tuple[int, ...]


@record
class Program:
    """``nodes[entry]`` runs first; ``exit`` is the node reached when the program is done (its step is a nop).

    ``params`` are given from outside; ``locals`` has the kind of every variable, parameters included.
    """

    name: str
    nodes: tuple[Node, ...]
    entry: int
    exit: int
    params: tuple[tuple[str, str], ...]
    locals: dict[str, str]
    anchor: str = ""
    doc: str = ""

    def back_edge_targets(self) -> frozenset[int]:
        """The loop heads: targets of back edges in a depth-first walk from the entry."""
        heads: set[int] = set()
        state: dict[int, int] = {}
        stack: list[tuple[int, int]] = [(self.entry, 0)]
        state[self.entry] = 1
        while stack:
            node, i = stack[-1]
            successors = self.nodes[node].successors
            if i == len(successors):
                state[node] = 2
                stack.pop()
                continue
            stack[-1] = (node, i + 1)
            target = successors[i]
            if state.get(target) == 1:
                heads.add(target)
            elif target not in state:
                state[target] = 1
                stack.append((target, 0))
        return frozenset(heads)

    def topological(self) -> list[int]:
        """Reachable nodes, each before its successors, back edges left out."""
        order: list[int] = []
        seen = {self.entry}
        stack: list[tuple[int, int]] = [(self.entry, 0)]
        while stack:
            node, i = stack[-1]
            successors = self.nodes[node].successors
            if i == len(successors):
                order.append(node)
                stack.pop()
                continue
            stack[-1] = (node, i + 1)
            if successors[i] not in seen:
                seen.add(successors[i])
                stack.append((successors[i], 0))
        return order[::-1]


# ---- devices, properties, systems


@record
class CacheDecl:
    """``of`` is pages or tables; ``source`` is "", page_table or a cache of the same device; fills only while ``when``."""

    name: str
    of: str
    source: str
    when: Expr | None
    span: Span | None = None


@record
class LockDecl:
    """``key`` is "", address or frame; addresses in one ``granule`` (bytes) share the lock."""

    name: str
    kind: str
    key: str = ""
    granule: int = 0


@record
class DeviceDecl:
    """``still``: it is there for what its hooks do in the thread, and nobody asks what it holds (mmucheck.lower.mixes)."""

    name: str
    title: str
    caches: tuple[CacheDecl, ...]
    variables: tuple[tuple[str, Expr], ...]
    locks: tuple[LockDecl, ...]
    handlers: tuple[Program, ...]
    hooks: tuple[str, ...]
    doc: str = ""
    still: bool = False


@record
class PropertyDecl:
    """``binders``: (name, kind) pairs; the formula is over them. ``when`` is always or finally."""

    name: str
    title: str
    when: str
    binders: tuple[tuple[str, str], ...]
    formula: Expr


@record
class System:
    """Everything one obligation is about: the threads, the devices together on the address space, the locks."""

    threads: tuple[Program, ...]
    devices: tuple[DeviceDecl, ...]
    locks: tuple[LockDecl, ...]
    protocol: str
    notes: tuple[str, ...] = field(default=())
    levels: tuple[str, str] = LEVELS
    """Lower and upper level of the page table; keys of mmucheck.names.builtins.LEVEL_BITS."""
    shared: tuple[tuple[str, Expr | None], ...] = ()
    """Variables of the address space that the programs use, and what each holds at the start: None for any number."""
    crowd: bool = False
    """Whether ``threads`` are what each of two threads may run, any number of times, instead of one run each."""

    @property
    def page_bits(self) -> int:
        """What a lower-level entry maps, as a power of two."""
        return LEVEL_BITS[self.levels[0]]

    @property
    def region_bits(self) -> int:
        return LEVEL_BITS[self.levels[1]]

    def variables_set(self) -> frozenset[str]:
        """Names of variables, of devices and of the address space, that some step sets."""
        programs = (*self.threads, *(h for d in self.devices for h in d.handlers))
        return frozenset(node.step.names[1] for p in programs for node in p.nodes if node.step.op == "set_var")


def without_drops(system: System) -> System:
    """The same system with devices that drop nothing: what becomes of a claim then shows whether it needed them to."""

    def idle(program: Program) -> Program:
        return replace(program, nodes=tuple(
            replace(n, step=replace(n.step, op="nop", args=(), names=())) if n.step.op == "drop" else n for n in program.nodes
        ))  # fmt: skip

    devices = tuple(replace(d, handlers=tuple(map(idle, d.handlers))) for d in system.devices)
    return replace(system, threads=tuple(map(idle, system.threads)), devices=devices)
