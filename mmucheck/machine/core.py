"""What every group of steps shares: the domain, the looks, the state's layout, and how a step reports back."""

from __future__ import annotations

from typing import Generic, TypeVar

from mmucheck.ir.program import Step, System
from mmucheck.machine.domain import COUNT, KIND, Domain
from mmucheck.machine.looks import Looks, View
from mmucheck.machine.state import Hold, Layout, holds
from mmucheck.records import record

V = TypeVar("V")


@record
class Outcome(Generic[V]):
    """``guard``: the step can happen only if this holds. ``branch``: which successor, for steps that have two."""

    guard: V
    branch: V | None = None


class Core(Generic[V]):
    """Base of the groups of steps. ``holds``: where it is kept which locks of families threads hold; ``assumed`` gathers what a step takes
    for granted about things it cannot see, ``running`` is the thread whose step it is."""

    def __init__(self, domain: Domain[V], system: System, layout: Layout, known: tuple[Hold, ...] | None = None) -> None:
        self.domain, self.system, self.layout = domain, system, layout
        self.looks = Looks(domain, system, layout)
        self._locks = {lock.name: lock for lock in (*system.locks, *(k for d in system.devices for k in d.locks))}
        self.holds = holds(system) if known is None else known
        self._one = domain.const(1, COUNT)
        self._none = domain.const(0, COUNT)
        self.assumed: list[V] = []
        self.running = ""

    def _values(self, step: Step, view: View[V]) -> list[V]:
        return [self.looks.value(a, view) for a in step.args]

    def _done(self) -> Outcome[V]:
        return Outcome(self.looks.true)

    def _kind(self, kind: int) -> V:
        return self.domain.const(kind, KIND)
