"""A proof as an object: what must be unsatisfiable, as plain SMT-LIB 2, and the invariant it comes from.

A certificate holds nothing that is believed: ``rederive`` makes the obligations again from the model, with the certificate's
invariant in place of a search, and the texts must be equal byte for byte. What then remains is to decide them, by any solver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from mmucheck.engines.decide import Session, Sessions, decide_one
from mmucheck.engines.evidence import inductive, unrolled
from mmucheck.engines.induction import check_invariant
from mmucheck.engines.pairs import Member
from mmucheck.engines.solver import Limits
from mmucheck.engines.threads import ThreadsSession
from mmucheck.engines.verdicts import PROVED, Decision, OutOfBudget
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower.cuts import CutSystem
from mmucheck.lower.mixes import asks_hooks, parts
from mmucheck.machine.terms import Term
from mmucheck.records import record

T = TypeVar("T")
Clause = tuple[tuple[str, bool], ...]
"""Literals: the atom's text, and whether the clause has it as it stands (true) or negated."""


@record
class Evidence:
    """``texts``: name -> SMT-LIB script whose assertions must be unsatisfiable. ``together``: the properties it was decided together
    with. ``invariant``: (line of the loop in its file, clauses) for each loop head, in program order; empty for a loop-free path.
    ``cells``: for each exploration of two threads, a member of every cell."""

    method: str
    texts: tuple[tuple[str, str], ...]
    together: tuple[str, ...]
    invariant: tuple[tuple[int, tuple[Clause, ...]], ...] = ()
    cells: tuple[tuple[Member, ...], ...] = ()


class CannotRederive(Exception):
    """The invariant of a certificate does not fit the model: the model or the certificate has changed."""


def certify(
    system: System, properties: Sequence[PropertyDecl], limits: Limits
) -> Iterator[tuple[PropertyDecl, Decision, Evidence | None]]:
    """Decide properties of a system; each with its evidence if it is proved. They share their lowering, which sees what any of them
    asks about: ``Evidence.together``."""
    sessions = Sessions(system, list(properties), limits)
    for prop in properties:
        decision = decide_one(sessions, prop)
        yield prop, decision, _joined(system, [_evidence(s, prop) for s in sessions.of(prop)]) if decision.verdict == PROVED else None


def _evidence(session: Session | ThreadsSession, prop: PropertyDecl) -> Evidence:
    if isinstance(session, ThreadsSession):
        return _explored(session, prop)
    if not session.unrolling.truncated:
        return _unrolled(session, prop)
    induction = session.induction
    assert induction is not None
    system, found = induction.system, induction.found[prop.name]
    if check_invariant(system, [prop], induction.clauses(found), session.limits):
        found = induction.invariant  # it needs what was found for other properties
    named = {
        head: [tuple((repr(system.atoms[head][i]), not sign) for i, sign in sorted(cube)) for cube in cubes]
        for head, cubes in found.items()
    }
    return _inductive(system, session, prop, named)


def rederive(system: System, properties: Sequence[PropertyDecl], prop: PropertyDecl,
             invariant: Sequence[tuple[int, Sequence[Clause]]], cells: Sequence[Sequence[Member]],
             limits: Limits) -> Evidence:  # fmt: skip
    """The evidence again, from the model and a given invariant: that of each part in turn (mmucheck.lower.mixes). ``properties``:
    those it was decided together with; ``cells``: of two threads, explored again. Raises CannotRederive if it is not about this
    model."""
    systems = parts(system, asks_hooks(prop))
    found: list[Evidence] = []
    for i, part in enumerate(systems):
        mine, cells_of_mine = _share(invariant, len(systems), i), _share(cells, len(systems), i)
        if len(system.threads) > 1 or system.crowd:
            found.append(_repeat(part, properties, prop, cells_of_mine, limits))
        else:
            found.append(_rederive(part, properties, prop, mine, limits))
    return _joined(system, found)


def _share(whole: Sequence[T], parts_: int, i: int) -> Sequence[T]:
    size, rest = divmod(len(whole), parts_)
    if rest:
        raise CannotRederive(f"{len(whole)} loop head(s) or exploration(s) are not those of {parts_} devices")
    return whole[i * size : (i + 1) * size]


def _repeat(system: System, properties: Sequence[PropertyDecl], prop: PropertyDecl, cells: Sequence[Sequence[Member]],
            limits: Limits) -> Evidence:  # fmt: skip
    session = ThreadsSession(system, list(properties), limits)
    why = session.repeat(prop, cells)
    if why:
        raise CannotRederive(why)
    return _explored(session, prop)


def _joined(system: System, found: list[Evidence]) -> Evidence:
    """Of all parts; a text is named after its device if there are several."""
    if len(found) == 1:
        return found[0]
    named = zip(system.devices, found, strict=True)
    texts = tuple((f"{device.name}.{text}", body) for device, evidence in named for text, body in evidence.texts)
    invariant, cells = (x for e in found for x in e.invariant), (x for e in found for x in e.cells)
    return Evidence(found[0].method, texts, found[0].together, tuple(invariant), tuple(cells))


def _rederive(system: System, properties: Sequence[PropertyDecl], prop: PropertyDecl,
              invariant: Sequence[tuple[int, Sequence[Clause]]], limits: Limits) -> Evidence:  # fmt: skip
    try:
        session = Session(system, list(properties), limits)
    except OutOfBudget as spent:
        raise CannotRederive(str(spent)) from None
    if not session.unrolling.truncated:
        if invariant:
            raise CannotRederive("an invariant is given for a path without loops")
        return _unrolled(session, prop)
    cut = CutSystem(session.lowering)
    if len(invariant) != len(cut.heads):
        raise CannotRederive(f"the path has {len(cut.heads)} loop head(s), the invariant {len(invariant)}")
    return _inductive(cut, session, prop, {h: tuple(clauses) for h, (_, clauses) in zip(cut.heads, invariant, strict=True)})


def _explored(session: ThreadsSession, prop: PropertyDecl) -> Evidence:
    found = session.evidence(prop)
    texts = tuple((f"cells-{i}", text) for i, (text, _) in enumerate(found, 1))
    names = tuple(p.name for p in session.properties)
    return Evidence("exploration", texts, names, cells=tuple(tuple(members) for _, members in found))


def _unrolled(session: Session, prop: PropertyDecl) -> Evidence:
    return Evidence("complete unrolling", unrolled(session.lowering, session.queries[prop.name]), _names(session))


def _inductive(system: CutSystem, session: Session, prop: PropertyDecl, named: Mapping[int, Sequence[Clause]]) -> Evidence:
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
    invariant = tuple((line, tuple(named[h])) for line, h in zip(lines, system.heads, strict=True))
    return Evidence("induction", texts, _names(session), invariant)


def _names(session: Session) -> tuple[str, ...]:
    return tuple(p.name for p in session.properties)
