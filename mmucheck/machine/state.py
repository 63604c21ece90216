"""The state of the machine: named variables over a fixed set of slots.

A slot is a page, a region, a frame or a page-table page that the state keeps in full: a page is what a lower-level entry
maps (4 KiB unless the path says `levels`), a region what an upper-level one covers (2 MiB). The interpreter has a slot for
everything in its small world. The witness world keeps one page, one frame, one table, and one *foreign* page and region that
stand for whatever else the path touches (``open`` is true): their content is any value when first looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from mmucheck.ir.balance import deepest
from mmucheck.ir.program import DeviceDecl, LockDecl, Program, System
from mmucheck.machine.domain import BOOL, FRAME, KIND, TABLE
from mmucheck.records import record

V = TypeVar("V")
State = dict[str, V]

PTE_NONE, PTE_PRESENT, PTE_MARKER = 0, 1, 2
PMD_NONE, PMD_TABLE, PMD_HUGE, PMD_MARKER = 0, 1, 2, 3
ZERO_PAGE = 0
FOREIGN_KEY_FREE = (1 << 64) - 1
"""A key no page and no region has: the foreign slot is empty."""


@record
class Slot:
    """``region``: of a page, the region it is in; ``foreign``: it stands for one page after another; ``owner``: the thread whose
    looks make it another page, "" if any may."""

    name: str
    region: str = ""
    foreign: bool = False
    owner: str = ""


@record
class Layout:
    """Which slots there are. ``open``: there is more than the slots show."""

    pages: tuple[Slot, ...]
    regions: tuple[Slot, ...]
    frames: tuple[str, ...]
    tables: tuple[str, ...]
    open: bool

    def own_pages(self) -> tuple[Slot, ...]:
        return tuple(p for p in self.pages if not p.foreign)

    def own_regions(self) -> tuple[Slot, ...]:
        return tuple(r for r in self.regions if not r.foreign)


@record
class Thread:
    """A sequential program that runs in the system: a VMM thread or a device's handler."""

    name: str
    program: Program
    number: int
    device: str = ""

    def local(self, name: str) -> str:
        return f"{self.name}.{name}"


def threads_of(system: System) -> tuple[Thread, ...]:
    """VMM threads, numbered from 1, then the devices' handlers."""
    found = [Thread(f"vmm{i}" if len(system.threads) > 1 else "vmm", p, i) for i, p in enumerate(system.threads, 1)]
    for device in system.devices:
        for handler in device.handlers:
            found.append(Thread(f"{device.name}.{handler.name}", handler, len(found) + 1, device.name))
    return tuple(found)


def contended(threads: Sequence[Thread]) -> frozenset[str]:
    """The locks that more than one thread takes: nobody waits for the others."""
    takers = [{n.step.names[0] for n in t.program.nodes if n.step.op == "lock"} for t in threads]
    return frozenset(name for i, mine in enumerate(takers) for name in mine if any(name in other for other in takers[:i]))


@record
class Hold:
    """A place for one lock of a family (a lock with a key) that a thread holds: ``held``, ``shared`` (for reading) and ``key``."""

    lock: LockDecl
    thread: str
    place: int

    def part(self, name: str) -> str:
        return f"lock.{self.lock.name}.{self.thread}.{self.place}.{name}"


def holds(system: System) -> tuple[Hold, ...]:
    """As many places as each thread holds locks of a contended family at once."""
    threads = threads_of(system)
    waited_for = contended(threads)
    families = [k for k in (*system.locks, *(k for d in system.devices for k in d.locks)) if k.key and k.name in waited_for]
    depths = {t.name: deepest(t.program) for t in threads}
    return tuple(Hold(k, t.name, i) for k in families for t in threads for i in range(depths[t.name].get(k.name, 0)))


class Chooser(Protocol[V]):
    """Where values come from that no step decides: fresh variables for the solver, a schedule for the interpreter."""

    def boolean(self, label: str) -> V: ...
    def frame(self, label: str) -> V: ...
    def table(self, label: str) -> V: ...
    def first_look(self, what: str, key: V, new: V) -> dict[str, V]:
        """Content of a page or region that has no slot, if ``new``: kind, frame, write (and table)."""
        ...


UNLINKED = "event.entries_unlinked"
"""Whether a table may have been unlinked with entries in it, or filled before it was linked. Kept in an open world only."""

CROWD = "crowd"
"""Of a frame or table: whether threads that are not kept own references on it (mmucheck.lower.crowd)."""

PAGE_FIELDS = ("kind", "frame", "write")
REGION_FIELDS = ("kind", "frame", "write", "table")
SORTS = {"kind": KIND, "frame": FRAME, "write": BOOL, "table": TABLE, "valid": BOOL}
CACHE_FIELDS = {"pages": ("valid", "frame", "write"), "tables": ("valid", "table")}


def cache_slots(device: DeviceDecl, layout: Layout) -> Iterator[tuple[str, str, str]]:
    """(cache name, slot name, of) for every entry a device's caches can hold in this layout."""
    for cache in device.caches:
        slots = layout.own_pages() if cache.of == "pages" else layout.own_regions()
        for slot in slots:
            yield cache.name, slot.name, cache.of
