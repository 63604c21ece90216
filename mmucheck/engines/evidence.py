"""What must be unsatisfiable for a proof, as plain SMT-LIB 2 that any solver can decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mmucheck.engines.induction import obligations
from mmucheck.ir.program import PropertyDecl
from mmucheck.lower.cuts import CutSystem
from mmucheck.lower.smtlib import script
from mmucheck.lower.unroll import Lowering
from mmucheck.machine.terms import Term, Terms


def unrolled(lowering: Lowering, broken: Term) -> tuple[tuple[str, str], ...]:
    """(name, script) of a complete unrolling: no start leads to ``broken``."""
    return (("unrolled", _text([*lowering.assume, broken])),)


def covering(terms: Terms, assume: Sequence[Term], cells: Sequence[Term]) -> str:
    """Script of what must be unsatisfiable for the exploration of two threads: there are numbers that no cell covers."""
    return _text([*assume, *(terms.not_(c) for c in cells)])


def inductive(
    system: CutSystem, properties: Sequence[PropertyDecl], invariant: Mapping[int, Sequence[Term]]
) -> Iterator[tuple[str, str]]:
    """(name, script) for initiation, consecution and safety of an invariant."""
    for name, assertions in obligations(system, properties, {h: list(terms) for h, terms in invariant.items()}):
        yield name, _text(assertions)


def _text(assertions: Sequence[Term]) -> str:
    return "(set-logic QF_BV)\n" + script(assertions) + "(check-sat)\n"
