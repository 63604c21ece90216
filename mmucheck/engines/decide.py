"""Deciding the properties of one system.

A loop-free program is unrolled completely, so an unsatisfiable formula is a proof for every number of pages, frames, tables and
devices (mmucheck/README.md, "One witness"). A program with loops needs an inductive invariant (mmucheck.engines.induction); if
none is found, loops are followed a few times round to look for a refutation. Every refutation is replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from mmucheck.engines.solver import Answer, Limits, Solver
from mmucheck.engines.verdicts import BOUNDED, INCONCLUSIVE, PROVED, REFUTED, VACUOUS, Decision, InternalError
from mmucheck.ir.program import Expr, Op, PropertyDecl, System
from mmucheck.lower.unroll import Lowering, Place, Unrolling
from mmucheck.machine.terms import Term
from mmucheck.machine.visibility import variables

if TYPE_CHECKING:
    from mmucheck.engines.induction import Induction, Proof
    from mmucheck.replay.explore import Violation

ROUNDS = 2
"""How often loops are followed when looking for a refutation."""


def decide(system: System, properties: Iterable[PropertyDecl], limits: Limits,
           done: Callable[[PropertyDecl, Decision], None] | None = None) -> dict[str, Decision]:  # fmt: skip
    """A decision for every property, by name. ``done`` hears of each as it falls.

    Raises InternalError if a refutation cannot be replayed or a proof does not check.
    """
    found: dict[str, Decision] = {}
    session = Session(system, list(properties), limits)
    same: dict[tuple[object, ...], Decision] = {}
    for prop in session.properties:
        started = time.perf_counter()
        meaning = (prop.when, prop.binders, prop.formula)
        if meaning not in same:
            same[meaning] = session.decide(prop)
        decision = same[meaning]
        found[prop.name] = replace(decision, seconds=time.perf_counter() - started)
        if done is not None:
            done(prop, found[prop.name])
    return found


class Session:
    """One lowering and one solver shared by all properties."""

    def __init__(self, system: System, properties: list[PropertyDecl], limits: Limits) -> None:
        self.system, self.properties, self.limits = system, properties, limits
        if len(system.threads) != 1:
            raise InternalError("only one VMM thread is lowered")
        self.lowering = Lowering(system, properties)
        self.loops = bool(system.threads[0].back_edge_targets())
        self.unrolling = self.lowering.unroll(ROUNDS if self.loops else 0)
        self.queries = {p.name: self._any(self.lowering.violation(p, self.unrolling)) for p in properties}
        self.covers = {p.name: self._cover(p, self.unrolling) for p in properties}
        named = [*((f"bad.{n}", t) for n, t in self.queries.items()), *((f"cover.{n}", t) for n, t in self.covers.items())]
        ends = self.lowering.terms.or_(*(p.guard for p in self.unrolling.exits))
        self.solver = Solver(self.lowering.assume, [*named, ("end", ends)], limits, few=True)
        self.induction: Induction | None = None
        self._ends: str | None = None
        self._deadline = 0.0

    def _any(self, conditions: list[tuple[Place, Term]]) -> Term:
        return self.lowering.terms.or_(*(term for _, term in conditions))

    def _cover(self, prop: PropertyDecl, unrolling: Unrolling) -> Term:
        """Some run comes to a state, at any time, in which the property says anything: a device that holds nothing at the end
        because it was told so is no hollow success."""
        antecedents = premises(prop.formula)
        if not antecedents:
            return self.lowering.terms.true
        some = replace(prop, when="always", formula=Op("!", (_disjunction(antecedents),)))
        return self._any(self.lowering.violation(some, unrolling))

    def decide(self, prop: PropertyDecl) -> Decision:
        self._deadline = time.monotonic() + self.limits.timeout
        unknown = sorted(variables(prop.formula) - {name for d in self.system.devices for name, _ in d.variables})
        if unknown:
            return Decision(VACUOUS, "by form", f"no device here has a variable `{unknown[0]}`")
        method = "bounded unrolling" if self.unrolling.truncated else "complete unrolling"
        proof: Proof | None = None
        if self.unrolling.truncated and self.lowering.one_run_suffices(prop):
            if self.induction is None:
                from mmucheck.engines.induction import Induction

                self.induction = Induction(self.lowering, self.properties, self.limits)
            proof = self.induction.prove(prop, self._remaining())
            if proof.invariant is not None:
                return self._vacuous(prop) or Decision(PROVED, "induction", invariant=proof.invariant)
        answer = self._ask(f"bad.{prop.name}", model=True)
        if answer.status == "sat":
            return Decision(REFUTED, method, violation=self._replay(prop, answer.model))
        if answer.status == "unknown":
            return Decision(INCONCLUSIVE, method, answer.reason)
        if not self.lowering.one_run_suffices(prop):
            return Decision(BOUNDED, method, "runs of a handler can build on each other: one was followed, not any number")
        if proof is not None:
            bound = f"holds for {ROUNDS} rounds of each loop; {proof.reason}"
            return Decision(BOUNDED if proof.exhausted else INCONCLUSIVE, "induction", bound)
        return self._vacuous(prop) or Decision(PROVED, method)

    def _remaining(self) -> float:
        """Seconds left for the property at hand, 0 for no limit."""
        return max(0.001, self._deadline - time.monotonic()) if self.limits.timeout else 0.0

    def _ask(self, name: str, model: bool = False) -> Answer:
        return self.solver.check([name], model, self._remaining())

    def _vacuous(self, prop: PropertyDecl) -> Decision | None:
        """A path cut off in a loop may still come to its end, and to states that a few rounds do not show: of it only that is said
        which its form shows."""
        empty = Decision(VACUOUS, "cover", "no run comes to a state of which the property says anything")
        if self.unrolling.truncated:
            return empty if self.covers[prop.name] is self.lowering.terms.false else None
        if self._ends is None:
            self._ends = self._ask("end").status
        if self._ends == "unsat":
            return Decision(VACUOUS, "cover", "the path cannot run to its end")
        if self._ask(f"cover.{prop.name}").status == "unsat":
            return empty
        return None

    def _replay(self, prop: PropertyDecl, model: dict[str, int]) -> Violation:
        from mmucheck.engines.concretise import scenario_of, simplest_model
        from mmucheck.replay.explore import SearchExhausted, search

        model = simplest_model(self.lowering, self.queries[prop.name], model, self.limits)
        scenario = scenario_of(self.lowering, model)
        try:
            violation = search(self.system, scenario, prop)
        except SearchExhausted as error:
            raise InternalError(f"{prop.name}: the refutation could not be replayed: {error}") from None
        if violation is None:
            raise InternalError(f"{prop.name}: the solver's refutation does not replay from {scenario}")
        return violation


def premises(formula: Expr) -> list[Expr]:
    """The left sides of a property's implications: if none is ever true, the property says nothing."""
    if isinstance(formula, Op) and formula.op == "->":
        return [formula.args[0]]
    if isinstance(formula, Op) and formula.op == "&&":
        return [p for arg in formula.args for p in premises(arg)]
    return []


def _disjunction(parts: list[Expr]) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = Op("||", (result, part))
    return result
