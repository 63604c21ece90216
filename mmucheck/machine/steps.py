"""The meaning of every step, once, for the interpreter and for the solver.

``Machine.execute`` runs one step of one thread; ``Machine.fill``, ``Machine.evict`` and ``Machine.drop_others`` are what
devices and unknown holders may do at any moment. To add a primitive: a method ``_step_NAME`` here, a signature in
mmucheck.names.builtins, a line in models/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmucheck.ir.program import CacheDecl, Expr, Look, Step, System, subexpressions
from mmucheck.machine.domain import BOOL, COUNT, FRAME, KIND, NUMBER, Domain
from mmucheck.machine.looks import Looks, View
from mmucheck.machine.state import (
    FOREIGN_KEY_FREE,
    PAGE_FIELDS,
    PMD_HUGE,
    PMD_MARKER,
    PMD_NONE,
    PMD_TABLE,
    PTE_MARKER,
    PTE_NONE,
    PTE_PRESENT,
    REGION_FIELDS,
    ZERO_PAGE,
    Chooser,
    Layout,
    Slot,
    State,
    Thread,
)  # fmt: skip
from mmucheck.names.builtins import PMD_BITS

V = TypeVar("V")


class Untracked(Exception):
    """A closed world has no slot for the page of this address."""

    def __init__(self, address: object) -> None:
        super().__init__(address)
        self.address = address


@dataclass(frozen=True)
class Outcome(Generic[V]):
    """``guard``: the step can happen only if this holds. ``branch``: which successor, for steps that have two."""

    guard: V
    branch: V | None = None


@dataclass(frozen=True)
class Fill:
    """A fill a device can make by itself: into ``cache`` for ``slot``; ``via`` is the paging-structure cache it walks through."""

    device: str
    cache: CacheDecl
    slot: Slot
    via: str = ""


class Machine(Generic[V]):
    """Steps over a system and a layout on one domain. States are changed in place: copy before."""

    def __init__(self, domain: Domain[V], system: System, layout: Layout) -> None:
        self.domain, self.system, self.layout = domain, system, layout
        self.looks = Looks(domain, system, layout)
        self._locks = {lock.name: lock for lock in (*system.locks, *(k for d in system.devices for k in d.locks))}
        self._one = domain.const(1, COUNT)
        self._none = domain.const(0, COUNT)
        self.assumed: list[V] = []

    # ---- threads

    def execute(self, state: State[V], thread: Thread, step: Step, chooser: Chooser[V]) -> Outcome[V]:
        """Run one step. The guard includes what had to be assumed about pages first looked at here."""
        view = View(state, f"{thread.name}.", chooser)
        self.assumed = []
        self._load_for(step, view)
        method = getattr(self, f"_step_{step.op}")
        outcome: Outcome[V] = method(step, view, thread)
        if self.assumed:
            outcome = Outcome(self.domain.and_(outcome.guard, *self.assumed), outcome.branch)
        return outcome

    def _values(self, step: Step, view: View[V]) -> list[V]:
        return [self.looks.value(a, view) for a in step.args]

    def _done(self) -> Outcome[V]:
        return Outcome(self.looks.true)

    def _step_nop(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._done()

    _step_dispatch = _step_nop
    _step_split_page = _step_nop

    def _step_assign(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        view.state[thread.local(step.results[0])] = self.looks.value(step.args[0], view)
        return self._done()

    def _step_branch(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return Outcome(self.looks.true, self.looks.value(step.args[0], view))

    def _step_assume(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return Outcome(self.looks.value(step.args[0], view))

    _step_wait = _step_assume

    def _step_assert(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        failed = self.domain.not_(self.looks.value(step.args[0], view))
        view.state["event.assertion_failed"] = self.domain.or_(view.state["event.assertion_failed"], failed)
        return self._done()

    def _step_set_var(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        device, name = step.names
        view.state[f"{device}.{name}"] = self.looks.value(step.args[0], view)
        return self._done()

    # ---- table entries

    def _write(self, view: View[V], what: str, hits: list[tuple[Slot, V]], **fields: V) -> None:
        for slot, hit in hits:
            for field, value in fields.items():
                key = f"{what}.{slot.name}.{field}"
                view.state[key] = self.domain.ite(hit, value, view.state[key])

    def _kind(self, kind: int) -> V:
        return self.domain.const(kind, KIND)

    def _own(self, view: View[V], what: str, hits: list[tuple[Slot, V]], present: int, new: V | None, of: str = "frame") -> None:
        """Move the entry's reference of a foreign entry: out of the unknown holders when it is cleared, into them when set.

        The references known of a frame (or table) are those of its own page's entry and those the path holds; a foreign
        entry's reference is among the unknown ones until the path takes it over by clearing the entry.
        """
        d = self.domain
        for slot, hit in hits:
            if not slot.foreign:
                continue
            for known in self.layout.frames if of == "frame" else self.layout.tables:
                ident, refs, others = (f"{of}.{known}.{f}" for f in ("id", "refs", "others"))
                entry = f"{what}.{slot.name}"
                there = d.eq(view.state[f"{entry}.kind"], self._kind(present))
                held = d.and_(hit, there, d.eq(view.state[f"{entry}.{of}"], view.state[ident]))
                self.assumed.append(d.or_(d.not_(held), d.ult(view.state[refs], d.const(-1, COUNT))))
                view.state[refs] = d.ite(held, d.binary("add", view.state[refs], self._one), view.state[refs])
                if new is not None:
                    given = d.and_(hit, d.eq(new, view.state[ident]))
                    some = d.not_(d.eq(view.state[refs], self._none))
                    view.state[refs] = d.ite(d.and_(given, some), d.binary("sub", view.state[refs], self._one), view.state[refs])
                    view.state[others] = d.or_(view.state[others], given)

    def _set_pte(self, view: View[V], addr: V, kind: int, frame: V | None = None, write: V | None = None) -> None:
        hits = self.looks.page_hits(view.state, addr)
        self._own(view, "page", hits, PTE_PRESENT, frame)
        fields = {"kind": self._kind(kind)}
        if frame is not None and write is not None:
            fields |= {"frame": frame, "write": write}
        self._write(view, "page", hits, **fields)

    def _set_pmd(self, view: View[V], addr: V, kind: int, **fields: V) -> None:
        hits = self.looks.region_hits(view.state, addr)
        self._own(view, "region", hits, PMD_HUGE, fields.get("frame"))
        self._own(view, "region", hits, PMD_TABLE, fields.get("table"), "table")
        self._write(view, "region", hits, kind=self._kind(kind), **fields)

    def _step_set_pte(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        addr, frame, write = self._values(step, view)
        self._set_pte(view, addr, PTE_PRESENT, frame, write)
        return self._done()

    def _step_clear_pte(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._set_pte(view, self._values(step, view)[0], PTE_NONE)
        return self._done()

    def _step_set_pte_marker(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._set_pte(view, self._values(step, view)[0], PTE_MARKER)
        return self._done()

    def _step_set_pmd(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        addr, frame, write = self._values(step, view)
        self._set_pmd(view, addr, PMD_HUGE, frame=frame, write=write)
        return self._done()

    def _step_clear_pmd(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._set_pmd(view, self._values(step, view)[0], PMD_NONE)
        return self._done()

    def _step_set_pmd_marker(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._set_pmd(view, self._values(step, view)[0], PMD_MARKER)
        return self._done()

    def _step_populate_pmd(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        addr, table = self._values(step, view)
        self._set_pmd(view, addr, PMD_TABLE, table=table)
        return self._done()

    def _permission(self, step: Step, view: View[V], write: bool) -> Outcome[V]:
        addr = self._values(step, view)[0]
        lower = step.op.endswith("_pte")
        hits = self.looks.page_hits(view.state, addr) if lower else self.looks.region_hits(view.state, addr)
        present = self._kind(PTE_PRESENT if lower else PMD_HUGE)
        what = "page" if lower else "region"
        for slot, hit in hits:
            entry = f"{what}.{slot.name}"
            changes = self.domain.and_(hit, self.domain.eq(view.state[f"{entry}.kind"], present))
            value = self.domain.const(write, BOOL)
            view.state[f"{entry}.write"] = self.domain.ite(changes, value, view.state[f"{entry}.write"])
        return self._done()

    def _step_wrprotect_pte(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._permission(step, view, False)

    def _step_mkwrite_pte(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._permission(step, view, True)

    _step_wrprotect_pmd = _step_wrprotect_pte
    _step_mkwrite_pmd = _step_mkwrite_pte

    def _whole_region(self, view: View[V], addr: V, kind: int, **fields: V) -> None:
        """Every lower-level entry of the region. The foreign page is forgotten: its part has another identity."""
        d = self.domain
        key = self.looks.region_key(addr)
        for page in self.layout.pages:
            hit = d.eq(key, self.looks.region_key(view.state[f"page.{page.name}.key"]))
            if page.foreign:
                free = d.const(FOREIGN_KEY_FREE, NUMBER)
                view.state[f"page.{page.name}.key"] = d.ite(hit, free, view.state[f"page.{page.name}.key"])
            else:
                self._write(view, "page", [(page, hit)], kind=self._kind(kind), **fields)

    def _step_fill_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        addr, frame, write = self._values(step, view)
        self._whole_region(view, addr, PTE_PRESENT, frame=frame, write=write)
        return self._done()

    def _step_clear_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._whole_region(view, self._values(step, view)[0], PTE_NONE)
        return self._done()

    # ---- references

    def _count(self, view: View[V], what: str, ident: V, delta: int, when: V | None = None) -> None:
        d = self.domain
        for slot in self.layout.frames if what == "frame" else self.layout.tables:
            refs = f"{what}.{slot}.refs"
            hit = d.eq(ident, view.state[f"{what}.{slot}.id"])
            if when is not None:
                hit = d.and_(hit, when)
            if delta > 0:
                self.assumed.append(d.or_(d.not_(hit), d.ult(view.state[refs], d.const(-1, COUNT))))
                view.state[refs] = d.ite(hit, d.binary("add", view.state[refs], self._one), view.state[refs])
            else:
                some = d.not_(d.eq(view.state[refs], self._none))
                view.state[refs] = d.ite(d.and_(hit, some), d.binary("sub", view.state[refs], self._one), view.state[refs])

    def _step_get_page(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._count(view, "frame", self._values(step, view)[0], +1)
        return self._done()

    def _step_put_page(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._count(view, "frame", self._values(step, view)[0], -1)
        return self._done()

    def _step_get_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._count(view, "table", self._values(step, view)[0], +1)
        return self._done()

    def _step_put_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._count(view, "table", self._values(step, view)[0], -1)
        return self._done()

    def _alloc(self, step: Step, view: View[V], thread: Thread, what: str) -> Outcome[V]:
        """Success or failure is open. A frame handed out is nobody's: not mapped where we look, no reference on it."""
        d = self.domain
        assert view.chooser is not None
        label = f"{thread.name}.{step.results[0]}"
        done = view.chooser.boolean(f"{label}.ok")
        ident = view.chooser.frame(label) if what == "frame" else view.chooser.table(label)
        free = [d.not_(d.eq(ident, d.const(ZERO_PAGE, FRAME)))]
        for slot in self.layout.frames if what == "frame" else self.layout.tables:
            taken = d.and_(d.eq(ident, view.state[f"{what}.{slot}.id"]), d.not_(self.looks.slot_freed(view.state, what, slot)))
            free.append(d.not_(taken))
        for entry, present in self._entries(what):
            in_use = d.and_(d.eq(view.state[f"{entry}.kind"], self._kind(present)), d.eq(view.state[f"{entry}.{what}"], ident))
            free.append(d.not_(in_use))
        self._count(view, what, ident, +1, done)
        view.state[thread.local(step.results[0])] = ident
        return Outcome(d.or_(d.not_(done), d.and_(*free)), done)

    def _entries(self, what: str) -> Iterator[tuple[str, int]]:
        if what == "frame":
            yield from ((f"page.{p.name}", PTE_PRESENT) for p in self.layout.pages)
            yield from ((f"region.{r.name}", PMD_HUGE) for r in self.layout.regions)
        else:
            yield from ((f"region.{r.name}", PMD_TABLE) for r in self.layout.regions)

    def _step_alloc_page(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._alloc(step, view, thread, "frame")

    _step_alloc_huge_page = _step_alloc_page

    def _step_alloc_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._alloc(step, view, thread, "table")

    def _step_get_user_page(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        mapped, frame, write = self.looks.walk(view.state, self._values(step, view)[0])
        self._count(view, "frame", frame, +1, mapped)
        for name, value in zip(step.results, (frame, write), strict=False):
            view.state[thread.local(name)] = value
        return Outcome(self.looks.true, mapped)

    # ---- mmu_gather

    def _step_tlb_gather(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        view.state[thread.local("tlb_start")], view.state[thread.local("tlb_end")] = self._values(step, view)
        return self._done()

    def _step_tlb_track(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        start, end = self._values(step, view)
        low, high = thread.local("tlb_start"), thread.local("tlb_end")
        view.state[low] = self.domain.ite(self.domain.ult(start, view.state[low]), start, view.state[low])
        view.state[high] = self.domain.ite(self.domain.ult(view.state[high], end), end, view.state[high])
        return self._done()

    def _queue(self, step: Step, view: View[V], thread: Thread, what: str) -> Outcome[V]:
        d = self.domain
        ident = self._values(step, view)[0]
        for slot in self.layout.frames if what == "frame" else self.layout.tables:
            queued = f"{what}.{slot}.queued.{thread.name}"
            hit = d.eq(ident, view.state[f"{what}.{slot}.id"])
            self.assumed.append(d.or_(d.not_(hit), d.ult(view.state[queued], d.const(-1, COUNT))))
            view.state[queued] = d.ite(hit, d.binary("add", view.state[queued], self._one), view.state[queued])
        return self._done()

    def _step_tlb_queue(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._queue(step, view, thread, "frame")

    def _step_tlb_queue_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._queue(step, view, thread, "table")

    def _free_queued(self, view: View[V], thread: Thread, what: str) -> Outcome[V]:
        d = self.domain
        for slot in self.layout.frames if what == "frame" else self.layout.tables:
            refs, queued = f"{what}.{slot}.refs", f"{what}.{slot}.queued.{thread.name}"
            few = d.ult(view.state[refs], view.state[queued])
            view.state[refs] = d.ite(few, self._none, d.binary("sub", view.state[refs], view.state[queued]))
            view.state[queued] = self._none
        return self._done()

    def _step_tlb_free_pages(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._free_queued(view, thread, "frame")

    def _step_tlb_free_tables(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._free_queued(view, thread, "table")

    # ---- locks and sleeping

    def _sleeps(self, view: View[V], thread: Thread) -> None:
        atomic = self.domain.not_(self.domain.eq(view.state[thread.local("atomic")], self._none))
        view.state["event.slept_in_atomic"] = self.domain.or_(view.state["event.slept_in_atomic"], atomic)

    def _step_might_sleep(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        self._sleeps(view, thread)
        return self._done()

    def _step_lock(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        d = self.domain
        name, mode = step.names
        lock = self._locks[name]
        if lock.kind == "spinlock":
            view.state[thread.local("atomic")] = d.binary("add", view.state[thread.local("atomic")], self._one)
        else:
            self._sleeps(view, thread)
        if lock.key:
            return self._done()
        owner, readers = f"lock.{name}", f"lock.{name}.readers"
        free = d.eq(view.state[owner], self._none)
        if mode == "read":
            view.state[readers] = d.binary("add", view.state[readers], self._one)
            return Outcome(free)
        if mode == "write":
            free = d.and_(free, d.eq(view.state[readers], self._none))
        view.state[owner] = d.const(thread.number, COUNT)
        return Outcome(free)

    def _step_unlock(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        d = self.domain
        name, mode = step.names
        lock = self._locks[name]
        if lock.kind == "spinlock":
            view.state[thread.local("atomic")] = d.binary("sub", view.state[thread.local("atomic")], self._one)
        if lock.key:
            return self._done()
        if mode == "read":
            readers = f"lock.{name}.readers"
            view.state[readers] = d.binary("sub", view.state[readers], self._one)
        else:
            view.state[f"lock.{name}"] = self._none
        return self._done()

    # ---- devices

    def _step_drop(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        """Entries in the range go. A page entry goes if the byte it stands for lies in [start, end); an upper-level entry is one
        object for its whole region and goes if any byte of it does."""
        d = self.domain
        device, name = step.names
        cache = next(c for c in self.looks.devices[device].caches if c.name == name)
        bounds = self._values(step, view)
        for slot in self.layout.own_pages() if cache.of == "pages" else self.layout.own_regions():
            valid = f"{device}.{name}.{slot.name}.valid"
            hit = self.looks.true
            if bounds and cache.of == "pages":
                addr = view.state[f"page.{slot.name}.addr"]
                hit = d.and_(d.ule(bounds[0], addr), d.ult(addr, bounds[1]))
            elif bounds:
                key = view.state[f"region.{slot.name}.key"]
                last = d.binary("add", key, d.const((1 << PMD_BITS) - 1, NUMBER))
                hit = d.and_(d.ult(bounds[0], bounds[1]), d.ule(bounds[0], last), d.ult(key, bounds[1]))
            view.state[valid] = d.and_(view.state[valid], d.not_(hit))
        return self._done()

    def _step_fill(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        d = self.domain
        device, name = step.names
        addr, ident, write = self._values(step, view)
        cache = next(c for c in self.looks.devices[device].caches if c.name == name)
        pages = cache.of == "pages"
        hits = self.looks.page_hits(view.state, addr) if pages else self.looks.region_hits(view.state, addr)
        for slot, hit in hits:
            if slot.foreign:
                continue
            entry = f"{device}.{name}.{slot.name}"
            view.state[f"{entry}.valid"] = d.or_(hit, view.state[f"{entry}.valid"])
            fields = {"frame": ident, "write": write} if pages else {"table": ident}
            for field, value in fields.items():
                view.state[f"{entry}.{field}"] = d.ite(hit, value, view.state[f"{entry}.{field}"])
        return self._done()

    def fills(self) -> list[Fill]:
        """Every fill a device can make by itself, in the order in which doing each once reaches all combinations."""
        found: list[Fill] = []
        for device in self.system.devices:
            tables = [c for c in device.caches if c.of == "tables" and c.source == "page_table"]
            for cache in device.caches:
                slots = self.layout.own_pages() if cache.of == "pages" else self.layout.own_regions()
                for slot in slots:
                    if cache.source:
                        found.append(Fill(device.name, cache, slot))
                    if cache.source == "page_table" and cache.of == "pages":
                        found.extend(Fill(device.name, cache, slot, via.name) for via in tables)
        layered = [f for f in found if f.cache.source not in ("", "page_table")]
        return [*reversed(layered), *found]

    def fill(self, state: State[V], fill: Fill) -> tuple[V, dict[str, V]]:
        """(whether the fill can happen, what it writes)."""
        d, cache, slot = self.domain, fill.cache, fill.slot
        entry = f"{fill.device}.{cache.name}.{slot.name}"
        allowed = self.looks.true
        if cache.when is not None:
            allowed = self.looks.value(cache.when, View(state))
        if cache.source not in ("", "page_table"):
            source = f"{fill.device}.{cache.source}.{slot.name}"
            fields = ("frame", "write") if cache.of == "pages" else ("table",)
            available = state[f"{source}.valid"]
            written = {f"{entry}.{f}": state[f"{source}.{f}"] for f in fields}
        elif cache.of == "tables":
            region = f"region.{slot.name}"
            available = d.eq(state[f"{region}.kind"], self._kind(PMD_TABLE))
            written = {f"{entry}.table": state[f"{region}.table"]}
        elif fill.via:
            page, region, upper = f"page.{slot.name}", f"region.{slot.region}", f"{fill.device}.{fill.via}.{slot.region}"
            available = d.and_(
                state[f"{upper}.valid"], d.eq(state[f"{upper}.table"], state[f"{region}.table"]),
                d.eq(state[f"{page}.kind"], self._kind(PTE_PRESENT)),
            )  # fmt: skip
            written = {f"{entry}.frame": state[f"{page}.frame"], f"{entry}.write": state[f"{page}.write"]}
        else:
            available, frame, write = self.looks.walk(state, state[f"page.{slot.name}.addr"])
            written = {f"{entry}.frame": frame, f"{entry}.write": write}
        return d.and_(allowed, available), {f"{entry}.valid": self.looks.true, **written}

    def unknown_holders(self) -> list[str]:
        """The variables that say whether somebody unknown holds a frame or table: each may become false at any moment."""
        return [*(f"frame.{f}.others" for f in self.layout.frames), *(f"table.{t}.others" for t in self.layout.tables)]

    def may_drop(self, state: State[V], holder: str) -> V:
        """Whether the unknown holders can let go: the zero page is never freed."""
        what, slot, _ = holder.split(".")
        never = self.domain.const(ZERO_PAGE, FRAME)
        known = state[holder]
        return known if what == "table" else self.domain.and_(known, self.domain.not_(self.domain.eq(state[f"{what}.{slot}.id"], never)))

    # ---- the open world

    def _load_for(self, step: Step, view: View[V]) -> None:
        """Before a step looks at a page that has no slot: the foreign slot becomes that page, with any content.

        A closed world must have every page that is looked at: Untracked is raised for one that it lacks.
        """
        for addr in addresses(step):
            value = self.looks.value(addr, View(view.state, view.prefix))
            if self.layout.open:
                self._load(value, view)
            elif not any(self.domain.is_true(hit) for _, hit in self.looks.page_hits(view.state, value)):
                raise Untracked(value)

    def _load(self, addr: V, view: View[V]) -> None:
        d, state, chooser = self.domain, view.state, view.chooser
        assert chooser is not None
        region_hits = self.looks.region_hits(state, addr)
        known = d.or_(*(hit for _, hit in region_hits))
        if not d.is_true(known):
            key = self.looks.region_key(addr)
            self._replace("region", REGION_FIELDS, key, known, chooser.first_look("region", key, d.not_(known)), PMD_HUGE, view)
        known = d.or_(*(hit for _, hit in self.looks.page_hits(state, addr)))
        if not d.is_true(known):
            key = self.looks.page_key(addr)
            fresh = chooser.first_look("page", key, d.not_(known))
            linked = d.eq(self.looks.pmd(state, addr, "kind"), self._kind(PMD_TABLE))
            self.assumed.append(d.or_(known, linked, d.eq(fresh["kind"], self._kind(PTE_NONE))))
            self._replace("page", PAGE_FIELDS, key, known, fresh, PTE_PRESENT, view)

    def _replace(self, what: str, fields: tuple[str, ...], key: V, known: V, fresh: dict[str, V], present: int, view: View[V]) -> None:
        d, state = self.domain, view.state
        slot = next(s for s in (self.layout.pages if what == "page" else self.layout.regions) if s.foreign)
        entry = f"{what}.{slot.name}"
        state[f"{entry}.key"] = d.ite(known, state[f"{entry}.key"], key)
        for field in fields:
            state[f"{entry}.{field}"] = d.ite(known, state[f"{entry}.{field}"], fresh[field])
        for frame in self.layout.frames:
            held = d.and_(d.eq(fresh["kind"], self._kind(present)), d.eq(fresh["frame"], state[f"frame.{frame}.id"]))
            self.assumed.append(d.or_(known, d.not_(held), state[f"frame.{frame}.others"]))
        if what == "page":
            self.assumed.append(d.or_(known, d.not_(d.eq(fresh["kind"], self._kind(3)))))
        else:
            for table in self.layout.tables:
                held = d.and_(d.eq(fresh["kind"], self._kind(PMD_TABLE)), d.eq(fresh["table"], state[f"table.{table}.id"]))
                self.assumed.append(d.or_(known, d.not_(held), state[f"table.{table}.others"]))


_BY_ADDRESS = frozenset(
    "set_pte clear_pte set_pte_marker wrprotect_pte mkwrite_pte set_pmd clear_pmd set_pmd_marker wrprotect_pmd mkwrite_pmd "
    "populate_pmd get_user_page".split()
)
_LOOKS_BY_ADDRESS = frozenset(
    "mapped frame_at writable_at pte_none pte_present pte_frame pte_writable pmd_none pmd_huge pmd_linked pmd_frame "
    "pmd_writable table_at maps links".split()
)


def addresses(step: Step) -> list[Expr]:
    """The address expressions whose page a step reads or writes, without repetition."""
    found: list[Expr] = [step.args[0]] if step.op in _BY_ADDRESS else []
    for arg in step.args:
        found.extend(e.args[0] for e in subexpressions(arg) if isinstance(e, Look) and e.name in _LOOKS_BY_ADDRESS)
    return list(dict.fromkeys(found))
