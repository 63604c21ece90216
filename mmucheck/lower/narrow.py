"""The same formulas over fewer bits, for searches whose answers are only guesses.

Most bits of an address or a count are alike: no constant tells them apart. ``Narrow`` keeps a few of each run of alike bits, so that
an address space has four pages where it had 512. What is found there may be wrong; it guides a search and is never believed.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from mmucheck.machine.domain import BOOL, COUNT, NUMBER
from mmucheck.machine.terms import Term, Terms, postorder

KEPT = 2
"""Bits kept of a run of alike bits."""

_SHRUNK = (COUNT, NUMBER)
_BITWISE = frozenset(("bvadd", "bvsub", "bvand", "bvor", "bvxor"))


class Narrow:
    """A mapping of terms to narrower ones that says the same of every formula it is given; ``roots`` are all of them."""

    def __init__(self, roots: Iterable[Term]) -> None:
        self._terms = Terms()
        self._done: dict[int, Term] = {}
        order = postorder(roots)
        shifting = {t.sort for t in order if t.op.startswith("bv") and t.op not in _BITWISE and t.sort}
        self._kept = {sort: _representatives(order, sort) for sort in _SHRUNK if sort not in shifting}

    def __call__(self, roots: Iterable[Term]) -> list[Term]:
        roots = list(roots)
        for term in postorder(roots):
            if term.index not in self._done:
                self._done[term.index] = self._narrowed(term)
        return [self._done[r.index] for r in roots]

    def _narrowed(self, term: Term) -> Term:
        kept = self._kept.get(term.sort)
        sort = term.sort if kept is None else len(kept)
        if term.op == "var":
            return self._terms.var(term.name, sort)
        if term.op == "const":
            value = term.value if kept is None else sum((term.value >> bit & 1) << i for i, bit in enumerate(kept))
            return self._terms.const(value, sort)
        return self._terms.rebuild(term.op, [self._done[a.index] for a in term.args])


def _representatives(order: list[Term], sort: int) -> tuple[int, ...]:
    """Bits of a sort, lowest first: of each run in which every constant has equal bits, the lowest few."""
    values = sorted({t.value for t in order if t.op == "const" and t.sort == sort and sort != BOOL})
    runs = groupby(range(sort), key=lambda bit: tuple(value >> bit & 1 for value in values))
    return tuple(bit for _, run in runs for bit in list(run)[:KEPT])
