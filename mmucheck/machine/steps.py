"""The meaning of every step, once, for the interpreter and for the solver.

``Machine.execute`` runs one step of one thread. To add a primitive: a method ``_step_NAME`` in the group it belongs to (entries,
references, devices, or here), a signature in mmucheck.names.builtins, a line in models/README.md.
"""

from __future__ import annotations

from typing import TypeVar

from mmucheck.ir.program import LockDecl, Step
from mmucheck.machine.core import Outcome
from mmucheck.machine.devices import DeviceSteps, Fill
from mmucheck.machine.domain import BOOL, COUNT, FRAME, NUMBER
from mmucheck.machine.entries import EntrySteps
from mmucheck.machine.looks import View
from mmucheck.machine.references import ReferenceSteps
from mmucheck.machine.state import Chooser, State, Thread
from mmucheck.machine.world import OpenWorld, Untracked

V = TypeVar("V")

__all__ = ["Fill", "Machine", "Outcome", "Untracked"]


class Machine(EntrySteps[V], ReferenceSteps[V], DeviceSteps[V], OpenWorld[V]):
    """Steps over a system and a layout on one domain. States are changed in place: copy before."""

    # ---- threads

    def execute(self, state: State[V], thread: Thread, step: Step, chooser: Chooser[V]) -> Outcome[V]:
        """Run one step. The guard includes what had to be assumed about pages first looked at here."""
        view = View(state, f"{thread.name}.", chooser)
        self.assumed, self.running = [], thread.name
        self._load_for(step, view)
        method = getattr(self, f"_step_{step.op}")
        outcome: Outcome[V] = method(step, view, thread)
        if self.assumed:
            outcome = Outcome(self.domain.and_(outcome.guard, *self.assumed), outcome.branch)
        return outcome

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
        value, *condition = self._values(step, view)
        if condition:
            value = self.domain.ite(condition[0], value, view.state[f"{device}.{name}"])
        view.state[f"{device}.{name}"] = value
        return self._done()

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
            return self._take(step, lock, view, thread)
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
            return self._give_back(step, lock, view, thread)
        if mode == "read":
            readers = f"lock.{name}.readers"
            view.state[readers] = d.binary("sub", view.state[readers], self._one)
        else:
            view.state[f"lock.{name}"] = self._none
        return self._done()

    def _take(self, step: Step, lock: LockDecl, view: View[V], thread: Thread) -> Outcome[V]:
        """One lock of a family: it waits for a thread that holds the one of the same key."""
        d, state = self.domain, view.state
        key = self.lock_key(step, lock, view)
        shared = d.const(step.names[1] == "read", BOOL)
        free, placed = self.looks.true, self.looks.false
        for hold in self.holds:
            if hold.lock != lock:
                continue
            held, reads, at = hold.part("held"), hold.part("shared"), hold.part("key")
            if hold.thread != thread.name:
                both_read = d.and_(shared, state[reads])
                free = d.and_(free, d.not_(d.and_(state[held], d.eq(state[at], key), d.not_(both_read))))
                continue
            here = d.and_(d.not_(state[held]), d.not_(placed))
            placed = d.or_(placed, here)
            state[at], state[reads] = d.ite(here, key, state[at]), d.ite(here, shared, state[reads])
            state[held] = d.or_(state[held], here)
        return Outcome(free)

    def _give_back(self, step: Step, lock: LockDecl, view: View[V], thread: Thread) -> Outcome[V]:
        d, state = self.domain, view.state
        key = self.lock_key(step, lock, view)
        for hold in self.holds:
            if hold.lock == lock and hold.thread == thread.name:
                held, reads, at = hold.part("held"), hold.part("shared"), hold.part("key")
                gone = d.and_(state[held], d.eq(state[at], key))
                state[held] = d.and_(state[held], d.not_(gone))
                state[reads] = d.and_(state[reads], d.not_(gone))
                state[at] = d.ite(gone, d.const(0, FRAME if lock.key == "frame" else NUMBER), state[at])
        return self._done()

    def lock_key(self, step: Step, lock: LockDecl, view: View[V]) -> V:
        """Which lock of a family a step is about."""
        key = self._values(step, view)[0]
        return self.domain.binary("udiv", key, self.domain.const(lock.granule, NUMBER)) if lock.granule > 1 else key
