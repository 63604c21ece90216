"""Deciding the properties of more than one VMM thread: first one thread at a time (mmucheck.engines.crowd), which covers any number of
runs and loops; what that leaves in doubt by following two threads together (mmucheck.engines.pairs), which gives schedules."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mmucheck.engines.cells import confirmed
from mmucheck.engines.claims import claims_of, kind_of, says_anything
from mmucheck.engines.crowd import METHOD, Exploration
from mmucheck.engines.exercise import explored
from mmucheck.engines.forms import looks_at_caches, unknown_variable
from mmucheck.engines.members import Outcome
from mmucheck.engines.pairs import Member, PairSession
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import INCONCLUSIVE, PROVED, REFUTED, VACUOUS, Decision, Exercised
from mmucheck.ir.program import Program, PropertyDecl, System, without_drops
from mmucheck.lower.crowd import MemberWorld, segments
from mmucheck.lower.unroll import Act

Kind = tuple[bool, bool]
DOUBT = "in doubt"
SHARE = 0.5
"""Of the time for a pair, how much the first way may take."""


class ThreadsSession:
    """A system with two VMM threads, each of which runs its path once, or, if ``system.crowd``, any of the paths any number of times. Like
    mmucheck.engines.decide.Session."""

    def __init__(self, system: System, properties: list[PropertyDecl], limits: Limits) -> None:
        self.system, self.properties, self.limits = system, properties, limits
        self._crowd = CrowdSession(system, properties, limits)
        self._pairs: PairSession | None = None
        self._by_pairs: set[str] = set()

    def decide(self, prop: PropertyDecl, spent: float = 0.0) -> Decision:
        """A decision for one property; ``spent``: seconds of its time that are gone already."""
        started = time.monotonic()
        found = self._crowd.decide(prop, spent, 1.0 if self.system.crowd else SHARE)
        if found.verdict == PROVED or (self.system.crowd and found.verdict == VACUOUS):
            return found
        spent += time.monotonic() - started
        if self.system.crowd:
            return self._refuted(prop, spent) or found
        self._by_pairs.add(prop.name)
        return self._pair().decide(prop, spent)

    def _pair(self) -> PairSession:
        if self._pairs is None:
            self._pairs = PairSession(self.system, self.properties, self.limits)
        return self._pairs

    def _refuted(self, prop: PropertyDecl, spent: float) -> Decision | None:
        """Two threads that run one path each may break it."""
        started = time.monotonic()
        programs = self.system.threads
        for i, one in enumerate(programs):
            for other in programs[i:]:
                left = self.limits.timeout - spent - (time.monotonic() - started)
                if self.limits.timeout and left <= 0:
                    return None
                pair = replace(self.system, threads=(one, other), crowd=False)
                limits = replace(self.limits, timeout=left if self.limits.timeout else 0.0, thorough=False)
                decision = PairSession(pair, [prop], limits).decide(prop)
                if decision.verdict == REFUTED:
                    return decision
        return None

    def breaks(self, prop: PropertyDecl) -> bool | None:
        """Whether some run breaks the property; None if that was not decided."""
        if self._crowd.decide(prop).verdict == PROVED:
            return False
        if self.system.crowd:
            return True if self._refuted(prop, 0.0) else None
        return self._pair().breaks(prop)

    def confirm(self, proved: list[PropertyDecl]) -> str:
        """Let the second solver decide, too, that the cells cover all numbers; what it left undecided, "" if nothing.

        Raises InternalError if it comes to another answer.
        """
        by_pairs = [p for p in proved if p.name in self._by_pairs]
        undecided = self._pair().confirm(by_pairs) if by_pairs else ""
        return undecided or self._crowd.confirm([p for p in proved if p.name not in self._by_pairs])

    def evidence(self, prop: PropertyDecl) -> list[tuple[str, list[Member]]]:
        """Of a property that was proved, for each exploration: what must be unsatisfiable, and a member of every cell."""
        return self._pair().evidence(prop) if prop.name in self._by_pairs else self._crowd.evidence(prop)

    def repeat(self, prop: PropertyDecl, members: Sequence[Sequence[Member]]) -> str:
        """Explore again for a proof of the property, the cells of the given members only; why it is none, "" if ``evidence`` decides."""
        why = self._crowd.repeat(prop, members)
        if not why or self.system.crowd:
            return why
        self._by_pairs.add(prop.name)
        return self._pair().repeat(prop, members)


class CrowdSession:
    """The paths of a system as those that each of two threads runs again and again. Nothing is refuted."""

    def __init__(self, system: System, properties: list[PropertyDecl], limits: Limits) -> None:
        self.system = replace(system, threads=_distinct(system.threads), crowd=True)
        self.properties, self.limits = properties, limits
        self._done: dict[Kind, Exploration] = {}
        self._without_drops: CrowdSession | None = None

    def _group(self, kind: Kind) -> list[PropertyDecl]:
        return [p for prop in self.properties for p in claims_of(prop, self.system) if kind_of(p) == kind]

    def _explored(self, kind: Kind, spent: float, share: float) -> Outcome:
        if kind not in self._done:
            deadline = time.monotonic() + (self.limits.timeout - spent) * share if self.limits.timeout else 0.0
            self._done[kind] = Exploration(self.system, self._group(kind), self.limits, deadline)
            self._done[kind].run()
        return self._done[kind].outcome

    def decide(self, prop: PropertyDecl, spent: float = 0.0, share: float = 1.0) -> Decision:
        """Proved, vacuous, or inconclusive; ``share``: of the time that is left."""
        unknown = unknown_variable(self.system, prop)
        if unknown:
            return Decision(VACUOUS, "by form", unknown)
        obstacle = out_of_reach(self.system)
        if obstacle:
            return Decision(INCONCLUSIVE, METHOD, obstacle)
        started = time.monotonic()
        outcomes: dict[Kind, Outcome] = {}
        for part in claims_of(prop, self.system):
            kind = kind_of(part)
            outcomes[kind] = self._explored(kind, spent + time.monotonic() - started, share)
            if part.name in outcomes[kind].alarms:
                return Decision(INCONCLUSIVE, METHOD, f"{DOUBT} ({outcomes[kind].alarms[part.name]}); no two runs were found to break it")
        decision = self._judged(prop, list(outcomes.values()))
        if decision.verdict == PROVED and self.limits.thorough and looks_at_caches(prop):
            if self._without_drops is None:
                self._without_drops = CrowdSession(without_drops(self.system), self.properties, replace(self.limits, thorough=False))
            found = self._without_drops.decide(prop, 0.0, share)
            return replace(decision, needs_flush=found.verdict != PROVED if found.verdict == PROVED or found.reason[:8] == DOUBT else None)
        return decision

    def _judged(self, prop: PropertyDecl, outcomes: Sequence[Outcome]) -> Decision:
        """Of a property that no state breaks."""
        size = f"{sum(o.states for o in outcomes)} states in {sum(o.cells for o in outcomes)} cells of numbers"
        reason = next((o.reason for o in outcomes if o.reason), "")
        if reason:
            return Decision(INCONCLUSIVE, METHOD, f"{reason}, after {size}")
        exercised = self._exercised(outcomes)
        stuck = [m.world.me.program.name for o in outcomes for m in o.members if not m.ends]
        if stuck:
            return Decision(VACUOUS, "cover", f"`{stuck[0]}` cannot run to its end", exercised=exercised)
        if not any(self._says(part, outcomes) for part in claims_of(prop, self.system)):
            return Decision(VACUOUS, "cover", "no run comes to a state of which the property says anything", exercised=exercised)
        return Decision(PROVED, f"{METHOD}: two threads, any number of runs of each path; {size}", exercised=exercised)

    def _exercised(self, outcomes: Sequence[Outcome]) -> Exercised:
        seen = [explored(worlds[0].terms, alone, taken) for alone, worlds, taken in self._members(outcomes)]
        missing = tuple(dict.fromkeys(m for e in seen for m in e.missing))
        return Exercised(sum(e.reached for e in seen), sum(e.total for e in seen), missing)

    def _says(self, part: PropertyDecl, outcomes: Sequence[Outcome]) -> bool:
        says = set().union(*(o.says for o in outcomes))
        return any(says_anything(part, worlds[0].terms, alone, taken, says) for alone, worlds, taken in self._members(outcomes))

    def _members(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[System, list[MemberWorld], set[Act]]]:
        """Of each path: the system in which it is alone, its worlds, the acts taken in them as those of that system. What devices do by
        themselves they may have done between two runs."""
        between = [act for o in outcomes for act in (o.surroundings.taken if o.surroundings else ())]
        for program, members in zip(self.system.threads, zip(*(o.members for o in outcomes), strict=True), strict=True):
            worlds = [m.world for m in members]
            taken = (act for w in worlds for act in w.taken)
            yield replace(self.system, threads=(program,), crowd=False), worlds, _renamed([*taken, *between])

    def confirm(self, proved: list[PropertyDecl]) -> str:
        """See ThreadsSession."""
        kinds = dict.fromkeys(kind_of(part) for prop in proved for part in claims_of(prop, self.system))
        return confirmed((text for kind in kinds for text, _ in self._done[kind].evidence()), self.limits)

    def evidence(self, prop: PropertyDecl) -> list[tuple[str, list[Member]]]:
        """See ThreadsSession: for each kind of claim, for each path, for each of its segments."""
        kinds = dict.fromkeys(map(kind_of, claims_of(prop, self.system)))
        return [found for kind in kinds for found in self._done[kind].evidence()]

    def repeat(self, prop: PropertyDecl, members: Sequence[Sequence[Member]]) -> str:
        """See ThreadsSession."""
        kinds = list(dict.fromkeys(map(kind_of, claims_of(prop, self.system))))
        size = sum(len(segments(p)) for p in self.system.threads)
        obstacle = out_of_reach(self.system)
        if obstacle or len(members) != size * len(kinds):
            return obstacle or f"the property needs {size * len(kinds)} exploration(s), there are cells of {len(members)}"
        for i, kind in enumerate(kinds):
            deadline = time.monotonic() + self.limits.timeout if self.limits.timeout else 0.0
            exploration = self._done[kind] = Exploration(self.system, self._group(kind), self.limits, deadline)
            found = exploration.repeat(members[i * size : (i + 1) * size])
            if found.reason:
                return found.reason
        decision = self.decide(prop)
        return "" if decision.verdict == PROVED else f"it is {decision.verdict}: {decision.reason}"


def out_of_reach(system: System) -> str:
    """Why the argument does not apply to a crowd, "" if it does."""
    if system.shared:
        return f"the paths share `{system.shared[0][0]}`: not covered for any number of runs"
    for program in system.threads:
        if any(program.locals[n] == "table" for n, _ in program.params):
            return f"`{program.name}` is given a page-table page: not covered for any number of runs"
    return ""


def _distinct(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The same path twice is one: each thread may run any of them."""
    return tuple({re.sub(r"choice\d+", "choice", repr((p.nodes, p.entry, p.params))): p for p in programs}.values())


def _renamed(taken: Iterable[tuple[str, Any, int]]) -> set[Act]:
    """Acts of the kept thread as those of a system in which it is alone."""
    return {("vmm" if name == "vmm1" else name, what, way) for name, what, way in taken}
