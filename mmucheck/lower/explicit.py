"""The witness world explored state by state: for two VMM threads, whose interleavings are too many for one formula.

A state is a tuple: Python values for what is finite, terms over the witness's address and the paths' arguments for numbers. The
steps are the machine's, remembered by what they read (mmucheck.machine.memo). What this rests on: mmucheck/README.md, "Two threads".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmucheck.ir.program import Expr, PropertyDecl, System
from mmucheck.lower.choices import Choices, Found
from mmucheck.lower.meetings import Meetings, Territories
from mmucheck.lower.moves import Moves
from mmucheck.lower.normal import NormalForm, Telling
from mmucheck.lower.one_run import OneRun
from mmucheck.lower.scope import DONE, ENTRIES, IDLE, Scope, State, Truth, shape
from mmucheck.lower.starts import Starts
from mmucheck.lower.unroll import Act
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.memo import Memo, Recording, Result
from mmucheck.machine.state import Thread
from mmucheck.machine.terms import Term
from mmucheck.names.builtins import ALIGNMENT


class World:
    """The states and moves of a system, as far as a group of properties can tell. ``rounds``: how often a thread goes round a loop;
    ``cover``: the conditions under which a property says anything.

    ``starts``: by name of what is kept; ``assume``: what all numbers satisfy; ``taken``: the acts seen so far; ``meetings``: where threads
    have been; ``told``: what a state tells of the properties, and whether every path is done in it.
    """

    def __init__(self, system: System, properties: Sequence[PropertyDecl], rounds: int,
                 cover: Callable[[PropertyDecl], Sequence[Expr]]) -> None:  # fmt: skip
        self._scope = scope = Scope(system, properties)
        self.terms = scope.terms
        self._choices = Choices(scope)
        self._starts = Starts(scope, self._choices)
        self.starts, self.assume = self._starts.states, self._starts.assume
        self._shape = shape(scope, self.starts[0])
        self.taken: set[Act] = set()
        self.meetings = Meetings(scope, self.starts[0])
        self.territories = Territories(self._shape)
        self._moves = Moves(scope, self._choices, self.meetings, rounds, self.taken)
        self._one_run = OneRun(scope, self._shape)
        self._normal = NormalForm(scope, self._shape, self._memo, self.taken)
        self.told = Telling(scope, cover, self._memo)
        self._others = self._memo(self._moves.others)
        self._next: dict[tuple[str, int], Memo] = {}
        self._pcs = {t.name: self._shape.places[f"{t.name}.pc"] for t in scope.threads}
        self._blanks: dict[tuple[str, frozenset[str]], list[tuple[int, Any]]] = {}

    @property
    def truncated(self) -> bool:
        """Whether a thread was stopped because it had gone round a loop often enough."""
        return self._moves.truncated

    def _memo(self, body: Callable[[Recording], Any]) -> Memo:
        return Memo(self._shape.places, body, self._scope.domain, self._begin, self._shape.fixed)

    def _begin(self, run: Recording) -> None:
        self._scope.domain.oracle = run
        self._choices.begin(run)

    # ---- which numbers and starts

    def order(self) -> list[Term]:
        """Of two threads with one program, which is which makes no difference: the first is the one whose first argument is nearer to the
        witness (its page, its region, elsewhere)."""
        paths, start = self._scope.paths, self.starts[0]
        texts = (repr((t.program.nodes, t.program.entry, t.program.params)) for t in paths)
        same = len(paths) == 2 and len({re.sub(r"choice\d+", "choice", text) for text in texts}) == 1
        numbers = [[start[t.local(n)] for n, _ in t.program.params] for t in paths] if same else []
        firsts = [next((v for v in values if isinstance(v, Term)), None) for values in numbers]
        if len(firsts) != 2 or firsts[0] is None or firsts[1] is None:
            return []
        terms, looks, found = self.terms, self._scope.machine.looks, []
        for key_of, own in ((looks.page_key, start["page.a.key"]), (looks.region_key, start["region.a.key"])):
            one, two = (terms.eq(key_of(p), own) for p in firsts)
            found.append(terms.or_(terms.not_(two), one))
        return found

    def near(self) -> list[Term]:
        """That every argument of a path lies on the witness's page, the page before it or the two behind it; a huge page on that of the
        witness, or as near to it."""
        terms, start, scope, found = self.terms, self.starts[0], self._scope, []
        for thread in scope.paths:
            for name, kind in thread.program.params:
                value = start[thread.local(name)]
                if not isinstance(value, Term):
                    continue
                size = 1 << max(scope.system.page_bits, ALIGNMENT.get(kind, 0))
                own = terms.binary("and", start["page.a.addr"], terms.const(-size, NUMBER))
                first = terms.binary("sub", own, terms.const(size, NUMBER))
                found.append(terms.ule(terms.binary("sub", value, first), terms.const(3 * size, NUMBER)))
        return found

    def starts_like(self) -> frozenset[int]:
        """The numbers of the starts that are enough while nobody touches the entries at the witness."""
        return self._starts.alike(self._shape.names)

    # ---- states and moves

    def initial_states(self, truth: Truth, only: frozenset[int]) -> Iterator[tuple[State, int, tuple[Found, ...]]]:
        """The start states after the steps that nobody notices, in normal form; of each, which start it was, what was found on the way."""
        for number, start in enumerate(self.starts):
            if number not in only:
                continue
            states: list[tuple[State, tuple[Found, ...]]] = [(self._normal([start[n] for n in self._shape.names], truth), ())]
            for thread in self._scope.paths:
                if self._moves.goes_on(thread, thread.program.entry):
                    states = [
                        (after, (*found, *more)) for s, found in states
                        for after, more in self._arrive(s, self._results(thread, s, truth), truth, frozenset())
                    ]  # fmt: skip
            yield from ((state, number, found) for state, found in states)

    def successors(self, state: State, truth: Truth, apart: frozenset[str]) -> Iterator[tuple[State, tuple[Found, ...]]]:
        """Every state one move on, and what was looked at first on the way. A path whose next steps nobody else can notice goes first,
        alone. ``apart``: the kinds of places at which the threads never meet."""
        for thread in self._scope.paths:
            if not thread.program.nodes[state[self._pcs[thread.name]]].successors:
                continue
            results = self._results(thread, state, truth)
            if all(self.territories.is_private(thread, r, apart) for r in results) and any(r.value[0] is not None for r in results):
                yield from self._arrive(state, results, truth, apart)
                return
        busy = self._one_run.busy(state)
        for thread in self._scope.threads:
            pc = state[self._pcs[thread.name]]
            if pc != DONE and (pc != IDLE or not busy) and (pc == IDLE or thread.program.nodes[pc].successors):
                yield from self._arrive(state, self._results(thread, state, truth), truth, apart)
        for result in self._others(state, truth):
            if result.value is not None:
                yield self._normal(_changed(state, result.value), truth), ()

    def _results(self, thread: Thread, state: State, truth: Truth) -> list[Result]:
        pc = state[self._pcs[thread.name]]
        memo = self._next.get((thread.name, pc))
        if memo is None:
            memo = self._next[thread.name, pc] = self._memo(self._moves.of(thread, pc))
        return memo(state, truth)

    def _arrive(self, state: State, results: list[Result], truth: Truth,
                apart: frozenset[str]) -> Iterator[tuple[State, tuple[Found, ...]]]:  # fmt: skip
        for result in results:
            changes, found, visits = result.value
            self.meetings.met.add(visits)
            if changes is not None:
                after = self._normal(self._blanked(_changed(state, changes), apart), truth)
                if self._one_run.worthwhile(after):
                    yield after, found

    def _blanked(self, values: list[Any], apart: frozenset[str]) -> list[Any]:
        """Where a path has been that is done, and no other thread comes, nothing is looked at any more: it stays as it is, with the
        references it owns, and need not be told apart."""
        for thread in self._scope.paths:
            if not thread.program.nodes[values[self._pcs[thread.name]]].successors:
                blank = self._blanks.get((thread.name, apart))
                if blank is None:
                    blank = self._blanks[thread.name, apart] = self._blank(thread, apart)
                for place, value in blank:
                    values[place] = value
        return values

    def _blank(self, thread: Thread, apart: frozenset[str]) -> list[tuple[int, Any]]:
        layout = self._scope.machine.layout
        slots = {"page": layout.pages, "region": layout.regions}
        names = [
            f"{what}.{slot.name}.{f}" for what, fields in ENTRIES if what in apart
            for slot in slots[what] if slot.owner == thread.name for f in (*fields, "key")
        ]  # fmt: skip
        return [(self._shape.places[n], self.starts[0][n]) for n in names]


def _changed(state: State, changes: tuple[tuple[int, Any], ...]) -> list[Any]:
    after = list(state)
    for place, value in changes:
        after[place] = value
    return after
