"""Proofs for programs with loops: an inductive invariant at every loop head.

The invariant comes from a search that is not believed (mmucheck.engines.ic3). ``check_invariant`` decides initiation, consecution and
safety on the formulas as they are, with fresh solvers that share nothing with the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmucheck.engines.ic3 import Cube, Cubes, GaveUp, Ic3
from mmucheck.engines.search import Budget
from mmucheck.engines.solver import Limits, decide_once
from mmucheck.engines.verdicts import InternalError, OutOfBudget
from mmucheck.ir.program import PropertyDecl
from mmucheck.lower.cuts import CutSystem
from mmucheck.lower.unroll import Lowering
from mmucheck.machine.terms import Term
from mmucheck.records import record


@record
class Proof:
    """``invariant``: the clauses as text, or None. ``exhausted``: the method itself gave up (not a limit of time)."""

    invariant: tuple[str, ...] | None
    reason: str = ""
    exhausted: bool = False


class Induction:
    """Invariants of one system, for all its properties; the conjunction of all that are found is inductive, too, and checked once."""

    def __init__(self, lowering: Lowering, properties: Sequence[PropertyDecl], limits: Limits) -> None:
        self.system = CutSystem(lowering)
        self.properties, self.limits = tuple(properties), limits
        self._searches: dict[bool, Ic3] = {}
        self.invariant: Cubes = {h: [] for h in self.system.heads}
        self.found: dict[str, Cubes] = {}
        """By property, its own part of the invariant."""

    def prove(self, wanted: Sequence[PropertyDecl], timeout: float = 0.0, narrow: bool = True) -> dict[str, Proof]:
        """By property an invariant that excludes its violation, checked; ``timeout``: seconds for each search, 0 for no limit.
        ``narrow``: search on formulas of fewer bits, which is faster and finds most.

        Raises InternalError if the check of what was found on the formulas themselves fails.
        """
        found: dict[str, Proof] = {}
        candidates: dict[str, Cubes] = {}
        for prop in wanted:
            try:
                candidates[prop.name] = self._search(narrow).exclude(prop, Budget(timeout, self.limits.rlimit))
            except GaveUp as stop:
                found[prop.name] = Proof(None, stop.reason, stop.exhausted)
            except OutOfBudget as spent:
                found[prop.name] = Proof(None, str(spent), False)
        held = [p for p in wanted if p.name in candidates]
        if held:
            found |= self._checked(held, candidates, narrow)
        return found

    def _search(self, narrow: bool) -> Ic3:
        if narrow not in self._searches:
            self._searches[narrow] = Ic3(self.system, self.properties, self.limits, narrow)
        return self._searches[narrow]

    def _checked(self, held: list[PropertyDecl], candidates: Mapping[str, Cubes], narrow: bool) -> dict[str, Proof]:
        """The proofs of those whose candidates pass: all at once, or else each alone."""
        joined = self._joined([self.invariant, *(candidates[p.name] for p in held)])
        terms = self.clauses(joined)
        failed = check_invariant(self.system, held, terms, self.limits)
        if not failed:
            self.invariant = joined
            self.found |= {p.name: candidates[p.name] for p in held}
            text = tuple(repr(t) for h in self.system.heads for t in terms[h])
            return {p.name: Proof(text) for p in held}
        if len(held) > 1:
            return {name: proof for p in held for name, proof in self._checked([p], candidates, narrow).items()}
        (prop,) = held
        if failed.endswith("unknown"):
            return {prop.name: Proof(None, f"the check of the invariant was not decided in time: {failed}")}
        if narrow:
            return {prop.name: Proof(None, "an invariant of narrower numbers does not hold for the real ones", True)}
        raise InternalError(f"{prop.name}: the invariant fails its check: {failed}")

    def _joined(self, parts: Sequence[Mapping[int, Sequence[Cube]]]) -> Cubes:
        return {h: sorted({c for part in parts for c in part[h]}, key=sorted) for h in self.system.heads}

    def clauses(self, invariant: Mapping[int, Sequence[Cube]]) -> dict[int, list[Term]]:
        """For each head, one clause for every cube that is excluded there."""
        atoms, terms = self.system.atoms, self.system.terms
        return {
            h: [terms.or_(*(terms.not_(atoms[h][i]) if sign else atoms[h][i] for i, sign in sorted(c))) for c in cubes]
            for h, cubes in invariant.items()
        }


def obligations(
    system: CutSystem, properties: Sequence[PropertyDecl], invariant: dict[int, list[Term]]
) -> list[tuple[str, list[Term]]]:
    """(name, assertions that must be unsatisfiable) for initiation, consecution and safety of an invariant."""
    terms = system.terms

    def broken(head: int | None) -> Term:
        return terms.or_(*(system.violations(p, head) for p in properties))

    found: list[tuple[str, list[Term]]] = [("init-safe", [*system.lowering.assume, broken(None)])]
    for i, edge in enumerate(system.edges):
        arriving = system.arriving(edge, invariant[edge.target])
        missed = terms.or_(*(terms.not_(t) for t in arriving))
        known = list(system.lowering.assume) if edge.source is None else [*system.constraints, *invariant[edge.source]]
        kind = "init" if edge.source is None else "step"
        found.append((f"{kind}-{i}", [*known, edge.guard, missed]))
    for head in system.heads:
        found.append((f"safe-{head}", [*system.constraints, *invariant[head], broken(head)]))
    return found


def check_invariant(
    system: CutSystem, properties: Sequence[PropertyDecl], invariant: dict[int, list[Term]], limits: Limits
) -> str:
    """Decide each obligation with a solver of its own; the name of the first that fails, or an empty string."""
    for name, assertions in obligations(system, properties, invariant):
        if system.terms.false in assertions:
            continue
        answer = decide_once(assertions, limits)
        if answer.status != "unsat":
            return f"{name} is {answer.status}"
    return ""
