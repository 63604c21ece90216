"""A propositional solver for searches that ask thousands of small questions. Nothing it says is believed unchecked.

The clauses come from the decision procedure's own bit-blasting; a SAT solver then answers in a fraction of a millisecond what costs
the decision procedure several. Its answers only guide IC3; the invariant that comes out is decided again by the decision procedure.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from typing import Any

from mmucheck.engines.solver import to_cnf
from mmucheck.engines.verdicts import OutOfBudget
from mmucheck.lower.narrow import Narrow
from mmucheck.lower.smtlib import bit
from mmucheck.machine.domain import BOOL
from mmucheck.machine.terms import Term

CONFLICTS = 2_000
"""After so many the clock is looked at: a few milliseconds."""


class Budget:
    """What a search may still spend: ``seconds`` of wall time, ``propagations`` of the SAT solver; 0 is no limit."""

    def __init__(self, seconds: float = 0.0, propagations: int = 0) -> None:
        self._deadline = time.monotonic() + seconds if seconds else 0.0
        self.counted = propagations > 0
        self.left = propagations

    def check(self) -> None:
        """Raises OutOfBudget when nothing is left."""
        if self.counted and self.left <= 0:
            raise OutOfBudget("resource limit")
        if self._deadline and time.monotonic() > self._deadline:
            raise OutOfBudget("timeout")


class Search:
    """One set of assertions and named definitions, asked under assumptions. A ``seed`` other than 0 shuffles the order of search;
    ``narrow``: on formulas of fewer bits (mmucheck.lower.narrow)."""

    def __init__(
        self, assertions: Iterable[Term], defined: Sequence[tuple[str, Term]], seed: int = 0, narrow: bool = False
    ) -> None:
        from pysat.solvers import Solver as Sat

        if narrow:
            assertions, terms = list(assertions), [t for _, t in defined]
            shrink = Narrow([*assertions, *terms])
            assertions, defined = shrink(assertions), list(zip((n for n, _ in defined), shrink(terms), strict=True))
        clauses, self._numbers = to_cnf(assertions, defined)
        self._top = max((abs(x) for c in clauses for x in c), default=0)
        if seed:
            random.Random(seed).shuffle(clauses)
        self._sat: Any = Sat(name="glucose3", bootstrap_with=clauses)
        if seed:
            signs = random.Random(seed)
            self._sat.set_phases([x if signs.random() < 0.5 else -x for x in range(1, self._top + 1)])
        self._spent = 0

    def number(self, name: str) -> int:
        """The variable of a name; a new one if nothing has that name. Negated, it is the literal that denies it."""
        number = self._numbers.get(name)
        if number is None:
            self._top += 1
            number = self._numbers[name] = self._top
        return number

    def fresh(self) -> int:
        """A variable of which nothing is said."""
        self._top += 1
        return self._top

    def bits(self, variables: Iterable[Term]) -> list[int]:
        """The variables that stand for the bits of terms' variables, so far as any clause has them."""
        names = [n for v in variables for n in ([v.name] if v.sort == BOOL else [bit(v.name, i) for i in range(v.sort)])]
        return [self._numbers[n] for n in names if n in self._numbers]

    def add_clause(self, literals: list[int]) -> None:
        self._sat.add_clause(literals)

    def satisfiable(self, assumptions: list[int], budget: Budget) -> bool:
        """Whether the assumptions can hold together; ``values`` or ``core`` then tells more. Raises OutOfBudget."""
        found: bool | None = None
        while found is None:
            budget.check()
            if budget.counted:
                self._sat.prop_budget(budget.left)
            self._sat.conf_budget(CONFLICTS)
            found = self._sat.solve_limited(assumptions=assumptions)
            if budget.counted:
                spent = self._sat.accum_stats()["propagations"]
                budget.left -= max(1, spent - self._spent)
                self._spent = spent
        return found

    def core(self) -> frozenset[int]:
        """Assumptions of the last question that cannot hold together."""
        return frozenset(self._sat.get_core() or ())

    def values(self, variables: list[int]) -> list[int]:
        """Each variable as it is in the model: itself, or negated. One that the model leaves out is false."""
        model = self._sat.get_model()
        return [v if v <= len(model) and model[v - 1] > 0 else -v for v in variables]
