"""Deciding the properties of two VMM threads: the witness world explored state by state, cell by cell.

A cell is the set of addresses and arguments for which every comparison made has the same answers; it is explored for one member of it.
The solver names members outside all cells so far until there are none: then every run has been seen (mmucheck/README.md, "Two threads").
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from mmucheck.engines.cells import Cell, Exhausted, confirmed
from mmucheck.engines.claims import claims, kind_of, said, says_anything
from mmucheck.engines.concretise import ADDRESSES, plain_shared, refuted, scenario
from mmucheck.engines.evidence import covering
from mmucheck.engines.exercise import explored
from mmucheck.engines.forms import looks_at_caches, unknown_variable
from mmucheck.engines.solver import Limits, Solver
from mmucheck.engines.verdicts import BOUNDED, INCONCLUSIVE, PROVED, VACUOUS, Decision
from mmucheck.ir.program import PropertyDecl, System, without_drops
from mmucheck.lower.choices import Found
from mmucheck.lower.explicit import World
from mmucheck.lower.normal import Undecided
from mmucheck.lower.scope import State
from mmucheck.lower.unroll import one_run_tells, runs_once
from mmucheck.machine.concolic import FIRST_OTHER, VAGUE
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.state import threads_of
from mmucheck.machine.terms import Term, evaluate
from mmucheck.replay.world import Scenario

ROUNDS = 2
"""How often a thread goes round its loops; where there are any, arguments are of pages next to the witness: no proof, but refutations."""
MAX_STATES = 6_000_000
"""Explored for one group of properties."""
METHOD = "exhaustive exploration"


Member = dict[str, int]
"""A choice of the numbers, by the variable's name."""


@dataclass
class Breach:
    """A run of the witness world that breaks a property: its start, what was looked at first on the way, where it is."""

    start: dict[str, Any]
    found: tuple[Found, ...]
    where: Term
    model: dict[str, int]


@dataclass
class Outcome:
    """What exploring came to. ``reason``: why it is not complete, "" if it is."""

    cells: list[Term] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    states: int = 0
    breaches: dict[str, Breach] = field(default_factory=dict)
    says: set[str] = field(default_factory=set)
    ends: bool = False
    reason: str = ""


