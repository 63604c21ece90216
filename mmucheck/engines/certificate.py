"""A proof as an object: what must be unsatisfiable, as plain SMT-LIB 2, and the invariant it comes from.

A certificate holds nothing that is believed: ``rederive`` makes the obligations again from the model, with the certificate's
invariant in place of a search, and the texts must be equal byte for byte. What then remains is to decide them, by any solver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmucheck.engines.decide import Session, Sessions, decide_one
from mmucheck.engines.evidence import inductive, unrolled
from mmucheck.engines.induction import Induction
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import PROVED, Decision, OutOfBudget
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower.mixes import asks_hooks, parts
from mmucheck.machine.terms import Term
from mmucheck.records import record

Clause = tuple[tuple[str, bool], ...]
"""Literals: the atom's text, and whether the clause has it as it stands (true) or negated."""


@record
class Evidence:
    """``texts``: name -> SMT-LIB script whose assertions must be unsatisfiable. ``invariant``: (line of the loop in its file, clauses)
    for each loop head, in program order; empty for a loop-free path."""

    method: str
    texts: tuple[tuple[str, str], ...]
    invariant: tuple[tuple[int, tuple[Clause, ...]], ...] = ()

    @property
    def digest(self) -> str:
        """Of everything that is to be decided."""
        total = hashlib.sha256()
        for name, text in self.texts:
            total.update(f"{name}\0{text}\0".encode())
        return total.hexdigest()


class CannotRederive(Exception):
    """The invariant of a certificate does not fit the model: the model or the certificate has changed."""


def prove(system: System, prop: PropertyDecl, limits: Limits) -> tuple[Decision, Evidence | None]:
    """Decide one property; with its evidence if it is proved."""
    sessions = Sessions(system, [prop], limits)
    decision = decide_one(sessions, prop)
    if decision.verdict != PROVED:
        return decision, None
    named: list[tuple[int, list[Clause]]] = []
    for session in sessions.of(prop):
        if session.induction is not None:
            atoms = session.induction.system.atoms
            for head, cubes in session.induction.invariant.items():
                clauses = [tuple((repr(atoms[head][i]), not sign) for i, sign in sorted(cube)) for cube in cubes]
                named.append((head, clauses))
    return decision, rederive(system, prop, named, limits)


def rederive(system: System, prop: PropertyDecl, invariant: Sequence[tuple[int, Sequence[Clause]]], limits: Limits) -> Evidence:
    """The evidence again, from the model and a given invariant: that of each part in turn (mmucheck.lower.mixes). Raises
    CannotRederive if the invariant is not about this model."""
    found: list[Evidence] = []
    systems = parts(system, asks_hooks(prop))
    size, rest = divmod(len(invariant), len(systems))
    if rest:
        raise CannotRederive(f"the invariant of {len(systems)} devices has {len(invariant)} loop head(s)")
    for i, part in enumerate(systems):
        evidence = _rederive(part, prop, invariant[i * size : (i + 1) * size], limits)
        if len(systems) > 1:
            name = system.devices[i].name
            evidence = replace(evidence, texts=tuple((f"{name}.{text}", body) for text, body in evidence.texts))
        found.append(evidence)
    texts = tuple(t for e in found for t in e.texts)
    return Evidence(found[0].method, texts, tuple(x for e in found for x in e.invariant))


def _rederive(system: System, prop: PropertyDecl, invariant: Sequence[tuple[int, Sequence[Clause]]], limits: Limits) -> Evidence:
    try:
        session = Session(system, [prop], limits)
    except OutOfBudget as spent:
        raise CannotRederive(str(spent)) from None
    if not session.unrolling.truncated:
        if invariant:
            raise CannotRederive("an invariant is given for a path without loops")
        return _unrolled(session, prop)
    induction = Induction(session.lowering, [prop], limits)
    heads = induction.system.heads
    if len(invariant) != len(heads):
        raise CannotRederive(f"the path has {len(heads)} loop head(s), the invariant {len(invariant)}")
    return _inductive(induction, prop, {h: tuple(clauses) for h, (_, clauses) in zip(heads, invariant, strict=True)})


def _unrolled(session: Session, prop: PropertyDecl) -> Evidence:
    return Evidence("complete unrolling", unrolled(session.lowering, session.queries[prop.name]))


def _inductive(induction: Induction, prop: PropertyDecl, named: Mapping[int, Sequence[Clause]]) -> Evidence:
    system = induction.system
    terms: dict[int, list[Term]] = {}
    for head, clauses in named.items():
        atoms = {repr(a): a for a in system.atoms[head]}
        terms[head] = []
        for clause in clauses:
            unknown = [name for name, _ in clause if name not in atoms]
            if unknown:
                raise CannotRederive(f"the model has no atom `{unknown[0]}`")
            terms[head].append(system.terms.or_(*(atoms[n] if sign else system.terms.not_(atoms[n]) for n, sign in clause)))
    program = system.lowering.threads[0].program
    texts = tuple(inductive(system, [prop], terms))
    lines = [program.nodes[h].step.origin.span.line for h in system.heads]
    return Evidence("induction", texts, tuple((line, tuple(named[h])) for line, h in zip(lines, system.heads, strict=True)))
