"""Deciding every two of many paths at once: as one crowd (mmucheck.engines.crowd), in which some paths never run beside each other.

What is proved of two threads that run any of the paths, any number of times, is proved of any two paths that may run beside each other.
A path that the crowd cannot do for is asked beside the others by itself, half of them at a time, and left out of the crowd.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from mmucheck.engines.cells import Exhausted
from mmucheck.engines.claims import claims_of, kind_of
from mmucheck.engines.crowd import METHOD, Exploration
from mmucheck.engines.forms import unknown_variable
from mmucheck.engines.members import Blamed, Member
from mmucheck.engines.solver import Limits
from mmucheck.engines.threads import out_of_reach
from mmucheck.engines.verdicts import PROVED, Decision
from mmucheck.ir.overlap import excluding
from mmucheck.ir.program import PropertyDecl, System

Pair = tuple[int, int]
"""Numbers of two paths, the first not greater."""
Heard = Callable[[str], None]
LEAST = 5.0
"""Seconds that any exploration has."""
SHARES = 3
"""Into so many parts the time that is left is cut: one is for the exploration at hand."""


@dataclass
class Joint:
    """What came of it: the decision of every pair that is ``proved``; ``out``: why a path, or a pair, is not."""

    proved: dict[Pair, Decision] = field(default_factory=dict)
    out: dict[int | Pair, str] = field(default_factory=dict)


def decide_jointly(system: System, wanted: Collection[Pair], prop: PropertyDecl, limits: Limits, seconds: float,
                   heard: Heard = lambda _: None) -> Joint:  # fmt: skip
    """Which of the ``wanted`` pairs of the system's threads keep the property, as far as crowds tell within so many seconds (0 for no
    limit); of the others nothing is said."""
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
    found = {p: _Found() for p in wanted if not joint.out.keys() & set(p)}
    end = time.monotonic() + seconds if seconds else 0.0
    for of_kind in parts.values():
        search = _Search(system, of_kind, limits, end, joint.out, heard)
        kept = search.run(set(found))
        ends, says = search.ends_and_says({i for pair in kept for i in pair})
        found = {
            pair: _Found(found[pair].says or bool(says & set(pair)), found[pair].states + states, found[pair].cells + cells,
                         max(found[pair].paths, paths))
            for pair, (states, cells, paths) in kept.items() if set(pair) <= ends
        }  # fmt: skip
    for pair, how in sorted(found.items()):
        if how.says:
            size = f"{how.states} states in {how.cells} cells of numbers"
            text = f"{METHOD}: two threads, any number of runs of each path beside the other, {how.paths} paths together; {size}"
            joint.proved[pair] = Decision(PROVED, text)
    return joint


@dataclass
class _Found:
    """Of a pair that is proved as far as was asked: whether a claim says anything, and how large the crowds were."""

    says: bool = False
    states: int = 0
    cells: int = 0
    paths: int = 0


Size = tuple[int, int, int]
"""Of a crowd: states, cells, paths."""


class _Search:
    """Crowds of the paths of a system, and of some of them, until each pair is proved or in doubt by itself. ``out``: gets the reasons."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], limits: Limits, end: float, out: dict[int | Pair, str],
                 heard: Heard) -> None:  # fmt: skip
        self._system, self._properties, self._limits = system, properties, limits
        self._end, self._out, self._heard = end, out, heard
        paths = system.threads
        self._excluded = {
            (i, j) for i, one in enumerate(paths) for j in range(i, len(paths)) if excluding(one, paths[j], system.locks)
        }  # fmt: skip

    def run(self, pairs: set[Pair]) -> dict[Pair, Size]:
        """Those of the pairs that are proved, each with the crowd it was proved in."""
        if not pairs:
            return {}
        proved: dict[Pair, Size] = {}
        self._numbers = numbers = sorted({i for pair in pairs for i in pair})
        system = replace(self._system, threads=tuple(self._system.threads[i] for i in numbers), crowd=True)
        self._crowd = crowd = _Crowd(system, self._properties, self._limits, 0.0, self._heard)
        left = set(pairs)
        while left and not self._is_over():
            reason = self._explored(left, self._excluded)
            if not reason:
                return proved | dict.fromkeys(left, self._size(left))
            blamed = numbers[crowd.blamed.bit_length() - 1] if crowd.blamed else None
            if blamed is None and not crowd.outcome.members:
                self._out.update(dict.fromkeys(numbers, reason))  # the argument does not apply
                return proved
            if blamed is None:  # a limit, or nobody who can be named: go on with the half that has the fewest states
                out = self._largest(left)
                self._out.update(dict.fromkeys(out, reason))
            else:
                out = {blamed}
                self._heard(f"{len({i for p in left for i in p})} paths together: {reason}; it is asked beside the others")
                for star in self._halves([p for p in sorted(left) if blamed in p]):
                    proved |= star
            left = {p for p in left if not out & set(p)}
        return proved

    def _halves(self, pairs: list[Pair]) -> Iterator[dict[Pair, Size]]:
        """The pairs of one path: those that are proved together, or by halves."""
        if not pairs or self._is_over():
            return
        reason = self._explored(pairs)
        if not reason:
            yield dict.fromkeys(pairs, self._size(pairs))
        elif len(pairs) == 1:
            self._out[pairs[0]] = reason
        else:
            middle = len(pairs) // 2
            yield from self._halves(pairs[:middle])
            yield from self._halves(pairs[middle:])

    def _explored(self, pairs: Collection[Pair], besides: Collection[Pair] = (), alone: bool = False) -> str:
        """Why a crowd does not prove the pairs, "" if it does: only they run beside each other, and those that locks keep apart may try
        to (``besides``): who sees the deeds of all others shares all that is known of what comes of them. All crowds are parts of one,
        which knows from each what the steps of its paths do. ``alone``: nobody runs beside anybody."""
        crowd, numbers = self._crowd, self._numbers
        running, allowed = {i for pair in pairs for i in pair}, {*pairs, *besides} if not alone else set()
        crowd.apart = [_bits(numbers, {j for j in numbers if not {(min(i, j), max(i, j))} & allowed}) for i in numbers]
        crowd.skip = _bits(numbers, set(numbers) - running)
        now = time.monotonic()
        crowd.deadline = now + max(LEAST, (self._end - now) / SHARES) if self._end else 0.0
        crowd.blamed = 0
        return crowd.run().reason

    def _size(self, pairs: Collection[Pair]) -> Size:
        return self._crowd.explored, self._crowd.outcome.cells, len({i for pair in pairs for i in pair})

    def _is_over(self) -> bool:
        return bool(self._end) and time.monotonic() > self._end

    def _largest(self, pairs: Collection[Pair]) -> set[int]:
        """The paths with the most states: half of all states, one path at least."""
        crowd, numbers = self._crowd, self._numbers
        running = {i for pair in pairs for i in pair}
        sizes = sorted((sum(c.states for c in m.cells), i) for i, m in zip(numbers, crowd.outcome.members, strict=True) if i in running)
        room, out = sum(size for size, _ in sizes) // 2, set()
        for size, i in sizes:
            room -= size
            if room < 0 or i == sizes[-1][1]:
                out.add(i)
        return out

    def ends_and_says(self, paths: Collection[int]) -> tuple[set[int], set[int]]:
        """The paths that can run to their end, and those on whose way a claim says something, each alone and by itself: that one can
        with the help of a third says nothing of two. Only claims are counted that say so by their form."""
        ends: set[int] = set()
        says: set[int] = set()
        for i in sorted(paths):
            self._heard(f"{len(paths)} paths together are proved: can each of them run?")
            self._crowd.sees_enough = True
            self._explored([(i, i)], alone=True)
            self._crowd.sees_enough = False
            outcome = self._crowd.outcome
            ends |= {i} if outcome.members[self._numbers.index(i)].ends else set()
            says |= {i} if outcome.says else set()
        return ends, says


