"""Deciding the properties of one system.

A loop-free program is unrolled completely, so an unsatisfiable formula is a proof for every number of pages, frames, tables and
devices (mmucheck/README.md, "One witness"). A program with loops needs an inductive invariant (mmucheck.engines.induction); if
none is found, loops are followed a few times round to look for a refutation. Every refutation is replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmucheck.engines.exercise import Coverage, Exercise
from mmucheck.engines.forms import event_of, looks_at_caches, unknown_variable
from mmucheck.engines.solver import Answer, Limits, Solver
from mmucheck.engines.verdicts import (
    BOUNDED,
    INCONCLUSIVE,
    PROVED,
    REFUTED,
    VACUOUS,
    Decision,
    Exercised,
    InternalError,
    OutOfBudget,
)
from mmucheck.ir.program import Op, PropertyDecl, System, conjuncts, without_drops
from mmucheck.lower.mixes import asks_hooks, parts
from mmucheck.lower.sites import occurrences
from mmucheck.lower.unroll import Lowering, Place, Unrolling
from mmucheck.machine.terms import Term
from mmucheck.machine.visibility import variables

if TYPE_CHECKING:
    from mmucheck.engines.induction import Induction, Proof
    from mmucheck.engines.known import KnownStarts
    from mmucheck.engines.threads import ThreadsSession
    from mmucheck.replay.explore import Violation

ROUNDS = 2
"""How often loops are followed when looking for a refutation."""


def decide(system: System, properties: Iterable[PropertyDecl], limits: Limits,
           done: Callable[[PropertyDecl, Decision], None] | None = None,
           known: KnownStarts | None = None) -> dict[str, Decision]:  # fmt: skip
    """A decision for every property, by name. ``done`` hears of each as it falls, of proofs that are to be
    confirmed at the end. ``known``: starts to be tried first, where any refutation will do and not only the simplest.

    Raises InternalError if a refutation cannot be replayed or a proof does not check.
    """
    found: dict[str, Decision] = {}
    wanted = list(properties)
    same: dict[tuple[object, ...], Decision] = {}
    known = known if len(system.threads) == 1 and not system.crowd else None

    def refuted(violations: dict[str, Violation], started: float) -> None:
        """Of what breaks from a start that refuted something else nothing more is asked."""
        seconds = (time.perf_counter() - started) / max(1, len(violations))
        for prop in [p for p in wanted if p.name in violations]:
            found[prop.name] = Decision(REFUTED, "known start", violation=violations[prop.name], seconds=seconds)
            if done is not None:
                done(prop, found[prop.name])

    if known is not None:
        started = time.perf_counter()
        refuted(known.breaks(system, wanted, ROUNDS), started)
    sessions = Sessions(system, [p for p in wanted if p.name not in found], limits)
    for prop in wanted:
        if prop.name in found:
            continue
        started = time.perf_counter()
        meaning = (prop.when, prop.binders, prop.formula)
        if meaning not in same:
            same[meaning] = decide_one(sessions, prop)
        decision = same[meaning]
        found[prop.name] = replace(decision, seconds=time.perf_counter() - started)
        if done is not None and not (limits.confirm and decision.verdict == PROVED):
            done(prop, found[prop.name])
        if known is not None and decision.violation is not None:
            known.add(system, decision.violation)
            started = time.perf_counter()
            left = [p for p in wanted if p.name not in found]
            refuted(known.also(system, decision.violation.scenario, left, ROUNDS), started)
    if limits.confirm:
        unconfirmed, found = found, sessions.confirmed(found)
        for prop in wanted:
            if done is not None and unconfirmed[prop.name].verdict == PROVED:
                done(prop, found[prop.name])
    return found


class Sessions:
    """Those of the parts of a system (mmucheck.lower.mixes), each made when it is first asked for."""

    def __init__(self, system: System, properties: list[PropertyDecl], limits: Limits) -> None:
        self._system, self._limits = system, limits
        self._kinds = {kind: [p for p in properties if self._kind(p) == kind] for kind in (True, False)}
        self._made: dict[bool, list[Session | ThreadsSession]] = {True: [], False: []}

    def _kind(self, prop: PropertyDecl) -> bool:
        return len(self._system.devices) > 1 and asks_hooks(prop)

    def of(self, prop: PropertyDecl) -> Iterator[Session | ThreadsSession]:
        """In the order of the devices. Raises OutOfBudget."""
        kind = self._kind(prop)
        made = self._made[kind]
        for i, part in enumerate(parts(self._system, kind)):
            if i == len(made):
                made.append(_session(part, self._kinds[kind], self._limits))
            yield made[i]

    def confirmed(self, found: dict[str, Decision]) -> dict[str, Decision]:
        """The decisions, the proofs among them confirmed by the second solver: what it does not decide is not proved."""
        found = dict(found)
        for kind, made in self._made.items():
            proved = [p for p in self._kinds[kind] if p.name in found and found[p.name].verdict == PROVED]
            if not proved:
                continue
            undecided = next(filter(None, (session.confirm(proved) for session in made)), "")
            for prop in proved:
                if undecided:
                    found[prop.name] = replace(found[prop.name], verdict=INCONCLUSIVE, reason=undecided, invariant=())
                else:
                    found[prop.name] = replace(found[prop.name], confirmed=self._limits.confirm)
        return found


def decide_one(sessions: Sessions, prop: PropertyDecl) -> Decision:
    """The decision of a system from those of its parts: one that is refuted refutes it, proved needs all of them. A part may be
    vacuous for the others' sake. The parts share one time limit."""
    started = time.monotonic()
    decisions: list[Decision] = []
    try:
        for session in sessions.of(prop):
            decisions.append(session.decide(prop, time.monotonic() - started if decisions else 0.0))
            if decisions[-1].verdict == REFUTED:
                return decisions[-1]
    except OutOfBudget as spent:
        return Decision(INCONCLUSIVE, "lowering", f"{spent}, before anything was asked")
    for verdict in (INCONCLUSIVE, BOUNDED, PROVED):
        found = next((d for d in decisions if d.verdict == verdict), None)
        if found is not None:
            return _joined(found, decisions)
    return decisions[0]


