"""Explicit enumeration of a small world: can a property of a system be broken there?

Written from models/README.md and the semantics contract alone, to be compared with the checker's verdicts. It shares the
intermediate form with the checker, and nothing that gives it a meaning.

The world: two neighbouring pages (4 KiB, or 2 MiB for a path of the levels PMD and PUD), in one region (2 MiB, 1 GiB) or on both
sides of the border of two; up to two frames mapped at the
start (each with an unknown holder, who may let go at any moment), the zero page, frames and tables to be handed out (freed
ones again). Start states: everything quiescent that the path's `requires` allow. A path over a range gets the first page, the
second, both, and (if it unlinks tables) a whole region. Properties are asked at one witness byte after another: the first and
the last of each page. Cache entries of other bytes are not kept: no step reads them (with `has`, both ends of a page are
kept, filled and evicted together).

The search keeps, for each state without the caches, the set of cache contents it has been reached with. Steps that neither
another thread nor a device nor a property can notice are run without a stop in between. An unknown holder lets go only once no
other reference is left: earlier nobody could tell.

Of several devices one at a time acts by itself, unless ``apart`` is false; what the hooks of all do happens in any case.

A crowd (``system.crowd``): two threads, each idle or in a run of any of the paths with any arguments, and idle again after it; both are
idle at the start. A run begins only while its first requirement holds, and goes on only while the next one does. What a property says
of the end is asked whenever both are idle. There is a world with one page, too, which is searched first.

Limits: one run of a handler at a time for each device; a huge page has one tracked part, which is one object with it
(`split_page` does nothing); entries of untracked pages are none, whatever is written there, and a loop over
pages visits few of them (as if it chose to do nothing at the others); locks only one program uses are
not taken; spare frames and tables are few (an allocation finds none then, and fails);
formulas bind at most one address.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from mmucheck.ir.program import PropertyDecl, System

from .machine import Effect, Machine
from .state import (
    MARKER,
    NONE,
    TABLE,
    VIRGIN,
    ZERO,
    Caches,
    Core,
    OracleError,
    Places,
    Proc,
    Slot,
    Value,
    compile_expr,
    kept_frame,
    looks_in,
)  # fmt: skip

BASE = 1 << 30
HUGE_STEPS = {"set_pmd", "fill_table", "split_page", "wrprotect_pmd", "mkwrite_pmd"}
SIZE = {"page": 12, "huge_page": 21, "pud_page": 30}
SPARE_FRAMES, SPARE_TABLES = 3, 2
CAP = 400_000
ANY_NUMBER = (0, 1)
"""What a variable of the address space holds at the start where that may be any number: paths only ask whether it is 0."""


class Broken(NamedTuple):
    """A property is broken in this state; ``binding`` says for what."""

    core: Core
    caches: Caches
    binding: dict[str, int]


class _Asked(NamedTuple):
    prop: PropertyDecl
    formula: Value
    good: dict[tuple[object, ...], set[Caches]]


class Oracle:
    """``broken``: the properties found broken, by name; a property that is not in it after ``run`` holds in the small world.
    ``widest``: of a crowd, how many worlds are searched, the one with a single page first."""

    def __init__(self, system: System, properties: Iterable[PropertyDecl], cap: int = CAP, reduced: bool = True,
                 apart: bool = True, widest: int = 4) -> None:  # fmt: skip
        self.system, self.cap, self.widest = system, cap, widest
        self.w = Places(system)
        self.machine = Machine(system, self.w, reduced)
        self.apart = apart
        self._acting: frozenset[str] = frozenset()
        self.broken: dict[str, Broken] = {}
        self.states = 0
        self._shared = False
        self._begins: list[tuple[int, dict[str, int]]] = []
        self.finished = False  # has any run of the path come to its end?
        self._open: list[_Asked] = []
        self._handled: tuple[int, ...] = ()
        self._zero = any("zero_page" in looks_in(a) for p in self.machine.programs for n in p.nodes for a in n.step.args)
        for prop in properties:
            if sum(kind == "address" for _, kind in prop.binders) > 1:
                raise OracleError(f"{prop.name} binds two addresses")
            names = {name: i for i, (name, _) in enumerate(prop.binders)}
            self._open.append(_Asked(prop, compile_expr(prop.formula, names, self.w), {}))
        self._parents: dict[Core, tuple[Core | None, str]] = {}

    def run(self, worlds: Sequence[tuple[int, int]] = ()) -> set[str]:
        """Search every world until every property is broken or all worlds are done. The names of the broken properties.
        ``worlds``: pairs of pages, in order, to be searched instead of the usual ones; there a huge frame may be mapped twice."""
        self._shared = bool(worlds)
        ops = {n.step.op for p in self.system.threads for n in p.nodes}
        page, region = self.w.page, self.w.region
        one_region = (BASE + region - 2 * page, BASE + region - page)
        two_regions = (BASE + region - page, BASE + region)
        pairs = [two_regions] if ops & HUGE_STEPS or self._whole_regions() else [one_region, two_regions]
        hooks_ask = any("has" in looks_in(a) for p in self.system.threads for n in p.nodes for a in n.step.args)
        by_page = hooks_ask or any("has" in looks_in(a) for p in self.machine.programs for n in p.nodes for a in n.step.args)
        runs = [(pages, False) for pages in pairs] + ([(two_regions, True)] if "clear_pmd" in ops else [])
        if self.system.crowd:
            runs = [((BASE + region - page,), False), *runs][: self.widest]
        if worlds:
            alone = bool(ops & HUGE_STEPS)  # one tracked page in each region
            runs = [((a, b), False) for a, b in worlds if not (alone and a // region == b // region)]
        for pages, whole in runs:
            if whole and self.machine.ran_all("clear_pmd"):
                break  # shorter ranges have taken tables away too
            choices = [self._values(p.params, pages, whole) for p in self.system.threads]
            self._begins = [(i, given) for i, of_path in enumerate(choices) for given in of_path] if self.system.crowd else []
            choices = [] if self.system.crowd else choices
            ends: list[tuple[int, ...]] = [(p, p + page - 1) for p in pages]
            if by_page and (self.machine.handlers_write or hooks_ask):
                ends = [tuple(x for both in ends for x in both)]  # what is asked of one page may decide what becomes of the other
            spots = ends if by_page else [(x,) for p in pages for x in (p, p + page - 1)]
            even = False
            for witnesses in spots:
                if even and not by_page and witnesses[0] % page:
                    continue  # no range had an edge inside this page: its last byte fares as its first
                even = True
                for acting in self._sets():
                    self._acting = acting
                    self.w.place(pages, witnesses, acting)
                    self._handled = self.machine.watch()
                    for values in product(*choices):
                        if self._mirrored(values):
                            continue
                        for asked in self._open:
                            asked.good.clear()
                        self._search(values)
                        if not self._open:
                            return set(self.broken)
                    even = even and not self.machine.uneven
        if self.machine.leaked:
            raise OracleError("references leak")
        return set(self.broken)

    def _sets(self) -> list[frozenset[str]]:
        """Which devices act by themselves (fill, evict, run handlers): one after another, and with each those that write variables
        in a handler or look into their caches. The hooks of all run."""
        names = [d.name for d in self.system.devices]
        if not self.apart:
            return [frozenset(names)]
        programs = [*self.system.threads, *(h for d in self.system.devices for h in d.handlers)]
        asking = {n.step.origin.actor for p in programs for n in p.nodes if any("has" in looks_in(a) for a in n.step.args)}
        writing = {d.name for d in self.system.devices for h in d.handlers for n in h.nodes if n.step.op == "set_var"}
        return list(dict.fromkeys(frozenset({name} | asking | writing) for name in names))

    def _mirrored(self, values: tuple[dict[str, int], ...]) -> bool:
        """Equal threads: one order of their parameters is enough."""
        equal = all(p.nodes == self.system.threads[0].nodes for p in self.system.threads)
        orders = [sorted(v.items()) for v in values]
        return equal and orders != sorted(orders)

    def _whole_regions(self) -> bool:
        return any(1 << SIZE.get(kind, 0) == self.w.region for p in self.system.threads for _, kind in p.params)

    # ---- where a search starts

    def _values(self, params: Sequence[tuple[str, str]], pages: tuple[int, ...], whole: bool = False) -> list[dict[str, int]]:
        """The values a path's parameters take."""
        names = [name for name, _ in params]
        spans: list[dict[str, int]] = [{}]
        if "start" in names and "end" in names:
            kind = dict(params)["start"]
            page, region = self.w.page, self.w.region
            if 1 << SIZE.get(kind, 0) == region:
                spots = [(BASE, BASE + region), (BASE, BASE + 2 * region), (BASE + region, BASE + 2 * region)]
            else:
                spots = [(a, b + page) for i, a in enumerate(pages) for b in pages[i:]]
                if whole and 1 << SIZE.get(kind, 0) == page:
                    spots = [(BASE, BASE + region)]
            spans = [{"start": s, "end": e} for s, e in spots]
        each: list[list[tuple[str, int]]] = []
        for name, kind in params:
            if name in ("start", "end") and spans[0]:
                continue
            if kind in ("page", "address") or 1 << SIZE.get(kind, 0) == self.w.page:
                each.append([(name, p) for p in pages])
            elif 1 << SIZE.get(kind, 0) == self.w.region:
                each.append([(name, r * self.w.region) for r in dict.fromkeys(p // self.w.region for p in pages)])
            elif kind == "pud_page":
                each.append([(name, BASE)])
            elif kind == "bool":
                each.append([(name, 0), (name, 1)])
            else:
                raise OracleError(f"no values for parameter {name}: {kind}")
        return [{**span, **dict(rest)} for span in spans for rest in product(*each)]

    def _starts(self) -> Iterator[tuple[Core, list[Caches]]]:
        """Every quiescent state, with what the caches may hold in it."""
        regions = len(self.w.regions)
        own = [v for d in self.system.devices for _, v in d.variables] + [v for _, v in self.system.shared]
        held = [ANY_NUMBER if v is None else (compile_expr(v, {}, self.w)(_EMPTY, _NOBODY, (), {}),) for v in own]
        huge = regions == len(self.w.home)
        zero = [2 * ZERO] if self._zero else []  # where nobody asks for it, it fares as a page that others hold for ever
        known = [range(1, r + 2) if self._shared else (r + 1,) for r in range(regions)]
        upper = [[TABLE + r, NONE, MARKER, *(2 * f + w for f in known[r] if huge for w in (0, 1))] for r in range(regions)]
        for pmds in product(*upper):
            lower = []
            for i, home in enumerate(self.w.home):
                if pmds[home] < TABLE:
                    lower.append([NONE])
                    continue
                frames = [i + 1] if i == 0 or (pmds[self.w.home[0]] < TABLE and not self._shared) else [1, 2]
                lower.append([NONE, MARKER, *zero, *(2 * f + w for f in frames for w in (0, 1))])
            for ptes in product(*lower):
                mapped = [x >> 1 for x in (*ptes, *(u for u in pmds if u < TABLE)) if x >= 0]
                counts = tuple(2 * mapped.count(f) + 1 if f in mapped else VIRGIN for f in (1, 2))
                tables = tuple(3 if u >= TABLE else VIRGIN for u in pmds) + (VIRGIN,) * SPARE_TABLES
                first = Core((), ptes, pmds, (1, *counts, *(VIRGIN,) * SPARE_FRAMES), tables, (), ())
                holds = []
                for s in self.w.slots:
                    entry = self.w.pmd(first, s.address) - TABLE if s.of == "tables" else self.w.walk(first, s.address)
                    weaker = {entry & ~1} if s.of == "pages" and entry >= 0 else set()
                    holds.append({-1, max(entry, -1)} | weaker)
                same = [(i, j) for i, s in enumerate(self.w.slots) for j, o in enumerate(self.w.slots[:i])
                        if (s.device, s.cache, s.address // self.w.page) == (o.device, o.cache, o.address // self.w.page)]  # fmt: skip
                agreeing = [k for k in product(*holds) if all(k[i] == k[j] for i, j in same)]
                for variables in product(*held):
                    yield first._replace(variables=variables), agreeing

    # ---- the search

    def _search(self, values: tuple[dict[str, int], ...]) -> None:
        machine = self.machine
        seen: dict[Core, set[Caches]] = {}
        due: dict[Core, set[Caches]] = {}
        queue: deque[Core] = deque()
        steps: dict[Core, list[tuple[Core, Effect]]] = {}
        closed: dict[tuple[object, ...], frozenset[Caches]] = {}

        renamed: dict[Core, tuple[Core, tuple[int, ...], tuple[int, ...]]] = {}

        def reach(core: Core, caches: Iterable[Caches], before: Core | None, label: str) -> None:
            if self.system.crowd:
                if core not in renamed:
                    renamed[core] = machine.renamed(core)
                core, frames, tables = renamed[core]
                if frames:
                    caches = {self._renamed(c, frames, tables) for c in caches}
            if core not in due:
                due[core] = set()
                queue.append(core)
                if core not in seen:
                    self._parents.setdefault(core, (before, label))
            due[core].update(caches)

        held = 0
        self._parents.clear()
        for shared, holds in self._starts():
            idle = (None,) * (machine.threads + len(machine.devices))
            cores = {shared._replace(procs=idle)}
            for pid, given in enumerate(values):
                cores = {c for core in cores for c in machine.settle(machine.begin(core, pid, pid, given), pid)}
            for core in cores:
                reach(core, holds, None, "start")
        while queue:
            core = queue.popleft()
            fresh = due.pop(core)
            known = seen.setdefault(core, set())
            fresh = self._act(core, fresh - known, closed) - known
            if not fresh:
                continue
            known |= fresh
            held += len(fresh)
            if len(seen) > self.cap or held > 10 * self.cap:
                raise OracleError(f"more than {self.cap} states")
            self._ask(core, fresh)
            if not self._open:
                break
            if core not in steps:
                steps[core] = self._moves(core)
            for after, effect in steps[core]:
                reach(after, {_apply(effect, c) for c in fresh} if effect else fresh, core, "")
            for pid in range(len(core.procs)):
                code = machine.code_of(core, pid)
                if code is not None and code.needs_caches:
                    for c in fresh:
                        for after, effect in machine.step(core, pid, code, c):
                            for settled in machine.settle(after, pid):
                                reach(settled, [_apply(effect, c)], core, "")
        self.states += sum(len(s) for s in seen.values())

    def _renamed(self, caches: Caches, frames: tuple[int, ...], tables: tuple[int, ...]) -> Caches:
        return tuple(
            c if c < 0 else tables[c] if s.of == "tables" else 2 * frames[c >> 1] + (c & 1)
            for c, s in zip(caches, self.w.slots, strict=True)
        )  # fmt: skip

    def _moves(self, core: Core) -> list[tuple[Core, Effect]]:
        """One visible step of each process, a handler that starts, an unknown holder that lets go."""
        machine = self.machine
        found: dict[tuple[Core, Effect], None] = {}
        for pid in range(len(core.procs)):
            code = machine.code_of(core, pid)
            if code is not None and not code.needs_caches:
                for after, effect in machine.step(core, pid, code, ()):
                    for settled in machine.settle(after, pid):
                        found[settled, effect] = None
        idle = next((pid for pid in range(machine.threads) if core.procs[pid] is None), None)
        for program, values in self._begins if idle is not None else ():
            for begun in machine.begun(core, idle, program, values):
                found[begun, ()] = None
        for k, programs in enumerate(machine.handlers):
            pid = machine.threads + k
            if core.procs[pid] is None and machine.devices[k].name in self._acting:
                for program in programs:
                    for values in self._values(machine.programs[program].params, self._handled):
                        for settled in machine.settle(machine.begin(core, pid, program, values), pid):
                            found[settled, ()] = None
        for f, holders in enumerate(core.frames):
            if holders == 1 and f != ZERO:
                found[core._replace(frames=(*core.frames[:f], 0, *core.frames[f + 1 :])), ()] = None
        for t, holders in enumerate(core.tables):
            if holders == 1:
                found[core._replace(tables=(*core.tables[:t], 0, *core.tables[t + 1 :])), ()] = None
        found.pop((core, ()), None)
        return list(found)

    def _act(self, core: Core, caches: set[Caches], closed: dict[tuple[object, ...], frozenset[Caches]]) -> set[Caches]:
        """Everything the devices' hardware can make of the caches by filling and evicting while nothing else moves."""
        found: set[Caches] = set()
        for first in caches:
            if first in found:
                continue
            key = (core.ptes, core.pmds, core.variables, first)
            if key not in closed:
                stack, reached = [first], {first}
                while stack:
                    for after in self._hardware(core, stack.pop()):
                        if after not in reached:
                            reached.add(after)
                            stack.append(after)
                closed[key] = frozenset(reached)
            found |= closed[key]
        return found

    def _hardware(self, core: Core, caches: Caches) -> Iterator[Caches]:
        """One fill or eviction, of a whole page where both its ends are kept."""
        for i, s in enumerate(self.w.slots):
            page = [j for j, o in enumerate(self.w.slots) if self._same_page(s, o)]
            if i != page[0]:
                continue
            entries = set()
            if s.source and (s.when is None or s.when(core, _NOBODY, caches, {})):
                if s.feeds:
                    entries = {caches[j] for j in s.feeds}
                elif s.of == "tables":
                    entries = {self.w.pmd(core, s.address) - TABLE}
                else:
                    entries = {self.w.walk(core, s.address)}
                    above = s.address // self.w.region * self.w.region
                    if any(o.device == s.device and o.of == "tables" and o.address == above and caches[j] >= 0
                           for j, o in enumerate(self.w.slots)):  # fmt: skip
                        entries.add(self.w.pte(core, s.address))
            for entry in entries | {-1}:
                if entry >= -1 and any(entry != caches[j] for j in page):
                    yield _apply(tuple((j, entry) for j in page), caches)

    def _same_page(self, s: Slot, o: Slot) -> bool:
        return (o.device, o.cache, o.address // self.w.page) == (s.device, s.cache, s.address // self.w.page)

    # ---- properties

    def _ask(self, core: Core, caches: set[Caches]) -> None:
        done = all(self.machine.code_of(core, pid) is None for pid in range(self.machine.threads))
        self.finished |= done
        frames = tuple(kept_frame(core, f) for f in range(len(core.frames)))
        key = (core.ptes, core.pmds, frames, tuple(t > 0 for t in core.tables), core.variables, core.flags)
        for asked in list(self._open):
            if asked.prop.when == "finally" and not done:
                continue
            good = asked.good.setdefault(key, set())
            for c in caches - good:
                binding = self._violation(asked, core, c)
                if binding is not None:
                    self.broken[asked.prop.name] = Broken(core, c, binding)
                    self._open.remove(asked)
                    break
            good |= caches

    def _violation(self, asked: _Asked, core: Core, caches: Caches) -> dict[str, int] | None:
        domains = {"device": range(len(self.system.devices)), "address": self.w.witnesses,
                   "frame": range(len(core.frames)), "table": range(len(core.tables))}  # fmt: skip
        for values in product(*(domains[kind] for _, kind in asked.prop.binders)):
            if not asked.formula(core, Proc(0, 0, values), caches, {}):
                return {name: value for (name, _), value in zip(asked.prop.binders, values, strict=True)}
        return None

    def explain(self, name: str) -> str:
        """How the state that breaks a property was first reached: the thread's stops, then the state. For a person to read."""
        found = self.broken[name]
        trail: list[str] = []
        core: Core | None = found.core
        while core is not None:
            stops = []
            for pid in range(len(core.procs)):
                code = self.machine.code_of(core, pid)
                origin = code.step.origin if code else None
                stops.append(f"{code.step.op} {origin.text} @{origin.span.line}" if code and origin else "-")
            trail.append(" | ".join(stops) + f"   ptes {core.ptes} pmds {core.pmds} frames {core.frames} tables {core.tables}")
            core = self._parents.get(core, (None, ""))[0]
        slots = [f"{s.device}.{s.cache}@{s.address:x}={c}" for s, c in zip(self.w.slots, found.caches, strict=True)]
        return "\n".join([*reversed(trail), f"caches: {slots} for {found.binding}"])


_NOBODY = Proc(0, 0, ())
_EMPTY = Core((), (), (), (), (), (), ())


def _apply(effect: Effect, caches: Caches) -> Caches:
    values = list(caches)
    for i, new in effect:
        values[i] = new
    return tuple(values)
