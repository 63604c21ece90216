"""Steps on references: counts of frames and table pages, allocation, and the gather that frees in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from mmucheck.ir.program import Step
from mmucheck.machine.core import Core, Outcome
from mmucheck.machine.domain import COUNT, FRAME
from mmucheck.machine.looks import View
from mmucheck.machine.state import PMD_HUGE, PMD_TABLE, PTE_PRESENT, ZERO_PAGE, Thread

V = TypeVar("V")


class ReferenceSteps(Core[V]):
    """Take, drop, hand out, queue."""

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
                self._loosen(view, f"{what}.{slot}", d.and_(hit, d.not_(some)))
                view.state[refs] = d.ite(d.and_(hit, some), d.binary("sub", view.state[refs], self._one), view.state[refs])

    def _loosen(self, view: View[V], slot: str, when: V) -> None:
        """A reference that nobody known has is dropped: an entry without a slot may have lost its own."""
        if self.layout.open:
            view.state[f"{slot}.loose"] = self.domain.or_(view.state[f"{slot}.loose"], when)

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
        for entry, present in self._entries(what, thread):
            in_use = d.and_(d.eq(view.state[f"{entry}.kind"], self._kind(present)), d.eq(view.state[f"{entry}.{what}"], ident))
            free.append(d.not_(in_use))
        self._count(view, what, ident, +1, done)
        view.state[thread.local(step.results[0])] = ident
        return Outcome(d.or_(d.not_(done), d.and_(*free)), done)

    def _entries(self, what: str, thread: Thread) -> Iterator[tuple[str, int]]:
        """Those that this thread looks at, or everybody: another's own may be written without its noticing."""
        kinds = [("page", self.layout.pages, PTE_PRESENT), ("region", self.layout.regions, PMD_HUGE)]
        for level, slots, present in kinds if what == "frame" else [("region", self.layout.regions, PMD_TABLE)]:
            yield from ((f"{level}.{s.name}", present) for s in slots if s.owner in ("", thread.name))

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
        for slot in (*(f"frame.{f}" for f in self.layout.frames), *(f"table.{t}" for t in self.layout.tables)):
            view.state[f"{slot}.queued.{thread.name}"] = self._none
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
            self._loosen(view, f"{what}.{slot}", few)
            view.state[refs] = d.ite(few, self._none, d.binary("sub", view.state[refs], view.state[queued]))
            view.state[queued] = self._none
        return self._done()

    def _step_tlb_free_pages(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._free_queued(view, thread, "frame")

    def _step_tlb_free_tables(self, step: Step, view: View[V], thread: Thread) -> Outcome[V]:
        return self._free_queued(view, thread, "table")
