"""Starts from which something broke before: what breaks on one device often breaks on the next from the same start.

Nothing rests on the guess. A violation counts because the interpreter has run it on the system at hand; where it finds none, nothing
is said. Only runs are taken that the solver would be asked for too (loops followed as often, each handler run once), so that verdicts
do not depend on what was decided before.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable

from mmucheck.ir.program import PropertyDecl, System
from mmucheck.machine.state import threads_of
from mmucheck.machine.visibility import variables
from mmucheck.replay.explore import Event, SearchExhausted, Violation, broken
from mmucheck.replay.world import Scenario

STATES = 800
"""States of the interpreter for each start that is tried."""
TRIES = 2
"""Starts tried for each property, those that have served most first."""


class KnownStarts:
    """By shape of the path, the starts that have served, and how often for which property."""

    def __init__(self) -> None:
        self._served: dict[tuple[object, ...], dict[Scenario, Counter[str]]] = {}

    def add(self, system: System, violation: Violation) -> None:
        """Remember where a violation began."""
        served = self._served.setdefault(_shape(system), {})
        served.setdefault(violation.scenario, Counter())[violation.property.name] += 1

    def breaks(self, system: System, properties: Iterable[PropertyDecl], rounds: int) -> dict[str, Violation]:
        """By name, those of the properties that break from a known start, following loops ``rounds`` times at most."""
        left = {p.name: p for p in properties}
        tried: Counter[str] = Counter()
        found: dict[str, Violation] = {}
        served = self._served.get(_shape(system), {})
        for start in sorted(served, key=lambda s: -sum(served[s].values())):
            asked = [p for name, p in left.items() if served[start][name] and tried[name] < TRIES]
            tried.update(p.name for p in asked)
            found |= self.also(system, start, asked, rounds)
            left = {name: p for name, p in left.items() if name not in found}
        return found

    def also(self, system: System, start: Scenario, properties: Iterable[PropertyDecl], rounds: int) -> dict[str, Violation]:
        """By name, those of the properties that break from one start."""
        variables_here = {name for d in system.devices for name, _ in d.variables}
        asked = [p for p in properties if variables(p.formula) <= variables_here]
        found: dict[str, Violation] = {}
        with contextlib.suppress(SearchExhausted):
            for violation in broken(system, start, asked, STATES):
                if within(system, violation.events, rounds):
                    found[violation.property.name] = violation
        for violation in found.values():
            self.add(system, violation)
        return found


def _shape(system: System) -> tuple[object, ...]:
    """What two systems share that are of one path: its parameters and its own steps."""
    (path,) = system.threads
    own = sorted(n.step.op for n in path.nodes if not n.step.origin.actor)
    return path.params, system.levels, tuple(own)


def within(system: System, events: Iterable[Event], rounds: int) -> bool:
    """Whether a run follows loops so many times at most, and runs each handler once at most."""
    threads = threads_of(system)
    order = {t.name: {node: i for i, node in enumerate(t.program.topological())} for t in threads}
    turns = 0
    begun: list[str] = []
    for event in events:
        for thread in threads:
            before, after = (state[f"{thread.name}.pc"] for state in (event.before, event.after))
            if before == after or before < 0:
                continue
            if thread.device and before == thread.program.entry:
                begun.append(thread.name)
            if after >= 0 and order[thread.name][after] <= order[thread.name][before]:
                turns += 1
    return turns <= rounds and len(begun) == len(set(begun))