def _joined(found: Decision, decisions: list[Decision]) -> Decision:
    """One decision for all parts: their invariants one after another, what each exercises added up."""
    if len(decisions) == 1:
        return found
    seen = [d.exercised for d in decisions if d.exercised is not None]
    missing = tuple(dict.fromkeys(m for e in seen for m in e.missing))
    needs = [d.needs_flush for d in decisions]
    return replace(
        found,
        invariant=tuple(c for d in decisions for c in d.invariant),
        exercised=Exercised(sum(e.reached for e in seen), sum(e.total for e in seen), missing) if seen else None,
        needs_flush=True if True in needs else None if None in needs else False,
    )


def needs_flush(system: System, prop: PropertyDecl, limits: Limits) -> bool | None:
    """Whether the property breaks if the devices drop nothing; None if it looks at no cache, or that was not decided."""
    if not looks_at_caches(prop):
        return None
    try:
        broken = [session.breaks(prop) for session in Sessions(without_drops(system), [prop], limits).of(prop)]
    except OutOfBudget:
        return None
    return True if True in broken else None if None in broken else False


def _session(system: System, properties: list[PropertyDecl], limits: Limits) -> Session | ThreadsSession:
    if len(system.threads) == 1 and not system.crowd:
        return Session(system, properties, limits)
    from mmucheck.engines.threads import ThreadsSession

    return ThreadsSession(system, properties, limits)