class _Crowd(Exploration):
    """An exploration that ends at the first state that it cannot do for. ``blamed``: whose that was, as a bit; ``sees_enough``: it ends,
    too, where a path has been seen to end and a property to say something."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], limits: Limits, deadline: float, heard: Heard) -> None:
        super().__init__(system, properties, limits, deadline)
        self.blamed, self.sees_enough = 0, False
        self._heard = heard

    @property
    def explored(self) -> int:
        """How many states the last exploration had."""
        return self.outcome.states - self._before

    def _explore(self) -> None:
        try:
            super()._explore()
        except Blamed as found:
            self.blamed = found.doer
            raise

    def _follow_all(self, member: Member) -> None:
        super()._follow_all(member)
        if self.sees_enough and member.ends and self.outcome.says:
            raise Exhausted("enough is seen")

    def _within_limits(self) -> None:
        super()._within_limits()
        self._heard(f"{len(self._running())} paths together, {self.explored} states")

    def _alarm(self, name: str, doer: int, where: str) -> None:
        """What a thread sees that runs nothing, the one that does it sees, too: that one is to blame, unless it is about the end."""
        if doer or self._around.counts_runs:
            raise Blamed(f"in doubt ({where})", doer)


def _bits(numbers: Sequence[int], some: Collection[int]) -> int:
    return sum(1 << place for place, i in enumerate(numbers) if i in some)
