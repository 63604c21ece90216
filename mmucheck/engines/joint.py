"""Deciding every two of many paths at once: as one crowd (mmucheck.engines.crowd), in which some paths never run beside each other.

What is proved of two threads that run any of the paths, any number of times, is proved of any two paths that may run beside each other.
What the crowd cannot do for is taken out of it, a pair or a path, and the rest is explored again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from mmucheck.engines.claims import claims, kind_of
from mmucheck.engines.crowd import METHOD, Blamed, Exhausted, Exploration, Member, Met
from mmucheck.engines.forms import unknown_variable
from mmucheck.engines.solver import Limits
from mmucheck.engines.threads import out_of_reach
from mmucheck.engines.verdicts import PROVED, Decision
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower.crowd import Write
from mmucheck.lower.scope import State

Pair = tuple[int, int]
"""Numbers of two paths, the first not greater."""
Heard = Callable[[str], None]
MORE = 20_000
"""States that are still explored, at least, after the first that the crowd cannot do for: there may be more such."""
SHARES = 3
"""Into so many parts the time that is left is cut: one is for the exploration at hand."""


@dataclass
class Joint:
    """What came of it: the decision of every pair that is ``proved``; ``out``: why a path, or a pair, is not with the others."""

    proved: dict[Pair, Decision] = field(default_factory=dict)
    out: dict[int | Pair, str] = field(default_factory=dict)


def decide_jointly(system: System, wanted: Collection[Pair], prop: PropertyDecl, limits: Limits, seconds: float,
                   heard: Heard = lambda _: None) -> Joint:  # fmt: skip
    """Which of the ``wanted`` pairs of the system's threads keep the property, as far as one crowd tells within so many seconds (0 for
    no limit); of the others nothing is said."""
    joint = Joint()
    if unknown_variable(system, prop):
        return joint
    for i, program in enumerate(system.threads):
        obstacle = out_of_reach(replace(system, threads=(program,)))
        if obstacle:
            joint.out[i] = obstacle
    parts: dict[tuple[bool, bool], list[PropertyDecl]] = {}
    for part in claims(prop):
        parts.setdefault(kind_of(part), []).append(part)
    left, states, cells = set(wanted), 0, 0
    says: set[Pair] = set()
    end = time.monotonic() + seconds if seconds else 0.0
    for of_kind in parts.values():
        search = _Search(system, left, of_kind, limits, end, joint.out, heard)
        crowd = search.run()
        if crowd is None:
            return joint
        left &= search.ending(crowd)
        says |= search.saying(crowd)
        states, cells = states + crowd.outcome.states, cells + crowd.outcome.cells
    size = f"{states} states in {cells} cells of numbers"
    together = len({i for pair in left for i in pair})
    for pair in sorted(left & says):
        joint.proved[pair] = Decision(PROVED, f"{METHOD}: two threads, any number of runs of each path, {together} paths together; {size}")
    return joint


class _Search:
    """Crowds of fewer and fewer pairs, until one is proved."""

    def __init__(self, system: System, wanted: Collection[Pair], properties: Sequence[PropertyDecl], limits: Limits, end: float,
                 out: dict[int | Pair, str], heard: Heard) -> None:  # fmt: skip
        self._system, self._properties, self._limits = system, properties, limits
        self._pairs, self._end, self._out, self._heard = set(wanted), end, out, heard
        self._numbers: list[int] = []
        self._written: dict[int, frozenset[Write]] = {}

    def run(self) -> _Crowd | None:
        """The first that is proved, None if there is none."""
        while True:
            left = [p for p in self._pairs if p not in self._out and p[0] not in self._out and p[1] not in self._out]
            self._numbers = sorted({i for pair in left for i in pair})
            if not left or (self._end and time.monotonic() > self._end):
                return None
            self._pairs = set(left)
            deadline = time.monotonic() + (self._end - time.monotonic()) / SHARES if self._end else 0.0
            system = replace(self._system, threads=tuple(self._system.threads[i] for i in self._numbers), crowd=True)
            crowd = _Crowd(system, self._properties, self._limits, deadline, self._apart(), self._heard)
            crowd.written = [self._written.get(i, frozenset()) for i in self._numbers]
            reason = crowd.run().reason
            if not crowd.blamed and not reason:
                return crowd
            self._written |= dict(zip(self._numbers, crowd.written, strict=True))
            known = len(self._out)
            if crowd.blamed:
                self._blame(crowd)
            if len(self._out) == known:
                self._relieve(crowd, reason)
            self._heard(f"{len(self._numbers)} paths together, {crowd.outcome.states} states: {_last(self._out)}")

    def _apart(self) -> list[int]:
        """For each path of the crowd those, as bits, that are not to run beside it: nobody asks, or the crowd cannot do for it."""
        return [
            sum(1 << place for place, j in enumerate(self._numbers) if (min(i, j), max(i, j)) not in self._pairs)
            for i in self._numbers
        ]  # fmt: skip

    def _blame(self, crowd: _Crowd) -> None:
        """Take out what does not go together: of each run that the crowd cannot do for, one of the paths that ran beside it; if none did,
        a path that ran before it, those whose changes of the upper level it had to reckon with, or its own."""
        often = Counter((b.doer, bit) for b in crowd.blamed for bit in _bits(b.met[0]))
        gone: set[tuple[int, int]] = set()
        alone: Blamed | None = None
        for blamed in sorted(crowd.blamed, key=lambda b: (b.met[0].bit_count(), b.met[1].bit_count())):
            others = [(blamed.doer, bit) for bit in _bits(blamed.met[0])]
            if not others:
                alone = alone or blamed
            elif not gone & set(others):
                most = max(others, key=lambda pair: often[pair])
                gone.add(most)
                self._part(*most, str(blamed))
        if alone is not None:
            before = _bits(alone.met[1] & ~alone.doer)
            upper = [1 << i for i, w in enumerate(crowd.written) if any(what == "region" for what, _ in w)]
            met = [bit for bit in upper if bit != alone.doer and self._pair(alone.doer, bit) in self._pairs] if alone.doer else []
            for bit in met if not before else ():
                self._part(alone.doer, bit, str(alone))
            if before or not met:
                self._out.setdefault(self._of(before[0] if before else alone.doer), str(alone))

    def _part(self, one: int, other: int, why: str) -> None:
        self._out.setdefault(self._pair(one, other), why)

    def _pair(self, one: int, other: int) -> Pair:
        i, j = sorted((self._of(one), self._of(other)))
        return i, j

    def _of(self, bit: int) -> int:
        return self._numbers[bit.bit_length() - 1]

    def _relieve(self, crowd: _Crowd, reason: str) -> None:
        """A limit ended it: go on without the path that has the most states."""
        sizes = [sum(len(c.seen) for c in m.cells) for m in crowd.outcome.members[1:]]
        self._out[self._numbers[sizes.index(max(sizes))]] = f"{reason}, with the most states"

    def ending(self, crowd: _Crowd) -> set[Pair]:
        """The pairs of which each path can run to its end with nobody else but the other."""
        return {p for p in self._pairs if all(self._among(m.ends, p) for m in self._both(crowd, p))}

    def saying(self, crowd: _Crowd) -> set[Pair]:
        """The pairs of which a claim says something in a state that they come to by themselves. Only claims are counted that say so by
        their form."""
        return {p for p in self._pairs if any(self._among(s, p) for m in self._both(crowd, p) for s in m.says.values())}

    def _both(self, crowd: _Crowd, pair: Pair) -> list[Member]:
        return [crowd.outcome.members[1 + self._numbers.index(i)] for i in pair]

    def _among(self, met: set[int], pair: Pair) -> bool:
        own = sum(1 << self._numbers.index(i) for i in set(pair))
        return any(not m & ~own for m in met)


class _Crowd(Exploration):
    """An exploration that goes on for a while after a state that it cannot do for, to find more such. ``blamed``: those."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], limits: Limits, deadline: float, apart: Sequence[int],
                 heard: Heard) -> None:  # fmt: skip
        super().__init__(system, properties, limits, deadline, apart)
        self.blamed: list[Blamed] = []
        self._enough = 0
        self._heard = heard

    def _begin(self) -> None:
        super()._begin()
        self.blamed, self._enough = [], 0

    def _explore(self) -> None:
        for path in range(len(self.outcome.members) - 1):  # all at once: what they write, and what goes wrong, is known sooner
            self._begin_cell(path)
        super()._explore()

    def _within_limits(self) -> None:
        super()._within_limits()
        if self._enough and self.outcome.states > self._enough:
            raise Exhausted("enough is known")
        self._heard(f"{len(self._crowd.system.threads)} paths together, {self.outcome.states} states")

    def _next(self, member: Member, number: int, state: State) -> None:
        try:
            super()._next(member, number, state)
        except Blamed as found:
            self._note(found)

    def _put(self, member: Member, number: int, state: State, met: Met) -> None:
        try:
            super()._put(member, number, state, met)
        except Blamed as found:
            self._note(found)

    def _alarm(self, name: str, member: Member, state: State, met: Met) -> None:
        raise Blamed(f"in doubt ({self._where(member.world, state)})", member.bit, met)

    def _note(self, found: Blamed) -> None:
        self.blamed.append(found)
        self._enough = self._enough or 2 * self.outcome.states + MORE


def _bits(mask: int) -> list[int]:
    """The powers of two in it."""
    return [1 << i for i in range(mask.bit_length()) if mask >> i & 1]


def _last(out: dict[int | Pair, str]) -> str:
    return next(reversed(out.values()), "")
