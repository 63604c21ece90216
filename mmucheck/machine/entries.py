"""Steps on table entries."""

from __future__ import annotations

from typing import TypeVar

from mmucheck.ir.program import Step
from mmucheck.machine.core import Core, Outcome
from mmucheck.machine.domain import BOOL, NUMBER
from mmucheck.machine.looks import View
from mmucheck.machine.state import (
    FOREIGN_KEY_FREE,
    PMD_HUGE,
    PMD_MARKER,
    PMD_NONE,
    PMD_TABLE,
    PTE_MARKER,
    PTE_NONE,
    PTE_PRESENT,
    UNLINKED,
    Slot,
    Thread,
)

V = TypeVar("V")


class EntrySteps(Core[V]):
    """Clear, set and change entries of both levels."""

    def _write(self, view: View[V], what: str, hits: list[tuple[Slot, V]], **fields: V) -> None:
        for slot, hit in hits:
            for field, value in fields.items():
                key = f"{what}.{slot.name}.{field}"
                view.state[key] = self.domain.ite(hit, value, view.state[key])

    def _unlinks(self, view: View[V], hits: list[tuple[Slot, V]]) -> None:
        """A table that goes may still have entries of pages without a slot."""
        if not self.layout.open:
            return
        for slot, hit in hits:
            linked = self.domain.eq(view.state[f"region.{slot.name}.kind"], self._kind(PMD_TABLE))
            view.state[UNLINKED] = self.domain.or_(view.state[UNLINKED], self.domain.and_(hit, linked))

    def _set_pte(self, view: View[V], addr: V, kind: int, frame: V | None = None, write: V | None = None) -> None:
        hits = self.looks.page_hits(view.state, addr)
        if self.layout.open and kind != PTE_NONE:
            linked = self.domain.eq(self.looks.pmd(view.state, addr, "kind"), self._kind(PMD_TABLE))
            view.state[UNLINKED] = self.domain.or_(view.state[UNLINKED], self.domain.not_(linked))
        fields = {"kind": self._kind(kind)}
        if frame is not None and write is not None:
            fields |= {"frame": frame, "write": write}
        self._write(view, "page", hits, **fields)

    def _set_pmd(self, view: View[V], addr: V, kind: int, **fields: V) -> None:
        hits = self.looks.region_hits(view.state, addr)
        self._unlinks(view, hits)
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

    def _in_region(self, view: View[V], addr: V) -> list[tuple[Slot, V]]:
        """Each page slot with the condition that it lies in the region of ``addr``."""
        key = self.looks.region_key(addr)
        keys = ((page, view.state[f"page.{page.name}.key"]) for page in self.layout.pages)
        return [(page, self.domain.eq(key, self.looks.region_key(at))) for page, at in keys]

    def _step_fill_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        addr, frame, write = self._values(step, view)
        if self.layout.open:
            view.state[UNLINKED] = self.looks.true
            for slot in self.layout.frames:  # entries of pages without a slot map it from now on
                others, maps = f"frame.{slot}.others", self.domain.eq(frame, view.state[f"frame.{slot}.id"])
                view.state[others] = self.domain.or_(view.state[others], maps)
        free = self.domain.const(FOREIGN_KEY_FREE, NUMBER)
        for page, hit in self._in_region(view, addr):
            if page.foreign:  # its part has another identity: it is forgotten; the path may drop the reference of what it mapped
                self._write(view, "page", [(page, hit)], key=free, kind=self._kind(PTE_NONE))
            else:
                self._write(view, "page", [(page, hit)], kind=self._kind(PTE_PRESENT), frame=frame, write=write)
        return self._done()

    def _step_assume_none_outside(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        """Of the entries of a table that are kept: what there is of others in an open world it cannot say, and leaves open."""
        d = self.domain
        addr, start, end = self._values(step, view)
        first, none = self.looks.page_key(start), []
        for page, hit in self._in_region(view, addr):
            key, kind = view.state[f"page.{page.name}.key"], view.state[f"page.{page.name}.kind"]
            inside = d.and_(d.ule(first, key), d.ult(key, end))
            none.append(d.or_(d.eq(kind, self._kind(PTE_NONE)), d.not_(hit), inside))
        return Outcome(d.and_(*none))

    def _step_clear_table(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        hits = self._in_region(view, self._values(step, view)[0])
        self._write(view, "page", hits, kind=self._kind(PTE_NONE))
        return self._done()
