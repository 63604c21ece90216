"""A small concrete world: which pages, frames and tables there are and how everything stands at the start."""

from __future__ import annotations

from dataclasses import replace

from mmucheck.ir.program import System
from mmucheck.machine.domain import Concrete
from mmucheck.machine.looks import Looks, View
from mmucheck.machine.state import (
    CACHE_FIELDS,
    PMD_HUGE,
    PMD_NONE,
    PMD_TABLE,
    PTE_NONE,
    PTE_PRESENT,
    ZERO_PAGE,
    Layout,
    Slot,
    State,
    cache_slots,
    holds,
    threads_of,
)  # fmt: skip
from mmucheck.names.builtins import ADDRESS_SPACE, LEVEL_BITS, LEVELS, TASK_SIZE
from mmucheck.records import record

SPARE_FRAMES = 3
"""Frames (and tables) beside those of the start that an allocation may hand out."""


@record
class Entry:
    """A table entry at the start. ``target``: frame, or table for an upper-level entry that links one."""

    kind: int
    target: int = 0
    write: bool = False


@record
class Scenario:
    """The start of a concrete run. ``pages`` and ``regions`` by page and region address; ``held``: frames (tables) with unknown
    holders; ``cached``: (device, cache, address, writable) entries present; ``witness``: the byte address a property is asked at."""

    witness: int
    pages: tuple[tuple[int, Entry], ...]
    regions: tuple[tuple[int, Entry], ...]
    params: tuple[tuple[str, int], ...]
    frame: int = 1
    table: int = 1
    held_frames: frozenset[int] = frozenset()
    held_tables: frozenset[int] = frozenset()
    cached: tuple[tuple[str, str, int, bool], ...] = ()
    bits: tuple[int, int] = (LEVEL_BITS[LEVELS[0]], LEVEL_BITS[LEVELS[1]])
    """What an entry of the lower and of the upper level maps, as powers of two."""
    shared: tuple[tuple[str, int], ...] = ()
    """What variables of the address space hold where that may be any number."""

    def page_of(self, address: int) -> int:
        return address >> self.bits[0] << self.bits[0]

    def region_of(self, address: int) -> int:
        return address >> self.bits[1] << self.bits[1]

    def without_unlinked(self) -> Scenario:
        """The same start without entries in tables that are not linked: what was first looked at behind a step that links a table may have
        been thought to be there before."""
        linked = {key for key, entry in self.regions if entry.kind == PMD_TABLE}
        kept = (entry.kind == PTE_NONE or self.region_of(key) in linked for key, entry in self.pages)
        pages = tuple(page if keep else (page[0], Entry(PTE_NONE)) for page, keep in zip(self.pages, kept, strict=True))
        return self if pages == self.pages else replace(self, pages=pages)

    def with_page(self, address: int) -> Scenario:
        """The same start with one more, empty, page."""
        key, region = self.page_of(address), self.region_of(address)
        regions = self.regions if any(k == region for k, _ in self.regions) else (*self.regions, (region, Entry(PMD_NONE)))
        return replace(self, pages=(*self.pages, (key, Entry(0))), regions=regions)


def layout_of(scenario: Scenario) -> Layout:
    """A slot for everything in the scenario, and spare frames and tables."""
    regions = {key: f"r{i}" for i, (key, _) in enumerate(scenario.regions)}
    frames = {e.target for _, e in scenario.pages if e.kind == PTE_PRESENT}
    frames |= {e.target for _, e in scenario.regions if e.kind == PMD_HUGE} | {scenario.frame, ZERO_PAGE}
    tables = {e.target for _, e in scenario.regions if e.kind == PMD_TABLE} | {scenario.table}
    return Layout(
        pages=tuple(Slot(f"p{i}", regions[scenario.region_of(key)]) for i, (key, _) in enumerate(scenario.pages)),
        regions=tuple(Slot(name) for name in regions.values()),
        frames=_names(frames),
        tables=_names(tables),
        open=False,
    )


def _names(used: set[int]) -> tuple[str, ...]:
    spare = [i for i in range(1, 64) if i not in used][:SPARE_FRAMES]
    return tuple(str(i) for i in sorted([*used, *spare]))


