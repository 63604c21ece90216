"""What of the sources the runs of an unrolling come by: a proof that nothing ran is no proof.

The solver is asked for a run that takes something not yet taken, again and again; each answer shows many. What no run of a complete
unrolling takes is unreachable. "Taken" is said of runs of the witness world, which has more runs than there are: what is called
unreachable is, what is called taken may in rare cases not be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmucheck.engines.solver import Solver
from mmucheck.engines.verdicts import Exercised, Missing
from mmucheck.ir.program import System
from mmucheck.lower.sites import merged, occurrences, sites
from mmucheck.lower.unroll import Act, Lowering, Unrolling
from mmucheck.machine.terms import Term, Terms
from mmucheck.records import record

_BEYOND = "beyond"


@record
class Coverage:
    """``goals``: for each goal true, false, or None where it was not decided."""

    exercised: Exercised
    goals: Mapping[str, bool | None]


class Exercise:
    """The questions of one unrolling; ``defined`` must be among the definitions of the solver that is asked.

    ``goals``: further conditions of which is to be known whether some run meets them; ``rounds``: how often loops were followed.
    """

    def __init__(self, lowering: Lowering, unrolling: Unrolling, rounds: int, goals: Mapping[str, Term]) -> None:
        terms = lowering.terms
        self._rounds, self._goals = rounds, tuple(goals)
        conditions = sites(terms, lowering.system, unrolling)
        self._sites = {site: f"site.{i}" for i, site in enumerate(conditions)}
        wanted = {f"goal.{name}": term for name, term in goals.items()}
        wanted |= {_BEYOND: terms.or_(*unrolling.beyond), **dict(zip(self._sites.values(), conditions.values(), strict=True))}
        self.defined = [(name, term) for name, term in wanted.items() if term is not terms.false]

    def cover(self, solver: Solver, timeout: float) -> Coverage:
        """What the runs take; ``timeout``: seconds for each question, 0 for no limit."""
        with solver.watched():
            taken, left = self._taken(solver, timeout)
        complete = _BEYOND not in taken | left
        reached = {site: name in taken for site, name in self._sites.items()}
        dead = {where for where, group in merged(reached).items() if complete and not any(self._sites[s] in taken | left for s in group)}
        missing = tuple(
            Missing(s.file, s.line, s.what, self._why(complete, name in left), s.own and (s.file, s.line, s.column) in dead)
            for s, name in self._sites.items() if name not in taken
        )  # fmt: skip
        goals: dict[str, bool | None] = {}
        for goal in self._goals:
            name = f"goal.{goal}"
            goals[goal] = True if name in taken else (False if complete and name not in left else None)
        return Coverage(Exercised(sum(reached.values()), len(reached), missing), goals)

    def _why(self, complete: bool, undecided: bool) -> str:
        if undecided:
            return "not decided within the limits"
        return "unreachable" if complete else f"not seen within {self._rounds} rounds of the loops"

    def _taken(self, solver: Solver, timeout: float) -> tuple[set[str], set[str]]:
        """(names of conditions that some run meets, names of those not decided)."""
        taken: set[str] = set()
        left = [name for name, _ in self.defined]
        while left:
            answer = solver.check([left[0]], False, timeout)
            if answer.status == "unknown":
                break
            if answer.status == "sat":
                taken.update([left[0], *(name for name, true in zip(left, solver.truth(left), strict=True) if true)])
            left = [name for name in left[1:] if name not in taken]
        return taken, set(left)


def explored(terms: Terms, system: System, taken: Iterable[Act]) -> Exercised:
    """What runs have come by that were all followed to their end, from the acts that they took."""
    reached = {site: term is terms.true for site, term in sites(terms, system, _as_unrolling(terms, taken)).items()}
    dead = {where for where, group in merged(reached).items() if not any(reached[s] for s in group)}
    missing = tuple(
        Missing(s.file, s.line, s.what, "unreachable", s.own and (s.file, s.line, s.column) in dead)
        for s, there in reached.items() if not there
    )  # fmt: skip
    return Exercised(sum(reached.values()), len(reached), missing)


def occurs(terms: Terms, system: System, taken: Iterable[Act], event: str) -> bool:
    """Whether an act is among them with which ``event`` could come about."""
    return occurrences(terms, system, _as_unrolling(terms, taken), event) is terms.true


def _as_unrolling(terms: Terms, taken: Iterable[Act]) -> Unrolling:
    return Unrolling(taken={act: [terms.true] for act in taken})
