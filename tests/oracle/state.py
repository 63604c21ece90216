"""What a state of the small world is, and the expressions that look at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mmucheck.ir.program import Const, DeviceVar, Expr, Local, Look, Nondet, Op, System, subexpressions

MASK = (1 << 64) - 1
MM = "mm"  # whose the variables of the address space are
NONE, MARKER = -2, -1
TABLE = 1000
"""Entries are numbers: NONE, MARKER, 2 * frame + writable, and in the upper level TABLE + table."""
ZERO, NOWHERE = 0, 499
"""The zero page; what a look at a frame or table finds where there is none."""
VIRGIN = -1
"""Holders are numbers: VIRGIN (free, never used), else 2 * (references the model knows) + (is there an unknown one)."""


ASSERTION, SLEPT = 1, 2


class OracleError(Exception):
    """The small world cannot answer: a construct it lacks, or too many states. Never an answer."""


class Gather(NamedTuple):
    start: int = 0
    end: int = 0
    frames: tuple[int, ...] = ()
    tables: tuple[int, ...] = ()


class Proc(NamedTuple):
    """A thread, or a run of a handler. ``spins``: how many spin locks it holds."""

    program: int
    pc: int
    locals: tuple[int, ...]
    gather: Gather = Gather()
    spins: int = 0


class Core(NamedTuple):
    """A state without the caches. ``locks``: (name, key, mode, holder), sorted. ``variables``: of all devices in order.
    ``flags``: ASSERTION and SLEPT, once they have happened."""

    procs: tuple[Proc | None, ...]
    ptes: tuple[int, ...]
    pmds: tuple[int, ...]
    frames: tuple[int, ...]
    tables: tuple[int, ...]
    locks: tuple[tuple[str, int, str, int], ...]
    variables: tuple[int, ...]
    flags: int = 0


Caches = tuple[int, ...]
"""One number per slot: 2 * frame + writable, or a table; -1 if empty."""
Value = Callable[[Core, Proc, Caches, dict[str, int]], int]


class Slot(NamedTuple):
    """One cache at one witness. ``when`` and ``source`` as declared; ``feeds``: slots of the source cache."""

    device: str
    cache: str
    of: str
    source: str
    when: Value | None
    address: int
    feeds: tuple[int, ...]


class Places:
    """Which addresses the world has: tracked pages, their regions, the witness bytes, and the slots of the caches."""

    def __init__(self, system: System) -> None:
        sizes = {"PTE": 1 << 12, "PMD": 1 << 21, "PUD": 1 << 30}
        self.page, self.region = (sizes[level] for level in system.levels)  # what an entry maps, in bytes
        self.pages: dict[int, int] = {}
        self.regions: dict[int, int] = {}
        self.home: list[int] = []
        self.witnesses: tuple[int, ...] = ()
        self.slots: list[Slot] = []
        owned = [(d.name, v) for d in system.devices for v, _ in d.variables] + [(MM, v) for v, _ in system.shared]
        self.variables = {owner_and_name: i for i, owner_and_name in enumerate(owned)}
        self.system = system

    def place(self, pages: tuple[int, ...], witnesses: tuple[int, ...], kept: frozenset[str]) -> None:
        """``kept``: the devices whose caches there are."""
        self.pages = {p // self.page: i for i, p in enumerate(pages)}
        self.regions = {r: i for i, r in enumerate(dict.fromkeys(p // self.region for p in pages))}
        self.home = [self.regions[p // self.region] for p in pages]
        self.witnesses = witnesses
        self.slots = []
        for d in (d for d in self.system.devices if d.name in kept):
            mine: dict[str, list[int]] = {}
            for c in d.caches:
                when = compile_expr(c.when, {}, self) if c.when is not None else None
                spots = witnesses if c.of == "pages" else tuple(dict.fromkeys(w // self.region * self.region for w in witnesses))
                for spot in spots:
                    feeds = tuple(i for i in mine.get(c.source, ()) if self.slots[i].address == spot)
                    mine.setdefault(c.name, []).append(len(self.slots))
                    self.slots.append(Slot(d.name, c.name, c.of, c.source, when, spot, feeds))

    def pte(self, core: Core, a: int) -> int:
        i = self.pages.get(a // self.page)
        return NONE if i is None else core.ptes[i]

    def pmd(self, core: Core, a: int) -> int:
        i = self.regions.get(a // self.region)
        return NONE if i is None else core.pmds[i]

    def walk(self, core: Core, a: int) -> int:
        """The entry a walk of both levels finds, or a negative number."""
        upper = self.pmd(core, a)
        if upper >= TABLE:
            return max(self.pte(core, a), MARKER)
        return upper if upper >= 0 else MARKER


def freed(holders: int) -> bool:
    return holders <= 0


def kept_frame(core: Core, f: int) -> bool:
    return f == ZERO or not freed(core.frames[f])


def compile_expr(expr: Expr, names: dict[str, int], w: Places) -> Value:
    """``names``: where a local or bound variable is found in ``proc.locals``. A device is its index in the system."""
    match expr:
        case Const(value=value):
            return lambda c, p, k, n: value
        case Local(name=name):
            i = names[name]
            return lambda c, p, k, n: p.locals[i]
        case Nondet(label=label):
            return lambda c, p, k, n: n[label]
        case DeviceVar(device=device, name=name):
            v = w.variables[device, name]
            return lambda c, p, k, n: c.variables[v]
        case Op(op=op, args=args):
            return _operator(op, [compile_expr(a, names, w) for a in args])
        case Look(name="device_var", args=(device, Look(name=name))):
            d = compile_expr(device, names, w)
            owners = [w.variables.get((x.name, name), -1) for x in w.system.devices]
            if -1 in owners:
                raise OracleError(f"a device has no variable {name}")
            return lambda c, p, k, n: c.variables[owners[d(c, p, k, n)]]
        case Look(name="has", args=(Look(name=qualified), address)):
            a = compile_expr(address, names, w)

            def has(c: Core, p: Proc, k: Caches, n: dict[str, int]) -> int:
                at = a(c, p, k, n)
                own = [i for i, s in enumerate(w.slots) if f"{s.device}.{s.cache}" == qualified]
                exact = [i for i in own if w.slots[i].address == at] or [i for i in own if w.slots[i].address // w.page == at // w.page]
                return int(any(k[i] >= 0 for i in exact[:1]))

            return has
        case Look(name=name, args=args):
            return _look(name, [compile_expr(a, names, w) for a in args], w)
    raise OracleError(f"unknown expression {expr}")


def _operator(op: str, f: list[Value]) -> Value:
    x = f[0]
    if op == "!":
        return lambda c, p, k, n: int(not x(c, p, k, n))
    if op == "~":
        return lambda c, p, k, n: ~x(c, p, k, n) & MASK
    y = f[1]
    if op == "&&":
        return lambda c, p, k, n: int(bool(x(c, p, k, n) and y(c, p, k, n)))
    if op == "||":
        return lambda c, p, k, n: int(bool(x(c, p, k, n) or y(c, p, k, n)))
    if op == "->":
        return lambda c, p, k, n: int(bool(not x(c, p, k, n) or y(c, p, k, n)))
    table: dict[str, Callable[[int, int], int]] = {
        "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b, ">=": lambda a, b: a >= b, "+": lambda a, b: a + b, "-": lambda a, b: a - b,
        "*": lambda a, b: a * b, "/": lambda a, b: a // b, "%": lambda a, b: a % b, "&": lambda a, b: a & b,
        "|": lambda a, b: a | b, "^": lambda a, b: a ^ b, "<<": lambda a, b: a << b if b < 64 else 0,
        ">>": lambda a, b: a >> b if b < 64 else 0,
    }  # fmt: skip
    g = table[op]
    return lambda c, p, k, n: int(g(x(c, p, k, n), y(c, p, k, n))) & MASK


def _look(name: str, f: list[Value], w: Places) -> Value:
    pte, pmd, walk = w.pte, w.pmd, w.walk
    of_address: dict[str, Callable[[Core, int], int]] = {
        "mapped": lambda c, a: walk(c, a) >= 0,
        "frame_at": lambda c, a: _frame(walk(c, a)),
        "writable_at": lambda c, a: _permits(walk(c, a)),
        "pte_none": lambda c, a: pte(c, a) == NONE,
        "pte_present": lambda c, a: pte(c, a) >= 0,
        "pte_frame": lambda c, a: _frame(pte(c, a)),
        "pte_writable": lambda c, a: _permits(pte(c, a)),
        "pmd_none": lambda c, a: pmd(c, a) == NONE,
        "pmd_huge": lambda c, a: 0 <= pmd(c, a) < TABLE,
        "pmd_linked": lambda c, a: pmd(c, a) >= TABLE,
        "pmd_frame": lambda c, a: _frame(pmd(c, a)) if pmd(c, a) < TABLE else NOWHERE,
        "pmd_writable": lambda c, a: pmd(c, a) < TABLE and _permits(pmd(c, a)),
        "table_at": lambda c, a: pmd(c, a) - TABLE if pmd(c, a) >= TABLE else NOWHERE,
        "freed": lambda c, x: not kept_frame(c, x),
        "table_freed": lambda c, x: freed(c.tables[x]),
    }
    if name in of_address:
        g, x = of_address[name], f[0]
        return lambda c, p, k, n: int(g(c, x(c, p, k, n)))
    if name in ("assertion_failed", "slept_in_atomic"):
        flag = ASSERTION if name == "assertion_failed" else SLEPT
        return lambda c, p, k, n: int(bool(c.flags & flag))
    if name == "zero_page":
        return lambda c, p, k, n: ZERO
    if name in ("tlb_start", "tlb_end"):
        return lambda c, p, k, n: p.gather.start if name == "tlb_start" else p.gather.end
    if name in ("maps", "links"):
        a, x = f
        if name == "maps":
            return lambda c, p, k, n: int(walk(c, a(c, p, k, n)) >> 1 == x(c, p, k, n))
        return lambda c, p, k, n: int(pmd(c, a(c, p, k, n)) == TABLE + x(c, p, k, n))
    if name in ("cached", "cached_writable", "table_cached"):
        d, a, x = f
        of = "tables" if name == "table_cached" else "pages"

        def cached(c: Core, p: Proc, k: Caches, n: dict[str, int]) -> int:
            device, at, what = w.system.devices[d(c, p, k, n)].name, a(c, p, k, n), x(c, p, k, n)
            at = at // w.region * w.region if of == "tables" else at
            wanted = {what} if of == "tables" else {2 * what + 1} if name == "cached_writable" else {2 * what, 2 * what + 1}
            return int(any(k[i] in wanted for i, s in enumerate(w.slots) if (s.device, s.of, s.address) == (device, of, at)))

        return cached
    raise OracleError(f"unknown look {name}")


def _frame(entry: int) -> int:
    return entry >> 1 if entry >= 0 else NOWHERE


def _permits(entry: int) -> int:
    return entry & 1 if entry >= 0 else 0


def looks_in(expr: Expr) -> set[str]:
    """Names of the looks in an expression; DeviceVar counts as the look `.`"""
    found = {e.name for e in subexpressions(expr) if isinstance(e, Look)}
    return found | ({"."} if any(isinstance(e, DeviceVar) for e in subexpressions(expr)) else set())
