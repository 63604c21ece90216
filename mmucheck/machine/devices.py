"""What devices do: drops and fills in their own code, and what they may do by themselves at any moment."""

from __future__ import annotations

from typing import TypeVar

from mmucheck.ir.program import CacheDecl, Step
from mmucheck.machine.core import Core, Outcome
from mmucheck.machine.domain import FRAME, NUMBER
from mmucheck.machine.looks import View
from mmucheck.machine.state import PMD_TABLE, PTE_PRESENT, ZERO_PAGE, Slot, State, Thread
from mmucheck.records import record

V = TypeVar("V")


@record
class Fill:
    """A fill a device can make by itself: into ``cache`` for ``slot``; ``via`` is the paging-structure cache it walks through."""

    device: str
    cache: CacheDecl
    slot: Slot
    via: str = ""


class DeviceSteps(Core[V]):
    """Caches, and the unknown holders of references."""

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
                last = d.binary("add", key, d.const((1 << self.system.region_bits) - 1, NUMBER))
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
