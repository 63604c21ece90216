"""Which numbers go on as which where a path comes to the head of a loop, and numbers outside the cells seen so far.

A question to the solver is asked once: what it answers is remembered by the comparisons that it rests on, for all cells alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mmucheck.engines.cells import Cell, Exhausted
from mmucheck.engines.solver import Limits, Solver
from mmucheck.lower.crowd import MemberWorld
from mmucheck.machine.terms import Term, Terms, evaluate

Truths = frozenset[tuple[Term, bool]]
Model = dict[str, int]
KEPT = 64
"""Models that are kept for one question."""


@dataclass
class _Passage:
    """What is known of one way to come to a head: comparisons (before, behind) that are never so together, and models of what is."""

    never: list[tuple[Truths, Truths]] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)


class Joins:
    """Answers for the cells of any exploration of the same paths. ``deadline``: of the clock that never goes back, 0.0 for none."""

    def __init__(self, limits: Limits) -> None:
        self.terms = Terms()
        self._limits, self.deadline = limits, 0.0
        self._passages: dict[tuple[object, ...], _Passage] = {}
        self._numbers: dict[tuple[str, int], list[Model]] = {}

    def may_join(self, world: MemberWorld, stands: Sequence[tuple[str, Term]], kept: frozenset[str], one: Cell[MemberWorld],
                 other: Cell[MemberWorld], aligned: dict[str, int]) -> bool:  # fmt: skip
        """Whether numbers of a cell may be such as they are in another, where of the path's own variables those ``kept`` stay what they
        are, and those that stand for something are that. Raises Exhausted if a limit is reached."""
        for term, true in one.truths.items():
            if other.truths.get(term, true) != true and not world.own((term,)) - kept:
                return False
        key = (tuple(world.assume), tuple(stands), kept, tuple(aligned[n] for n, _ in stands))
        known = self._passages.setdefault(key, _Passage())
        before, behind = frozenset(one.truths.items()), frozenset(other.truths.items())
        if any(b <= before and o <= behind for b, o in known.never):
            return False
        own = world.own([*one.truths, *other.truths, *world.assume, *(t for _, t in stands)]) | {n for n, _ in stands}
        fresh = {world.number(n): world.number(n + "'") for n in sorted(own - kept)}
        moved = dict(zip(other.truths, self.terms.substitute(list(other.truths), fresh), strict=True))
        sides = self.terms.and_(one.condition(), *(t if other.truths[c] else self.terms.not_(t) for c, t in moved.items()))
        equal = [world.aligned(fresh[world.number(n)], n, aligned) for n, _ in stands]
        hard = [*world.assume, *self.terms.substitute(world.assume, fresh)]
        hard += [self.terms.eq(e, t) for e, (_, t) in zip(equal, stands, strict=True)]
        if all(evaluate([sides, *hard], self._guess(one, other, stands, own - kept))) or any(evaluate([sides], m)[0] for m in known.models):
            return True
        named = [(f"before{i}", t if true else self.terms.not_(t)) for i, (t, true) in enumerate(one.truths.items())]
        named += [(f"behind{i}", t if other.truths[c] else self.terms.not_(t)) for i, (c, t) in enumerate(moved.items())]
        solver = Solver(hard, named, self._limits, strategy="few")
        answer = solver.check([n for n, _ in named], timeout=self._remaining())
        if answer.status == "unknown":
            raise Exhausted(answer.reason)
        if answer.status == "sat":
            known.models.append(answer.model)
            del known.models[:-KEPT]
            return True
        core = {n for n, _ in answer.core}
        known.never.append((
            frozenset(x for i, x in enumerate(one.truths.items()) if f"before{i}" in core),
            frozenset(x for i, x in enumerate(other.truths.items()) if f"behind{i}" in core),
        ))  # fmt: skip
        return False

    def _guess(self, one: Cell[MemberWorld], other: Cell[MemberWorld], stands: Sequence[tuple[str, Term]], free: frozenset[str]) -> Model:
        """The members of the two cells, as far as both can be."""
        values = dict(zip((n for n, _ in stands), evaluate([t for _, t in stands], one.model), strict=True))
        return one.model | {n + "'": values.get(n, other.model.get(n, 0)) for n in free}

    def outside(self, world: MemberWorld, segment: int, cells: Iterable[Cell[MemberWorld]]) -> Model | None:
        """Numbers in none of the cells of a segment, None if there are none. Raises Exhausted if a limit is reached."""
        asked = [*world.assume, *(self.terms.not_(c.condition()) for c in cells)]
        if any(t is self.terms.false for t in asked):
            return None
        known = self._numbers.setdefault((world.me.program.name, segment), [])
        for model in known:
            if all(evaluate(asked, model)):
                return model
        answer = Solver(asked, (), self._limits, strategy="few").check(timeout=self._remaining())
        if answer.status == "unknown":
            raise Exhausted(answer.reason)
        if answer.status == "unsat":
            return None
        known.append(answer.model)
        return answer.model

    def _remaining(self) -> float:
        return max(0.001, self.deadline - time.monotonic()) if self.deadline else 0.0