class Session:
    """One lowering and one solver shared by all properties."""

    def __init__(self, system: System, properties: list[PropertyDecl], limits: Limits) -> None:
        self.system, self.properties, self.limits = system, properties, limits
        if len(system.threads) != 1:
            raise InternalError("only one VMM thread is lowered")
        self._deadline = 0.0
        self.lowering = Lowering(system, properties, _pace(limits))
        self.loops = bool(system.threads[0].back_edge_targets())
        self.unrolling = self.lowering.unroll(ROUNDS if self.loops else 0)
        self.queries = {p.name: self._any(self.lowering.violation(p, self.unrolling)) for p in properties}
        goals = {"end": self.lowering.terms.or_(*(p.guard for p in self.unrolling.exits))}
        goals |= {f"says.{p.name}": self._cover(p, self.unrolling) for p in properties}
        self.exercise = Exercise(self.lowering, self.unrolling, ROUNDS, goals)
        named = [(f"bad.{n}", t) for n, t in self.queries.items()]
        self.solver = Solver(self.lowering.assume, named, limits, self.exercise.defined, strategy="few")
        self.induction: Induction | None = None
        self._proofs: dict[str, Proof] = {}
        self._coverage: Coverage | None = None
        self._without_drops: Session | None = None

    def _any(self, conditions: list[tuple[Place, Term]]) -> Term:
        return self.lowering.terms.or_(*(term for _, term in conditions))

    def _cover(self, prop: PropertyDecl, unrolling: Unrolling) -> Term:
        """Some run comes to a state, at any time, in which the property says anything: a device that holds nothing at the end
        because it was told so is no hollow success. An implication says something where its left side holds; that an event has
        not come about, where a step comes by that could bring it; what a variable is, if there is a step that sets it."""
        terms = self.lowering.terms
        found: list[Term] = []
        for part in conjuncts(prop.formula):
            event = event_of(part)
            if isinstance(part, Op) and part.op == "->":
                some = replace(prop, when="always", formula=Op("!", (part.args[0],)))
                found.append(self._any(self.lowering.violation(some, unrolling)))
            elif event:
                found.append(occurrences(terms, self.system, unrolling, event))
            elif not variables(part) or variables(part) & self.system.variables_set():
                return terms.true
        return terms.or_(*found)

    def decide(self, prop: PropertyDecl, spent: float = 0.0) -> Decision:
        """``spent``: seconds of the time limit that are gone already."""
        self._deadline = time.monotonic() + self.limits.timeout - spent
        unknown = unknown_variable(self.system, prop)
        if unknown:
            return Decision(VACUOUS, "by form", unknown)
        method = "bounded unrolling" if self.unrolling.truncated else "complete unrolling"
        proof: Proof | None = None
        if self.unrolling.truncated and self.lowering.one_run_suffices(prop):
            proof = self._prove(prop, [p for p in self.properties if self.lowering.one_run_suffices(p)])
            if proof.invariant is not None:
                return self._proved(prop, Decision(PROVED, "induction", invariant=proof.invariant))
        answer = self._ask(f"bad.{prop.name}", model=True)
        if answer.status == "sat":
            return self._refuted(prop, method, answer.model)
        if answer.status == "unknown":
            return Decision(INCONCLUSIVE, method, answer.reason)
        if not self.lowering.one_run_suffices(prop):
            return Decision(BOUNDED, method, "runs of a handler can build on each other: one was followed, not any number")
        if proof is not None and proof.exhausted:
            proof = self._prove_wide(prop)
        if proof is not None and proof.invariant is not None:
            return self._proved(prop, Decision(PROVED, "induction", invariant=proof.invariant))
        if proof is not None:
            bound = f"holds for {ROUNDS} rounds of each loop; {proof.reason}"
            return Decision(BOUNDED if proof.exhausted else INCONCLUSIVE, "induction", bound)
        return self._proved(prop, Decision(PROVED, method))

    def _remaining(self) -> float:
        """Seconds left for the property at hand, 0 for no limit."""
        return max(0.001, self._deadline - time.monotonic()) if self.limits.timeout else 0.0

    def _ask(self, name: str, model: bool = False) -> Answer:
        return self.solver.check([name], model, self._remaining())

    def _proved(self, prop: PropertyDecl, decision: Decision) -> Decision:
        """The proof with what it exercises; vacuous if the path cannot end or the property says nothing of any state that is reached.

        A path cut off in a loop may come to its end, and to states that a few rounds do not show: of it that is no verdict.
        """
        if self._coverage is None:
            self._coverage = self.exercise.cover(self.solver, self._remaining())
        seen = self._coverage
        decision = replace(decision, exercised=seen.exercised)
        ends, says = seen.goals["end"], seen.goals[f"says.{prop.name}"]
        if ends is False:
            return replace(decision, verdict=VACUOUS, method="cover", reason="the path cannot run to its end", invariant=())
        if says is False:
            return replace(decision, verdict=VACUOUS, method="cover", reason=_silent(prop), invariant=())
        if not self.unrolling.truncated and None in (ends, says):
            undecided = "no run breaks it, but whether the property says anything was not decided within the limits"
            return replace(decision, verdict=INCONCLUSIVE, reason=undecided)
        return replace(decision, needs_flush=self._needs_flush(prop)) if self.limits.thorough else decision

    def confirm(self, proved: list[PropertyDecl]) -> str:
        """Let the second solver decide all that was proved, at once; what it left undecided, "" if nothing.

        Raises InternalError if it comes to another answer.
        """
        from mmucheck.engines import evidence
        from mmucheck.engines.second import decide_text

        if self.unrolling.truncated:
            assert self.induction is not None
            texts = evidence.inductive(self.induction.system, proved, self.induction.clauses(self.induction.invariant))
        else:
            terms = self.lowering.terms
            texts = iter(evidence.unrolled(self.lowering, terms.or_(*(self.queries[p.name] for p in proved))))
        for part, text in texts:
            answer = decide_text(text, self.limits.confirm, self.limits)
            if answer == "sat":
                names = ", ".join(p.name for p in proved)
                raise InternalError(f"{self.limits.confirm} does not confirm the proof of {names}: {part} is satisfiable")
            if answer != "unsat":
                return f"{self.limits.confirm} did not decide {part} within the limits"
        return ""

    def _needs_flush(self, prop: PropertyDecl) -> bool | None:
        if not looks_at_caches(prop):
            return None
        try:
            if self._without_drops is None:
                self._without_drops = Session(without_drops(self.system), self.properties, self.limits)
            return self._without_drops.breaks(prop)
        except OutOfBudget:
            return None

    def breaks(self, prop: PropertyDecl) -> bool | None:
        """Whether some run of the witness world breaks the property, not replayed; None if that was not decided."""
        self._deadline = time.monotonic() + self.limits.timeout
        answer = self._ask(f"bad.{prop.name}")
        if answer.status != "unsat" or not self.lowering.one_run_suffices(prop):
            return True if answer.status == "sat" else None
        if not self.unrolling.truncated:
            return False
        return None if self._prove(prop, [prop]).invariant is None else False

    def _prove(self, prop: PropertyDecl, wanted: Sequence[PropertyDecl]) -> Proof:
        """By induction, first of narrow numbers; ``wanted`` are tried together with it."""
        if self.induction is None:
            from mmucheck.engines.induction import Induction

            self.induction = Induction(self.lowering, self.properties, self.limits)
        if prop.name not in self._proofs:
            self._proofs |= self.induction.prove([p for p in wanted if p.name not in self._proofs], self._remaining())
        return self._proofs[prop.name]

    def _prove_wide(self, prop: PropertyDecl) -> Proof:
        """By induction of the numbers as they are: what may succeed where narrow ones did not."""
        assert self.induction is not None
        return self.induction.prove([prop], self._remaining(), narrow=False)[prop.name]

    def _refuted(self, prop: PropertyDecl, method: str, model: dict[str, int]) -> Decision:
        from mmucheck.engines.concretise import refuted, scenario_of, simplest_model

        model = simplest_model(self.lowering, self.queries[prop.name], model, self.limits)
        return refuted(self.system, scenario_of(self.lowering, model), prop, method, self.limits)


def _pace(limits: Limits) -> Callable[[int], None]:
    """Ends a lowering that takes too long, from now on. A term built is a unit of resources."""
    deadline = time.monotonic() + limits.timeout

    def check(terms: int) -> None:
        if limits.rlimit and terms > limits.rlimit:
            raise OutOfBudget("resource limit")
        if limits.timeout and time.monotonic() > deadline:
            raise OutOfBudget("timeout")

    return check


def _silent(prop: PropertyDecl) -> str:
    """Why a property says nothing."""
    parts = conjuncts(prop.formula)
    if any(isinstance(p, Op) and p.op == "->" for p in parts):
        return "no run comes to a state of which the property says anything"
    said = {"slept_in_atomic": "to a step of a callback that may sleep", "assertion_failed": "to an assert"}
    missing = [f"no run comes {said[event]}" for event in map(event_of, parts) if event]
    return ", and ".join([*missing, *(f"no step sets `{name}`" for name in sorted(variables(prop.formula)))])
