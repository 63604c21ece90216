"""A propositional solver for searches that ask thousands of small questions. Nothing it says is believed unchecked.

The clauses come from the decision procedure's own bit-blasting; a SAT solver then answers in a fraction of a millisecond what costs
the decision procedure several. Its answers only guide IC3; the invariant that comes out is decided again by the decision procedure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmucheck.engines.solver import Literal, to_cnf
from mmucheck.lower.smtlib import bit
from mmucheck.machine.domain import BOOL
from mmucheck.machine.terms import Term


class Search:
    """One set of assertions and named definitions, asked under assumptions."""

    def __init__(self, assertions: Iterable[Term], defined: Sequence[tuple[str, Term]]) -> None:
        from pysat.solvers import Solver as Sat

        clauses, self._numbers = to_cnf(assertions, defined)
        self._top = max((abs(x) for c in clauses for x in c), default=0)
        self._sat: Any = Sat(name="glucose3", bootstrap_with=clauses)
        self._model: set[int] = set()
        self._asked: dict[int, Literal] = {}

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            self._top += 1
            number = self._numbers[name] = self._top
        return number

    def _literal(self, literal: Literal) -> int:
        return self._number(literal[0]) if literal[1] else -self._number(literal[0])

    def add_clause(self, literals: Iterable[Literal]) -> None:
        self._sat.add_clause([self._literal(x) for x in literals])

    def satisfiable(self, assumptions: Iterable[Literal]) -> bool:
        """Whether the assumptions can hold together; ``truth`` or ``core`` then tells more."""
        self._asked = {self._literal(x): x for x in assumptions}
        found = bool(self._sat.solve(assumptions=list(self._asked)))
        self._model = set(self._sat.get_model() or ()) if found else set()
        return found

    def core(self) -> frozenset[Literal]:
        """Assumptions of the last question that cannot hold together."""
        return frozenset(self._asked[x] for x in self._sat.get_core() or ())

    def truth(self, name: str) -> bool:
        return self._number(name) in self._model

    def values(self, variables: Iterable[Term]) -> list[Literal]:
        """The bits of variables as they are in the model."""
        names = [n for v in variables for n in ([v.name] if v.sort == BOOL else [bit(v.name, i) for i in range(v.sort)])]
        return [(n, self.truth(n)) for n in names if n in self._numbers]