def start(system: System, scenario: Scenario, layout: Layout) -> State[int]:
    """The state a scenario describes. References are counted from the entries; devices hold what ``cached`` says."""
    state: State[int] = {}
    for slot, (key, entry) in zip(layout.pages, scenario.pages, strict=True):
        inside = scenario.page_of(scenario.witness) == key
        state |= {f"page.{slot.name}.key": key, f"page.{slot.name}.addr": scenario.witness if inside else key,
                  f"page.{slot.name}.kind": entry.kind, f"page.{slot.name}.frame": entry.target,
                  f"page.{slot.name}.write": entry.write}  # fmt: skip
    for slot, (key, entry) in zip(layout.regions, scenario.regions, strict=True):
        huge, table = entry.kind == PMD_HUGE, entry.kind == PMD_TABLE
        state |= {f"region.{slot.name}.key": key, f"region.{slot.name}.kind": entry.kind,
                  f"region.{slot.name}.frame": entry.target if huge else 0, f"region.{slot.name}.write": entry.write,
                  f"region.{slot.name}.table": entry.target if table else 0}  # fmt: skip
    threads = threads_of(system)
    targets = {
        "frame": [e.target for _, e in scenario.pages if e.kind == PTE_PRESENT]
        + [e.target for _, e in scenario.regions if e.kind == PMD_HUGE],
        "table": [e.target for _, e in scenario.regions if e.kind == PMD_TABLE],
    }
    for what, names, held in (("frame", layout.frames, scenario.held_frames), ("table", layout.tables, scenario.held_tables)):
        for name in names:
            ident = int(name)
            state[f"{what}.{name}.id"] = ident
            state[f"{what}.{name}.refs"] = targets[what].count(ident)
            state[f"{what}.{name}.others"] = ident in held or (what == "frame" and ident == ZERO_PAGE)
            for thread in threads:
                state[f"{what}.{name}.queued.{thread.name}"] = 0
    _start_devices(system, scenario, layout, state)
    looks, given = Looks(Concrete(), system, layout), dict(scenario.shared)
    for name, value in system.shared:
        state[f"{ADDRESS_SPACE}.{name}"] = looks.value(value, View(state)) if value is not None else given.get(name, 0)
    for lock in (*system.locks, *(k for d in system.devices for k in d.locks)):
        if not lock.key:
            state[f"lock.{lock.name}"] = state[f"lock.{lock.name}.readers"] = 0
    for hold in holds(system):
        state |= {hold.part("held"): False, hold.part("shared"): False, hold.part("key"): 0}
    state["event.assertion_failed"] = state["event.slept_in_atomic"] = False
    params = dict(scenario.params)
    for thread in threads:
        for name in thread.program.locals:
            state[thread.local(name)] = params.get(thread.local(name), 0)
        state |= {thread.local("tlb_start"): TASK_SIZE, thread.local("tlb_end"): 0, thread.local("atomic"): 0}
        state[f"{thread.name}.pc"] = -1 if thread.device else thread.program.entry
    return state


def _start_devices(system: System, scenario: Scenario, layout: Layout, state: State[int]) -> None:
    looks = Looks(Concrete(), system, layout)
    present = {(d, c, scenario.page_of(a)): w for d, c, a, w in scenario.cached}
    for device in system.devices:
        for cache, slot, of in cache_slots(device, layout):
            entry = f"{device.name}.{cache}.{slot}"
            key = state[f"{'page' if of == 'pages' else 'region'}.{slot}.key"]
            for field in CACHE_FIELDS[of]:
                state[f"{entry}.{field}"] = 0
            if of == "pages" and (device.name, cache, key) in present:
                mapped, frame, write = looks.walk(state, key)
                state |= {f"{entry}.valid": mapped, f"{entry}.frame": frame}
                state[f"{entry}.write"] = bool(write) and present[device.name, cache, key]
            elif of == "tables" and (device.name, cache, key) in present:
                state |= {f"{entry}.valid": state[f"region.{slot}.kind"] == PMD_TABLE, f"{entry}.table": state[f"region.{slot}.table"]}
        for name, value in device.variables:
            state[f"{device.name}.{name}"] = looks.value(value, View(state))