class Exploration:
    """All cells of a group of properties that ask about the same kinds of things."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], limits: Limits, deadline: float) -> None:
        self.world = World(system, properties, ROUNDS, said)
        self.outcome = Outcome()
        self.loops = any(t.back_edge_targets() for t in system.threads)
        self._order = self.world.order() + (self.world.near() if self.loops else [])
        self._wanted = {p.name for p in properties}
        self._limits, self._deadline = limits, deadline
        self._apart = self.world.meetings.spaces()

    def repeat(self, members: Sequence[Member]) -> Outcome:
        """Explore the cells of these members and no others: whether they are all is for ``evidence``."""
        try:
            for member in members:
                self._outside()
                self._explore(Cell(self.world, member))
        except (Exhausted, Undecided) as limit:
            self.outcome.reason = str(limit)
        return self.outcome

    def run(self) -> Outcome:
        """Explore cell after cell until none is left, every property is broken, or a limit is reached."""
        found = self.outcome
        try:
            while self._wanted - set(found.breaches):
                outside = self._outside()
                remaining = max(0.001, self._deadline - time.monotonic()) if self._deadline else 0.0
                answer = Solver(outside, (), self._limits, strategy="few").check(timeout=remaining)
                if answer.status == "unsat":
                    return found
                if answer.status == "unknown":
                    raise Exhausted(answer.reason)
                self._explore(Cell(self.world, answer.model))
        except (Exhausted, Undecided) as limit:
            found.reason = str(limit)
        return found

    def _outside(self) -> list[Term]:
        """True of numbers in none of the cells so far. Terms are made in the same order whenever an exploration is repeated: an equal
        order is an equal text."""
        return [*self.world.assume, *self._order, *(self.world.terms.not_(c) for c in self.outcome.cells)]

    def evidence(self) -> str:
        """SMT-LIB script of what must be unsatisfiable if every cell has been explored."""
        return covering(self.world.terms, [*self.world.assume, *self._order], self.outcome.cells)

    def _explore(self, cell: Cell[World]) -> None:
        apart, only, every = self._apart, self.world.starts_like(), frozenset(range(len(self.world.starts)))
        while True:
            self.world.meetings.begin()
            met = self._search(cell, apart, only)
            if met:
                apart -= met
            elif only != every and self.world.meetings.at_witness(cell.truth):
                only = every
            else:
                break
        self.outcome.cells.append(cell.condition())
        self.outcome.members.append(cell.model)

    def _search(self, cell: Cell[World], apart: frozenset[str], only: frozenset[int]) -> frozenset[str]:
        """Explore one cell, from ``only`` these starts as long as nobody touches the entries at the witness; if threads that were thought
        to stay apart meet, where."""
        world, found, truth = self.world, self.outcome, cell.truth
        parents: dict[State, tuple[State | None, int, tuple[Found, ...]]] = {}
        queue: list[State] = []
        for state, number, looked in world.initial_states(truth, only):
            if state not in parents:
                parents[state] = (None, number, looked)
                queue.append(state)
        met = 0
        counted = 0
        for at, state in enumerate(queue):  # grows on the way
            if at & 0xFF == 0:
                found.states += at - counted
                counted = at
                self._within_limits()
            if len(world.meetings.met) > met:
                met = len(world.meetings.met)
                meetings = world.meetings.where(truth) & apart
                if meetings or (len(only) < len(world.starts) and world.meetings.at_witness(truth)):
                    return meetings
            told, done = world.told(state, truth)
            found.ends = found.ends or done
            found.says.update(told.says)
            for name in told.broken:
                if name not in found.breaches:
                    found.breaches[name] = self._breach(state, parents, cell)
            for after, looked in world.successors(state, truth, apart):
                if after not in parents:
                    parents[after] = (state, 0, looked)
                    queue.append(after)
        found.states += len(queue) - counted
        return world.meetings.where(truth) & apart

    def _breach(self, state: State, parents: dict[State, tuple[State | None, int, tuple[Found, ...]]], cell: Cell[World]) -> Breach:
        looked: list[tuple[Found, ...]] = []
        at: State | None = state
        number = 0
        while at is not None:
            at, number, found = parents[at]
            looked.append(found)
        return Breach(self.world.starts[number], tuple(f for part in reversed(looked) for f in part), cell.condition(), cell.model)

    def _within_limits(self) -> None:
        states = self.outcome.states
        if self._limits.rlimit and states > self._limits.rlimit:
            raise Exhausted("resource limit")
        if states > MAX_STATES:
            raise Exhausted(f"more than {MAX_STATES} states")
        if self._deadline and time.monotonic() > self._deadline:
            raise Exhausted("timeout")


class PairSession:
    """One system with two VMM threads: properties that ask about the same kinds of things are explored together. Like
    mmucheck.engines.decide.Session."""

    def __init__(self, system: System, properties: list[PropertyDecl], limits: Limits) -> None:
        self.system, self.properties, self.limits = system, properties, limits
        self._done: dict[tuple[bool, bool], tuple[Exploration, Outcome]] = {}
        self._without_drops: PairSession | None = None
        threads = threads_of(system)
        self._paths = tuple(t for t in threads if not t.device)
        self._handlers = tuple(t for t in threads if t.device)
        self._one_run = all(runs_once(h, threads, system) for h in self._handlers)

    def _explored(self, part: PropertyDecl, spent: float) -> tuple[Exploration, Outcome]:
        kind = kind_of(part)
        if kind not in self._done:
            group = [p for prop in self.properties for p in claims(prop) if kind_of(p) == kind]
            deadline = time.monotonic() + self.limits.timeout - spent if self.limits.timeout else 0.0
            exploration = Exploration(self.system, group, self.limits, deadline)
            self._done[kind] = exploration, exploration.run()
        return self._done[kind]

    def decide(self, prop: PropertyDecl, spent: float = 0.0) -> Decision:
        """A decision for one property; ``spent``: seconds of its time that are gone already."""
        unknown = unknown_variable(self.system, prop)
        if unknown:
            return Decision(VACUOUS, "by form", unknown)
        parts = claims(prop)
        explorations: dict[tuple[bool, bool], tuple[Exploration, Outcome]] = {}
        started = time.monotonic()
        for part in parts:
            exploration, found = explorations[kind_of(part)] = self._explored(part, spent + time.monotonic() - started)
            if part.name in found.breaches:
                alike, apart = (self._simplest(exploration.world, found.breaches[part.name], way) for way in (False, True))
                return refuted(self.system, alike, prop, METHOD, self.limits, [apart])
        outcomes = [found for _, found in explorations.values()]
        size = f"{sum(o.states for o in outcomes)} states in {sum(len(o.cells) for o in outcomes)} cells of numbers"
        reason = next((o.reason for o in outcomes if o.reason), "")
        if reason:
            return Decision(INCONCLUSIVE, METHOD, f"{reason}, after {size}")
        worlds = [e.world for e, _ in explorations.values()]
        world, taken = worlds[0], set().union(*(w.taken for w in worlds))
        if not (self._one_run and one_run_tells(prop, self._handlers)):
            return Decision(BOUNDED, METHOD, "runs of a handler can build on each other: one at a time was followed")
        if any(w.truncated for w in worlds) or any(e.loops for e, _ in explorations.values()):
            return Decision(BOUNDED, METHOD, f"holds for {ROUNDS} rounds of each loop on neighbouring pages, {size}")
        exercised = explored(world.terms, self.system, taken)
        if not all(o.ends for o in outcomes):
            return Decision(VACUOUS, "cover", "the paths cannot both run to their end", exercised=exercised)
        says = set().union(*(o.says for o in outcomes))
        if not any(says_anything(part, world.terms, self.system, taken, says) for part in parts):
            return Decision(VACUOUS, "cover", "no run comes to a state of which the property says anything", exercised=exercised)
        decision = Decision(PROVED, f"{METHOD}, {size}", exercised=exercised)
        if self.limits.thorough and looks_at_caches(prop):
            if self._without_drops is None:
                self._without_drops = PairSession(without_drops(self.system), self.properties, self.limits)
            return replace(decision, needs_flush=self._without_drops.breaks(prop))
        return decision

    def breaks(self, prop: PropertyDecl) -> bool | None:
        """Whether some run of the witness world breaks the property, not replayed; None if that was not decided."""
        outcomes = [(part, *self._explored(part, 0.0)) for part in claims(prop)]
        if any(part.name in found.breaches for part, _, found in outcomes):
            return True
        open_ = any(found.reason or exploration.world.truncated or exploration.loops for _, exploration, found in outcomes)
        return None if open_ or not self._one_run else False

    def confirm(self, proved: list[PropertyDecl]) -> str:
        """Let the second solver decide, too, that the cells cover all numbers; what it left undecided, "" if nothing.

        Raises InternalError if it comes to another answer.
        """
        kinds = dict.fromkeys(kind_of(part) for prop in proved for part in claims(prop))
        return confirmed((self._done[kind][0].evidence() for kind in kinds), self.limits)

    def evidence(self, prop: PropertyDecl) -> list[tuple[str, list[Member]]]:
        """Of a property that was proved, for each exploration: what must be unsatisfiable, and a member of every cell."""
        kinds = dict.fromkeys(map(kind_of, claims(prop)))
        return [(exploration.evidence(), found.members) for exploration, found in (self._done[kind] for kind in kinds)]

    def repeat(self, prop: PropertyDecl, members: Sequence[Sequence[Member]]) -> str:
        """Explore again for a proof of the property, the cells of the given members only; why it is none, "" if ``evidence`` decides."""
        kinds = list(dict.fromkeys(map(kind_of, claims(prop))))
        if len(kinds) != len(members):
            return f"the property needs {len(kinds)} exploration(s), there are cells of {len(members)}"
        for kind, given in zip(kinds, members, strict=True):
            group = [p for each in self.properties for p in claims(each) if kind_of(p) == kind]
            deadline = time.monotonic() + self.limits.timeout if self.limits.timeout else 0.0
            exploration = Exploration(self.system, group, self.limits, deadline)
            found = exploration.repeat(given)
            self._done[kind] = exploration, found
            if found.reason:
                return found.reason
            if exploration.loops or exploration.world.truncated:
                return "paths with loops are not explored completely"
        decision = self.decide(prop)
        return "" if decision.verdict == PROVED else f"it is {decision.verdict}: {decision.reason}"

    def _simplest(self, world: World, breach: Breach, apart: bool) -> Scenario:
        """The start of the breach, for numbers that are easy to read. ``apart``: no two frames are one of which it is open."""
        terms = world.terms
        rigid = [v for t in self._paths for n, _ in t.program.params if isinstance(v := breach.start[t.local(n)], Term)]
        groups = [[terms.eq(v, terms.const(a, NUMBER)) for a in ADDRESSES] for v in (*rigid, breach.start["page.a.addr"])]
        groups += plain_shared(self.system, breach.start, terms)
        named = {f"wish{i}.{j}": term for i, group in enumerate(groups) for j, term in enumerate(group)}
        solver = Solver([*world.assume, breach.where], (), self.limits, list(named.items()), strategy="few")
        kept: list[str] = []
        for i, group in enumerate(groups):
            for name in (f"wish{i}.{j}" for j in range(len(group))):
                if solver.check([*kept, name], model=False).status == "sat":
                    kept.append(name)
                    break
        answer = solver.check(kept)
        model = answer.model if answer.status == "sat" else breach.model

        def plain(value: Any) -> int:
            if isinstance(value, Term):
                return evaluate([value], model)[0]
            return (next(others) if apart else other) if value == VAGUE else max(int(value), 0)

        other = FIRST_OTHER + 1  # a frame that is not the witness
        others = count(other)
        state = {name: plain(value) for name, value in breach.start.items()}
        loads = [(f.what, plain(f.key), {name: plain(value) for name, value in f.fields}) for f in breach.found]
        return scenario(self.system, self._paths, state, loads)
