"""Cells of numbers: what an exploration for one choice of the numbers says of all that compare alike, and that the cells are all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import InternalError
from mmucheck.machine.terms import Term, Terms, evaluate


class Exhausted(Exception):
    """A limit is used up, or the argument does not apply. The text says which."""


class World(Protocol):
    """What is explored in a cell."""

    terms: Terms


W = TypeVar("W", bound=World)


@dataclass
class Cell(Generic[W]):
    """An exploration: its member of the rigid variables, and the comparisons it depends on with their truth."""

    world: W
    model: dict[str, int]
    truths: dict[Term, bool] = field(default_factory=dict)

    def truth(self, term: Term) -> bool:
        """The truth of a comparison for the member, noted."""
        found = self.truths.get(term)
        if found is None:
            found = self.truths[term] = bool(evaluate([term], self.model)[0])
        return found

    def condition(self) -> Term:
        """True of exactly the members."""
        terms = self.world.terms
        return terms.and_(*(t if true else terms.not_(t) for t, true in self.truths.items()))


def confirmed(texts: Iterable[str], limits: Limits) -> str:
    """Let the second solver decide, too, that there are no numbers outside the cells; what it left undecided, "" if nothing.

    Raises InternalError if it comes to another answer.
    """
    from mmucheck.engines.second import decide_text

    for text in texts:
        answer = decide_text(text, limits.confirm, limits)
        if answer == "sat":
            raise InternalError(f"{limits.confirm} finds numbers that no cell covers")
        if answer != "unsat":
            return f"{limits.confirm} did not decide whether the cells cover all numbers within the limits"
    return ""
