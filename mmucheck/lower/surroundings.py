"""The witness world around a thread of a crowd: which situations it may find itself in, and what becomes of them by the devices, by the
other thread, and by what the thread itself does there.

None of it depends on which path the thread runs: it is worked out once for all paths (mmucheck/README.md, "Again and again").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from mmucheck.ir.crowd import Crowd
from mmucheck.ir.program import Expr, PropertyDecl
from mmucheck.lower.beside import MemberMoves, Writes
from mmucheck.lower.choices import Choices
from mmucheck.lower.faces import Face, Faces, Sight, Turn
from mmucheck.lower.meetings import Meetings
from mmucheck.lower.normal import NormalForm, Telling, Told, Undecided
from mmucheck.lower.one_run import OneRun
from mmucheck.lower.scope import DONE, IDLE, Scope, Shape, shape
from mmucheck.lower.situations import (
    ACTIVE,
    ELSEWHERE,
    ME,
    RUNS,
    Bits,
    Numbers,
    Situations,
    all_locks,
    beside_the_machine,
    bits_of,
    column_names,
    each,
    own_lock,
    own_table,
)  # fmt: skip
from mmucheck.lower.starts import Starts
from mmucheck.lower.tallies import obstacle
from mmucheck.lower.unroll import Act
from mmucheck.machine.concolic import FIRST_OTHER
from mmucheck.machine.memo import Memo, Recording
from mmucheck.machine.terms import Term, Terms
from mmucheck.machine.world import addresses
from mmucheck.records import record

Cover = Callable[[PropertyDecl], Sequence[Expr]]


@record
class Change:
    """What a step of the thread does to its situation: ``written`` columns with their values; ``tables``: where each table that it
    remembers comes from, (True, column before) or (False, the table); ``elsewhere``: how many entries it looks at elsewhere own a
    reference on the frame, on the table; ``locks``: how it holds each lock of a family that is the one at the witness; ``leaves``:
    whether it is done with its path."""

    written: tuple[tuple[int, Any], ...]
    tables: tuple[tuple[bool, int], ...]
    elsewhere: tuple[int, int]
    locks: tuple[str, ...]
    leaves: bool


@record
class Made:
    """What a change makes of one situation: the number of the one ``after``, -1 if that comes to nothing; ``deed``: the number of what
    the other thread can tell of it, -1 if nothing; ``trouble``: why the argument does not apply to the run any more, "" if it does."""

    after: int
    deed: int = -1
    trouble: str = ""


@dataclass
class Effect:
    """What a change does, as far as it has been worked out: by situation."""

    change: Change
    made: dict[int, Made] = field(default_factory=dict)


class Surroundings:
    """Of the threads of a crowd, for a group of properties. Raises ValueError with the reason if handlers or variables of a device are
    out of reach.

    ``situations``; ``starts``: the quiescent ones in which the thread runs nothing; ``faces``: what is seen of them; ``locks``: the
    families of locks of which a situation says who holds the one at the witness; ``tables``: how many tables a thread may remember;
    ``counts_runs``: whether a property asks if everybody is done; ``taken``: acts of devices.
    """

    def __init__(self, crowd: Crowd, properties: Sequence[PropertyDecl], cover: Cover, terms: Terms) -> None:
        self.scope = scope = Scope(crowd.idle(), properties, 1, terms)
        if why := obstacle(scope):
            raise ValueError(why)
        self._choices = Choices(scope, coarse=True)
        starts = Starts(scope, self._choices)
        extra = beside_the_machine(scope, any(p.when != "always" for p in properties))
        states = [{**state, **extra} for state in starts.states]
        laid = shape(scope, states[0])
        programs = crowd.system.threads
        looked_at = max((len(addresses(n.step)) for p in programs for n in p.nodes), default=1)
        self.tables = max(list(p.locals.values()).count("table") for p in programs) + max(1, looked_at)
        columns = column_names(scope, laid.names, self.tables)
        self.situations = Situations(columns)
        places = self.situations.places
        self._shape = Shape(columns, places, {n: v for n, v in states[0].items() if n not in places} | dict(laid.fixed))
        self.taken: set[Act] = set()
        self.faces = Faces(scope, places, all_locks(scope.system))
        self.locks = tuple(lock for lock in all_locks(scope.system) if own_lock(lock) in places)
        self._moves = MemberMoves(scope, self._choices, Meetings(scope, states[0]), self.taken, Writes())
        self._normal = NormalForm(scope, self._shape, self._memo, self.taken, coarse=True)
        self._told = Telling(scope, cover, self._memo, lambda _: False)
        self._told_idle = Telling(scope, cover, self._memo, self._quiet)
        self._others = self._memo(self._moves.others)
        self._one_run = OneRun(scope, self._shape)
        self._handlers = [(t, places[f"{t.name}.pc"]) for t in scope.handlers]
        self._next: dict[tuple[str, int], Memo] = {}
        self.counts_runs = ACTIVE in places
        self._own_start = [(places[n], v) for n, v in self._start_of_own(states[0]).items()]
        self._own_tables = [places[own_table(i)] for i in range(self.tables)]
        self._own_locks = [places[own_lock(lock)] for lock in self.locks]
        self._elsewhere = places[ELSEWHERE[0]], places[ELSEWHERE[1]]
        self.runs = places[RUNS]
        self._effects: dict[Change, Effect] = {}
        self._turns: Numbers[Turn] = Numbers()
        self._faces: Numbers[Face] = Numbers()
        self._sights: dict[int, Sight] = {}
        self._face_of: dict[int, int] = {}
        self._mirrors: dict[int, int] = {}
        self._by_itself: dict[int, tuple[int, ...]] = {}
        self._turned: dict[tuple[int, int], tuple[int, ...]] = {}
        self._told_of: dict[tuple[int, bool], Told] = {}
        own = self._start_of_own(states[0])
        started = (tuple(own[n] if n in own else state[n] for n in columns) for state in states)
        self.starts = bits_of(sorted({self._settled(list(s)) for s in started} - {-1}))

    def _start_of_own(self, start: dict[str, Any]) -> dict[str, Any]:
        """The columns that only the thread itself changes, as they are while it runs nothing."""
        values: dict[str, Any] = {}
        for name in self.situations.names:
            if name.startswith("own.lock."):
                values[name] = ""
            elif name.startswith("own."):
                values[name] = 0
            elif name.startswith(f"{ME}.") or name.endswith(f".queued.{ME}"):
                values[name] = start[name]
        return values

    def _memo(self, body: Callable[[Recording], Any]) -> Memo:
        return Memo(self._shape.places, body, self.scope.domain, self._begin, self._shape.fixed)

    def _begin(self, run: Recording) -> None:
        self.scope.domain.oracle = run
        self._choices.begin(run)

    def _quiet(self, run: Recording) -> bool:
        return ACTIVE in self._shape.places and not run.now(ACTIVE)

    # ---- one situation

    def _settled(self, values: list[Any]) -> int:
        """The number of the situation that these values come to, -1 if nothing can come of it; they are used up."""
        self.faces.settle(values)
        settled = list(self._normal(values, _no_number))
        for place in self.faces.outdated(settled):
            settled[place] = False
        situation = tuple(settled)
        return self.situations.number(situation) if self._one_run.worthwhile(situation) else -1

    def _sight(self, number: int) -> Sight:
        found = self._sights.get(number)
        if found is None:
            found = self._sights[number] = self.faces.sight(self.situations.all[number])
        return found

    def face(self, number: int) -> int:
        """The number of a situation's face."""
        found = self._face_of.get(number)
        if found is None:
            found = self._face_of[number] = self._faces.number(self._sight(number).face)
        return found

    def mirror(self, face: int) -> int:
        """The face that the other thread's situation has at the same moment."""
        found = self._mirrors.get(face)
        if found is None:
            shared, stand = self._faces.all[face]
            found = self._mirrors[face] = self._faces.number((shared, stand.mirrored()))
        return found

    def told(self, number: int, idle: bool) -> Told:
        """What a situation tells of the properties, of those about the end only where nobody runs: ``idle`` if the thread does not."""
        key = number, idle and self.counts_runs
        found = self._told_of.get(key)
        if found is None:
            telling = self._told_idle if key[1] else self._told
            found, _ = telling(self.situations.all[number], _no_number)
            self._told_of[key] = found
        return found

    def lowest_owned(self, number: int) -> int:
        """How many references the thread owns in a situation: the fewer of those on the frame and on the table."""
        return min(self._sight(number).owned)

    # ---- what becomes of it without the thread

    def by_itself(self, number: int) -> tuple[int, ...]:
        """What becomes of a situation by a move of a device or of an unknown holder."""
        found = self._by_itself.get(number)
        if found is None:
            after = {self._settled(values) for values in self._moved(self.situations.all[number])}
            found = self._by_itself[number] = tuple(sorted(after - {-1, number}))
        return found

    def _moved(self, state: tuple[Any, ...]) -> Iterator[list[Any]]:
        busy = self._one_run.busy(state)
        for handler, place in self._handlers:
            pc = state[place]
            if pc != DONE and (pc != IDLE or not busy) and (pc == IDLE or handler.program.nodes[pc].successors):
                memo = self._next.get((handler.name, pc))
                if memo is None:
                    memo = self._next[handler.name, pc] = self._memo(self._moves.of(handler, pc))
                for result in memo(state, _no_number):
                    if result.value[0] is not None:
                        after = _changed(state, result.value[0])
                        self.faces.tallies.handler_moved(state, after)
                        yield after
        for result in self._others(state, _no_number):
            if result.value is not None:
                yield _changed(state, result.value)

    def turned(self, number: int, turn: int) -> tuple[int, ...]:
        """What the other thread's deed makes of a situation whose face is that which it is done to."""
        key = number, turn
        found = self._turned.get(key)
        if found is None:
            ways = self.faces.turned(self.situations.all[number], self._sight(number), self._turns.all[turn])
            found = self._turned[key] = tuple(sorted({self._settled(values) for values in ways} - {-1, number}))
        return found

    # ---- what the thread does

    def effect(self, change: Change) -> Effect:
        """What is known of a change."""
        found = self._effects.get(change)
        if found is None:
            found = self._effects[change] = Effect(change)
        return found

    def made(self, effect: Effect, number: int) -> Made:
        """What a change makes of a situation."""
        found = effect.made.get(number)
        if found is None:
            found = effect.made[number] = self._make(effect.change, number)
        return found

    def _make(self, change: Change, number: int) -> Made:
        before = self.situations.all[number]
        values = list(before)
        for column, value in change.written:
            values[column] = value
        tables = [before[self._own_tables[what]] if kept else what for kept, what in change.tables]
        for i, column in enumerate(self._own_tables):
            values[column] = tables[i] if i < len(tables) else 0
        for column, count in zip(self._elsewhere, change.elsewhere, strict=True):
            values[column] = count
        for column, mode in zip(self._own_locks, change.locks, strict=True):
            values[column] = mode
        self.faces.moved(before, values)
        if change.leaves:
            self.faces.tallies.leave(values)
        settled = self._settled(values)
        if settled < 0:
            return Made(-1)
        after, sight = self.situations.all[settled], self._sight(settled)
        if trouble := self._trouble(before, after, sight, change.leaves):
            return Made(-1, trouble=trouble)
        turn = self.faces.deed(before, self._sight(number), after, sight, change.leaves, self._normal.renamed)
        deed = self._turns.number(turn) if turn is not None else -1
        if not change.leaves:
            return Made(settled, deed)
        left = list(after)
        self.faces.leave(left)
        for column, value in self._own_start:
            left[column] = value
        return Made(self._settled(left), deed)

    def _trouble(self, before: tuple[Any, ...], after: tuple[Any, ...], sight: Sight, leaves: bool) -> str:
        """Why the argument does not apply to a run that goes on so, "" if it does. What is left of a run that ``leaves`` is made right for
        the next."""
        if self.faces.loosened(before, after):
            return "drops a reference that it does not have"
        if self.faces.tallies.ambiguous(after):
            return "takes more from a counter of a device than it has added"
        if leaves and any(sight.stand.added):
            return "leaves a counter of a device other than it was"
        if leaves and min(sight.owned) < 0:
            return "drops a reference before the entry that owns it is gone"
        return ""

    def begun(self, number: int) -> int:
        """The deed of a thread that begins a path in a situation."""
        return self._turns.number(self.faces.begun(self._sight(number)))

    def entered(self, of: Bits) -> Bits:
        """The situations in which a path begins where the thread has run nothing in these."""
        if not self.counts_runs:
            return of
        found = []
        for number in each(of):
            values = list(self.situations.all[number])
            values[self.runs] = 1
            found.append(self.situations.number(tuple(values)))
        return bits_of(sorted(found))


def remembers(value: Any) -> bool:
    """Whether a value of a table's place is one that is told from other tables beside the witness."""
    return isinstance(value, int) and value >= FIRST_OTHER


def _changed(state: Sequence[Any], changes: tuple[tuple[int, Any], ...]) -> list[Any]:
    after = list(state)
    for place, value in changes:
        after[place] = value
    return after


def _no_number(term: Term) -> NoReturn:
    raise Undecided("what is seen between two runs depends on a number")
