"""Deciding every two of many paths at once: as one crowd (mmucheck.engines.crowd), in which some paths never run beside each other.

What is proved of two threads that run any of the paths, any number of times, is proved of any two paths that may run beside each other.
What the crowd cannot do for is taken out of it, a pair or a path, and the rest is explored again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from mmucheck.engines.cells import Exhausted
from mmucheck.engines.claims import claims_of, kind_of
from mmucheck.engines.crowd import METHOD, Exploration
from mmucheck.engines.forms import unknown_variable
from mmucheck.engines.members import Blamed, Member, Met
from mmucheck.engines.solver import Limits
from mmucheck.engines.threads import out_of_reach
from mmucheck.engines.verdicts import PROVED, Decision
from mmucheck.ir.overlap import Held
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower.crowd import ENTRY
from mmucheck.lower.scope import State

Pair = tuple[int, int]
"""Numbers of two paths, the first not greater."""
Heard = Callable[[str], None]
MORE = 20_000
"""States that are still explored, at least, after the last for which pairs were set apart: there may be more such."""
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
    for part in claims_of(prop, system):
        parts.setdefault(kind_of(part), []).append(part)
    left, states, cells = set(wanted), 0, 0
    says: set[int] = set()
    end = time.monotonic() + seconds if seconds else 0.0
    for of_kind in parts.values():
        search = _Search(system, left, of_kind, limits, end, joint.out, heard)
        crowd = search.run()
        if crowd is None:
            return joint
        ends, saying = search.ends_and_says()
        left = {(i, j) for i, j in search.pairs if i in ends and j in ends}
        says |= saying
        states, cells = states + crowd.outcome.states, cells + crowd.outcome.cells
    size = f"{states} states in {cells} cells of numbers"
    together = len({i for pair in left for i in pair})
    for pair in sorted(p for p in left if says & set(p)):
        joint.proved[pair] = Decision(PROVED, f"{METHOD}: two threads, any number of runs of each path, {together} paths together; {size}")
    return joint


class _Search:
    """Crowds of fewer and fewer pairs, until one is proved."""

    def __init__(self, system: System, wanted: Collection[Pair], properties: Sequence[PropertyDecl], limits: Limits, end: float,
                 out: dict[int | Pair, str], heard: Heard) -> None:  # fmt: skip
        self._system, self._properties, self._limits = system, properties, limits
        self.pairs, self._end, self.out, self._heard = {p for p in wanted if not out.keys() & {p, *p}}, end, out, heard
        self._numbers = sorted({i for pair in self.pairs for i in pair})

    def run(self) -> _Crowd | None:
        """The first that is proved, None if there is none."""
        system = replace(self._system, threads=tuple(self._system.threads[i] for i in self._numbers), crowd=True)
        crowd = _Crowd(system, self._properties, self._limits, 0.0, self._blame, self._heard)
        while self.pairs and not (self._end and time.monotonic() > self._end):
            crowd.apart, crowd.skip = self._apart(), self._bits(set(range(len(self._system.threads))) - self.paths)
            crowd.deadline = time.monotonic() + (self._end - time.monotonic()) / SHARES if self._end else 0.0
            reason = crowd.run().reason
            if not crowd.outcome.members:
                self.out |= dict.fromkeys(self._numbers, reason)  # the argument does not apply
                return None
            if not crowd.blamed and not reason:
                return crowd
            known, size = len(self.out), len(self.paths)
            if crowd.blamed and not crowd.parted:
                self._blame_path(crowd)
            if len(self.out) == known and not crowd.parted:
                self._relieve(crowd, reason)
            self.pairs = {p for p in self.pairs if not self.out.keys() & {p, *p}}
            self._heard(f"{size} paths together, {crowd.outcome.states} states: {_last(self.out)}")
        return None

    @property
    def paths(self) -> set[int]:
        """Those that some pair is left of."""
        return {i for pair in self.pairs for i in pair}

    def _bits(self, paths: Collection[int]) -> int:
        return sum(1 << place for place, i in enumerate(self._numbers) if i in paths)

    def _apart(self) -> list[int]:
        """For each path of the crowd those, as bits, that are not to run beside it: nobody asks, or the crowd cannot do for it."""
        return [self._bits({j for j in self._numbers if (min(i, j), max(i, j)) not in self.pairs}) for i in self._numbers]

    def _blame(self, crowd: _Crowd, blamed: Blamed) -> list[tuple[int, int]]:
        """Which pairs to set apart for a run that the crowd cannot do for: its path and those that write the pages it writes under other
        locks; else one of the paths that ran beside it. Whatever is set apart, what is proved of the rest is proved: this is only about how
        much that is."""
        beside = _bits(blamed.met[0])
        if any(self._pair(blamed.doer, bit) in self.out for bit in beside):
            return []  # it would not have come to that
        chosen = self._in_the_way(crowd, blamed.doer, "page")
        if any(self._pair(blamed.doer, bit) in self.out for bit in chosen):
            return []
        if not chosen and beside:
            chosen = [max(beside, key=lambda bit: sum(self._of(bit) in p for p in self.out if isinstance(p, tuple)))]
        for bit in chosen:
            self.out.setdefault(self._pair(blamed.doer, bit), str(blamed))
        return [(blamed.doer, bit) for bit in chosen]

    def _blame_path(self, crowd: _Crowd) -> None:
        """The same for a run beside which nobody ran: one of the paths that ran before it, or who writes the regions it looks at; else its
        own path."""
        alone = min((b for b in crowd.blamed if not b.met[0]), key=lambda b: b.met[1].bit_count(), default=None)
        if alone is None or not alone.doer | alone.met[1]:
            return
        before, upper = _bits(alone.met[1] & ~alone.doer), self._in_the_way(crowd, alone.doer, "region")
        for bit in upper if not before else ():
            self.out.setdefault(self._pair(alone.doer, bit), str(alone))
        if before or not upper:
            self.out.setdefault(self._of(before[0] if before else alone.doer), str(alone))

    def _in_the_way(self, crowd: _Crowd, doer: int, what: str) -> list[int]:
        """The paths that write pages, or regions, under no lock under which a path writes such itself; of pages none, if it does not."""
        if not doer:
            return []
        written = [{locks for of, locks in w if of == what} for w in crowd.written]
        mine = written[doer.bit_length() - 1]
        if not mine and what == "page":
            return []
        return [
            1 << i for i, theirs in enumerate(written)
            if 1 << i != doer and self._pair(doer, 1 << i) in self.pairs and any(not any(_exclude(w, own) for own in mine) for w in theirs)
        ]  # fmt: skip

    def _pair(self, one: int, other: int) -> Pair:
        i, j = sorted((self._of(one), self._of(other)))
        return i, j

    def _of(self, bit: int) -> int:
        return self._numbers[bit.bit_length() - 1]

    def _relieve(self, crowd: _Crowd, reason: str) -> None:
        """A limit ended it: go on with the paths that have the fewest states, half of them together; the next has less time."""
        members = [(sum(len(c.seen) for c in m.cells), number) for number, m in enumerate(crowd.outcome.members[1:])]
        sizes = sorted(m for m in members if self._numbers[m[1]] in self.paths)
        room = sum(size for size, _ in sizes) // 2
        for size, number in sizes:
            room -= size
            if room < 0 or number == sizes[-1][1]:
                self.out[self._numbers[number]] = f"{reason}: it is one of those with the most states"

    def ends_and_says(self) -> tuple[set[int], set[int]]:
        """The paths that can run to their end, and those on whose way a claim says something, each alone and by itself: that one can
        with the help of a third says nothing of two. Only claims are counted that say so by their form."""
        ends: set[int] = set()
        says: set[int] = set()
        for i in sorted(self.paths):
            self._heard(f"{len(self.paths)} paths together are proved: can each of them run?")
            alone = _Alone(replace(self._system, threads=(self._system.threads[i],), crowd=True), self._properties, self._limits, self._end)
            outcome = alone.run()
            ends |= {i} if outcome.members[1].ends else set()
            says |= {i} if outcome.says else set()
        return ends, says


class _Alone(Exploration):
    """The exploration of one path until it is seen to end and a property to say something."""

    def _within_limits(self) -> None:
        super()._within_limits()
        if self.outcome.members[1].ends and self.outcome.says:
            raise Exhausted("enough is seen")


Blame = Callable[["_Crowd", Blamed], list[tuple[int, int]]]
"""Says which pairs, as bits, are not to run beside each other any more."""


class _Crowd(Exploration):
    """An exploration that goes on after a state that it cannot do for, with pairs set apart, to find more such. ``blamed``: those;
    ``parted``: whether pairs were."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], limits: Limits, deadline: float, blame: Blame,
                 heard: Heard) -> None:  # fmt: skip
        super().__init__(system, properties, limits, deadline)
        self.blamed: list[Blamed] = []
        self.parted = False
        self._enough = 0
        self._blame, self._heard = blame, heard

    def _begin(self) -> None:
        super()._begin()
        self.blamed, self.parted, self._enough = [], False, 0

    def _explore(self) -> None:
        for member in self._running():  # all at once: what they write, and what goes wrong, is known sooner
            self._begin_cell(member, ENTRY)
        super()._explore()

    def _taken_for_granted(self) -> None:
        """Not asked once something is blamed: it is explored again in any case, with what is known then of who writes what."""
        if not self.blamed:
            super()._taken_for_granted()
        else:
            self.written = self._all_written()

    def _within_limits(self) -> None:
        super()._within_limits()
        if self._enough and self.outcome.states > self._enough:
            raise Exhausted("enough is known")
        self._heard(f"{len(self._running())} paths together, {self.outcome.states - self._before} states")

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
        """From now on nothing that one of a pair set apart does is seen by the other; what it has seen already goes with the next round."""
        self.blamed.append(found)
        for one, other in self._blame(self, found):
            self.parted, self._enough = True, self.outcome.states + (self.outcome.states - self._before) // 4 + MORE
            for mine, theirs in ((one, other), (other, one)):
                member = self.outcome.members[mine.bit_length()]
                member.beside &= ~theirs
        self._enough = self._enough or self.outcome.states + (self.outcome.states - self._before) // 4 + MORE


def _exclude(one: Held, other: Held) -> bool:
    """Whether two threads that hold these locks never do so at the same time."""
    return any(n == m and not how == mode == "read" for n, how in one for m, mode in other)


def _bits(mask: int) -> list[int]:
    """The powers of two in it."""
    return [1 << i for i in range(mask.bit_length()) if mask >> i & 1]


def _last(out: dict[int | Pair, str]) -> str:
    return next(reversed(out.values()), "")
