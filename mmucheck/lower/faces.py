"""What the threads of a crowd see of each other: the *face* of a state, and what one thread's step does to the faces of the others.

A face is what everybody sees (the entries at the witness, what devices hold of it) and how the thread and the rest stand to what can be
owned or held: references on the witness's frame and table, and the locks at the witness. Two threads' states can be states of one moment
only if their faces agree (mmucheck/README.md, "Again and again").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from operator import itemgetter
from typing import Any

from mmucheck.ir.program import LockDecl
from mmucheck.lower.normal import is_table
from mmucheck.lower.scope import Scope, Shape, State, Truth
from mmucheck.lower.tallies import HANDLED, Tallies
from mmucheck.machine.concolic import FIRST_OTHER, WITNESS
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.state import CROWD, PMD_HUGE, PMD_TABLE, PTE_PRESENT, ZERO_PAGE, Hold, holds
from mmucheck.machine.terms import Term
from mmucheck.records import record

ACTIVE = "crowd.active"
"""Whether anybody else runs a path."""

Owns = int
"""NOTHING, SOME references, or PENDING: among them the one of an entry at the witness that it has cleared while devices still hold it."""
NOTHING, SOME, PENDING = 0, 1, 2

Shared = tuple[Any, ...]
"""What everybody sees; tables numbered in order of appearance."""
Modes = tuple[str, str]
"""How a thread and the rest hold a lock: "", read or write."""


@record
class Stand:
    """How a thread and the rest stand to what can be owned: references on the frame and on the table; ``locks``: None for one that the
    thread never takes, so that nobody keeps who holds it; ``running``: whether each runs a path; ``elsewhere``: whether there are
    references that entries at other addresses own, or nobody known; ``added``: to the devices' counters."""

    owns: tuple[Owns, Owns]
    rest_owns: tuple[Owns, Owns]
    locks: tuple[Modes | None, ...]
    running: tuple[bool, bool]
    elsewhere: tuple[bool, bool]
    added: tuple[int, ...] = ()
    rest_added: tuple[int, ...] = ()


@record
class Deed:
    """What a step of a thread does that others can tell: how it stood before and after, what everybody sees after, and whether holders
    that nobody knows may have come by a reference (on the frame, on the table)."""

    before: Stand
    after: Stand
    shared: Shared
    holders: tuple[bool, bool]


@record
class Turn:
    """What becomes of how another thread's state stands, and of what it sees."""

    shared: Shared
    rest_owns: tuple[Owns, Owns]
    locks: tuple[str | None, ...]
    rest_running: bool
    elsewhere: tuple[bool, bool]
    holders: tuple[bool, bool]


def turn(deed: Deed, stand: Stand) -> Turn | None:
    """What a deed makes of the stand of the other thread, which sees the same; None if the two cannot be at one moment: each is all
    that the other takes for the rest."""
    before, after = deed.before, deed.after
    if stand.rest_owns != before.owns or before.rest_owns != stand.owns or stand.elsewhere != before.elsewhere:
        return None
    if stand.running[1] != before.running[0] or before.running[1] != stand.running[0]:
        return None
    if stand.rest_added != before.added or before.rest_added != stand.added:
        return None
    for his, mine in zip(before.locks, stand.locks, strict=True):
        if his is not None and mine is not None and (his[0] != mine[1] or his[1] != mine[0]):
            return None
    return Turn(deed.shared, after.owns, tuple(m and m[0] for m in after.locks), after.running[0], after.elsewhere, deed.holders)


class Faces:
    """Faces of the states of a world in which ``me`` is the thread that is kept. ``locks``: those of the address space and of the
    devices; ``lock_places``: where a state says who holds them; ``told``: all that decides a face."""

    def __init__(self, scope: Scope, shape: Shape, locks: Sequence[LockDecl]) -> None:
        self._scope, self._places = scope, shape.places
        self.names = tuple(n for n in shape.names if _is_shared(scope, n))
        self._shared = [shape.places[n] for n in self.names]
        self._tables = [i for i, n in enumerate(self.names) if is_table(scope, n)]
        self._all_tables = [p for n, p in shape.places.items() if is_table(scope, n)]
        me = scope.paths[0].name
        every = holds(scope.system)
        self._locks = [_LockPlaces(scope, shape, lock, me, [h for h in every if h.lock == lock]) for lock in locks]
        self.tallies = Tallies(scope, shape.places, me)
        get = shape.places.get
        self._page = get("page.a.kind", -1), get("page.a.frame", -1)
        self._region = get("region.a.kind", -1), get("region.a.frame", -1), get("region.a.table", -1)
        self._frame = [get(f"frame.f.{n}", -1) for n in ("id", "refs", "others", CROWD, f"queued.{me}", "loose")]
        self._table = [get(f"table.t.{n}", -1) for n in ("id", "refs", "others", CROWD, f"queued.{me}", "loose")]
        self._pending = [(get(pending(me, what), -1), get(pending("crowd", what), -1)) for what in ("frame", "table")]
        self._held = [
            [(get(f"{d}.{c}.{s}.valid", -1), get(f"{d}.{c}.{s}.{what}", -1)) for d, c, s, of in scope.entries if of == kind]
            for what, kind in (("frame", "pages"), ("table", "tables"))
        ]
        slots = [s.name for s in scope.machine.layout.pages if s.foreign]
        self._foreign = [tuple(shape.places[f"{what}.{s}.{f}"] for what, f in _CONTENT) for s in slots]
        self._pc, self._active = shape.places[f"{me}.pc"], get(ACTIVE, -1)
        self._idle = not scope.paths[0].program.nodes[scope.paths[0].program.entry].successors
        self._frames, self._tabled = scope.frames, scope.tables
        told = {*self._shared, *self._all_tables, *self._page, *self._region, *self._frame, *self._table, self._active}
        told |= set(self.tallies.places())
        told |= {p for pair in (*self._pending, *(h for held in self._held for h in held)) for p in pair}
        self.lock_places = frozenset(p for lock in self._locks for p in lock.places() if p >= 0)
        told |= {p for content in self._foreign for p in content} | self.lock_places
        self.told = sorted(told - {-1})
        self.part: Callable[[Sequence[Any]], tuple[Any, ...]] = itemgetter(*self.told)

    def face(self, state: Sequence[Any], truth: Truth) -> tuple[Shared, Stand, tuple[int, int]]:
        """What everybody sees, how the thread and the rest stand, and what the thread owns. ``part`` of a state decides it."""
        return self.shared(state)[0], self.stand(state, truth), self.owned(state)

    def settling(self, state: Sequence[Any]) -> tuple[tuple[int, Any], ...]:
        """What settles in a state: (place, value) pairs. ``part`` decides it."""
        values = list(state)
        self._settle(values)
        return tuple((p, values[p]) for p in self.told if values[p] is not state[p] and values[p] != state[p])

    def turning(self, state: State, turn: Turn) -> list[tuple[tuple[int, Any], ...]]:
        """What a turn of another thread makes of a state: (place, value) pairs for each way. ``part`` decides it."""
        return [
            tuple((p, after[p]) for p in self.told if after[p] is not state[p] and after[p] != state[p])
            for after in self._turned(state, turn)
        ]  # fmt: skip

    def shared(self, state: Sequence[Any]) -> tuple[Shared, dict[int, int]]:
        """What everybody sees, and the number that each table of the state has in it."""
        return self._numbered([state[p] for p in self._shared], {})

    def _numbered(self, values: list[Any], known: dict[int, int]) -> tuple[Shared, dict[int, int]]:
        for i in self._tables:
            if values[i] >= FIRST_OTHER:
                values[i] = known.setdefault(values[i], len(known) + FIRST_OTHER)
        return tuple(values), known

    def stand(self, state: Sequence[Any], truth: Truth) -> Stand:
        """How the kept thread and the rest stand."""
        owned = self.owned(state)
        owns, rest, elsewhere = [NOTHING, NOTHING], [NOTHING, NOTHING], [False, False]
        for which, tracked, places in self._kinds():
            if tracked:
                mine, theirs = self._pending[which]
                owns[which] = PENDING if state[mine] else SOME if owned[which] > 0 else NOTHING
                rest[which] = PENDING if state[theirs] else SOME if state[places[3]] else NOTHING
                elsewhere[which] = bool(state[places[2]]) or self.elsewhere(state)[which] > 0
        locks = tuple(lock.modes(state, truth) for lock in self._locks)
        running = (not self._idle, bool(state[self._active])) if self._active >= 0 else (False, False)
        return Stand((owns[0], owns[1]), (rest[0], rest[1]), locks, running, (elsewhere[0], elsewhere[1]), *self.tallies.sides(state))

    def _kinds(self) -> tuple[tuple[int, bool, list[int]], ...]:
        return (0, self._frames, self._frame), (1, self._tabled, self._table)

    def owned(self, state: Sequence[Any]) -> tuple[int, int]:
        """How many references the thread itself owns on the frame and on the table: those known to it, without what is mapped, and what
        handlers have."""
        frame = table = 0
        if self._frames and state[self._frame[0]] != ZERO_PAGE:
            frame = state[self._frame[1]] - self._mapped(state) - self.elsewhere(state)[0] - self.tallies.handled(state)
        if self._tabled:
            table = state[self._table[1]] - self._linked(state) - self.elsewhere(state)[1]
        return frame, table

    def _mapped(self, state: Sequence[Any]) -> int:
        kind, ident = state[self._region[0]], state[self._frame[0]]
        if kind == PMD_HUGE:
            return int(state[self._region[1]] == ident)
        return int(kind == PMD_TABLE and state[self._page[0]] == PTE_PRESENT and state[self._page[1]] == ident)

    def _linked(self, state: Sequence[Any]) -> int:
        return int(state[self._region[0]] == PMD_TABLE and state[self._region[2]] == WITNESS)

    def elsewhere(self, state: Sequence[Any]) -> tuple[int, int]:
        """How many foreign entries map the frame, and link the table: none of what nobody asks about."""
        frame = table = 0
        for page, page_frame, region, region_frame, region_table in self._foreign:
            if self._frames:
                ident = state[self._frame[0]]
                frame += state[page] == PTE_PRESENT and state[page_frame] == ident
                frame += state[region] == PMD_HUGE and state[region_frame] == ident
            if self._tabled:
                table += state[region] == PMD_TABLE and state[region_table] == WITNESS
        return frame, table

    def leave(self, values: list[Any]) -> None:
        """The thread is done: what it owns, and what the entries at other addresses own, unknown holders have from now on."""
        owned, elsewhere = self.owned(values), self.elsewhere(values)
        for which, tracked, places in self._kinds():
            if tracked and not (which == 0 and values[places[0]] == ZERO_PAGE):
                values[places[2]] = values[places[2]] or owned[which] > 0 or elsewhere[which] > 0
                values[places[1]] = self._linked(values) if which else self._mapped(values) + self.tallies.handled(values)

    def _settle(self, values: list[Any]) -> None:
        """References that are too many to count go to the unknown holders, who may let go at any moment: of those queued one is kept, of
        those owned otherwise two. The zero page, which is never freed, needs none."""
        for which, tracked, (ident, refs, others, _, queued, loose) in self._kinds():
            if not tracked:
                continue
            if which == 0 and values[ident] == ZERO_PAGE:
                values[refs], values[queued], values[loose] = 0, 0, True
                continue
            if values[queued] > 1:
                less = min(values[queued] - 1, values[refs])
                values[queued], values[refs], values[others] = 1, values[refs] - less, values[others] or less > 0
            many = self.owned(values)[which] - values[queued] - 2
            if many > 0:
                values[refs], values[others] = values[refs] - many, True

    def outdated(self, state: Sequence[Any]) -> list[int]:
        """Where a state says that a reference is of a cleared entry which no device holds any more: a question of what everybody sees, so
        that both threads answer it alike."""
        return [
            place for which, tracked, _ in self._kinds() if tracked
            for place in self._pending[which] if state[place] and not self._is_held(state, which)
        ]  # fmt: skip

    def loosened(self, before: Sequence[Any], after: Sequence[Any]) -> bool:
        """Whether a reference was dropped that the thread did not have: it may have been anybody's."""
        return any(t and after[p[5]] and not before[p[5]] for _, t, p in self._kinds())

    def _is_held(self, values: Sequence[Any], which: int) -> bool:
        """Whether a device holds the witness's frame, or table."""
        ident = values[self._frame[0]] if which == 0 else WITNESS
        return any(values[valid] and values[target] == ident for valid, target in self._held[which] if valid >= 0)

    def moved(self, before: State, values: list[Any]) -> None:
        """The thread has made a move: whether what it owns now came from the witness's entry."""
        self.tallies.moved(before, values)
        owned = self.owned(values)
        for which, tracked, _ in self._kinds():
            if tracked:
                there = self._linked if which else self._mapped
                cleared = there(before) > there(values)
                mine = self._pending[which][0]
                values[mine] = owned[which] > 0 and (values[mine] or cleared)

    def deed(self, before: State, after: Sequence[Any], truth: Truth, leaves: bool,
             renamed: Sequence[tuple[int, int]]) -> tuple[Shared, Deed] | None:  # fmt: skip
        """What a move of the thread does that others can tell: (what was seen before, the deed), None if nothing. ``leaves``: the thread
        is done; what it owns then, nobody known does. ``renamed``: what the tables of ``before`` are called in ``after``. The ``part`` of
        each decides it."""
        seen, numbers = self.shared(before)
        old, new = self.stand(before, truth), self.stand(after, truth)
        known_as = {name: table for table, name in renamed}
        values = [after[p] for p in self._shared]
        for i in self._tables:
            values[i] = known_as.get(values[i], values[i])
        then, _ = self._numbered(values, dict(numbers))
        had, has = self.owned(before), self.owned(after)
        holders = [False, False]
        for which, tracked, places in self._kinds():
            if tracked and has[which] < had[which]:
                more = self.elsewhere(after)[which] > self.elsewhere(before)[which]
                holders[which] = bool(after[places[2]]) or more
            if leaves and has[which] > 0:
                holders[which] = True
        if leaves:
            locks = tuple(m if m is None else ("", m[1]) for m in new.locks)
            elsewhere = new.elsewhere[0] or has[0] > 0, new.elsewhere[1] or has[1] > 0
            new = replace(new, owns=(NOTHING, NOTHING), locks=locks, running=(False, new.running[1]), elsewhere=elsewhere)
        same = seen == then and not any(holders) and (old.owns, old.elsewhere) == (new.owns, new.elsewhere)
        if same and old.running[0] == new.running[0] and _mine(old) == _mine(new):
            return None
        return seen, Deed(old, new, then, (holders[0], holders[1]))

    def _turned(self, state: State, turn: Turn) -> list[list[Any]]:
        """The states that a turn of another thread makes of this one. A table new to all may be one that this thread remembers."""
        values = list(state)
        _, numbers = self.shared(state)
        owned = self.owned(state)
        if any(here and not there for here, there in zip(self.elsewhere(state), turn.elsewhere, strict=True)):
            return []  # an entry that this thread looks at owns a reference
        known = {number: table for table, number in numbers.items()}
        fresh = [v for i, v in enumerate(turn.shared) if i in self._tables and v >= FIRST_OTHER and v not in known]
        remembered = {values[p] for p in self._all_tables if values[p] >= FIRST_OTHER} - set(numbers)
        unused = max([FIRST_OTHER, *(values[p] + 1 for p in self._all_tables)])
        found = []
        for chosen in product(*([*sorted(remembered), unused + i] for i, _ in enumerate(dict.fromkeys(fresh)))):
            if len(set(chosen)) == len(chosen):
                found.append(self._with(values, turn, known | dict(zip(dict.fromkeys(fresh), chosen, strict=True)), owned))
        return found

    def _with(self, values: list[Any], turn: Turn, tables: dict[int, int], owned: tuple[int, int]) -> list[Any]:
        after, elsewhere = list(values), self.elsewhere(values)
        for i, place in enumerate(self._shared):
            after[place] = turn.shared[i]
        for i in self._tables:
            if turn.shared[i] >= FIRST_OTHER:
                after[self._shared[i]] = tables[turn.shared[i]]
        if self._frames and after[self._frame[0]] != ZERO_PAGE:
            after[self._frame[1]] = owned[0] + self._mapped(after) + self.elsewhere(after)[0] + self.tallies.handled(after)
        if self._tabled:
            after[self._table[1]] = owned[1] + self._linked(after) + self.elsewhere(after)[1]
        for which, tracked, places in self._kinds():
            if tracked:
                after[places[3]] = turn.rest_owns[which] != NOTHING
                after[self._pending[which][1]] = turn.rest_owns[which] == PENDING
                after[places[2]] = turn.elsewhere[which] and (bool(after[places[2]]) or turn.holders[which] or not elsewhere[which])
        for lock, mode in zip(self._locks, turn.locks, strict=True):
            lock.give_rest(after, mode)
        if self._active >= 0:
            after[self._active] = turn.rest_running
        return after


def pending(who: str, what: str) -> str:
    """The variable that says whether a thread, or the rest, owns the reference of a cleared entry at the witness."""
    return f"{who}.pending.{what}"


_CONTENT = (("page", "kind"), ("page", "frame"), ("region", "kind"), ("region", "frame"), ("region", "table"))


def _mine(stand: Stand) -> tuple[str | None, ...]:
    return tuple(m and m[0] for m in stand.locks)


def _is_shared(scope: Scope, name: str) -> bool:
    """Whether everybody sees it."""
    what, _, rest = name.partition(".")
    if what in ("page", "region"):
        return rest.startswith("a.") and not rest.endswith((".key", ".addr"))
    if what in ("frame", "table"):
        return rest.endswith((".id", ".loose")) or name == HANDLED
    return what == "event" or what in {d.name for d in scope.system.devices}


def reads(lock: LockDecl) -> str:
    """The variable that says whether the rest holds a lock of the address space for reading."""
    return f"crowd.{lock.name}.reads"


class _LockPlaces:
    """One lock in a world's states: of a family, the one at the witness."""

    def __init__(self, scope: Scope, shape: Shape, lock: LockDecl, me: str, every: Sequence[Hold]) -> None:
        get = shape.places.get
        self._owner, self._readers = get(f"lock.{lock.name}", -1), get(f"lock.{lock.name}.readers", -1)
        self._rest_reads = get(reads(lock), -1)
        self._numbers = {t.number: t.name == me for t in scope.paths}
        self._rest_number = next((n for n, mine in self._numbers.items() if not mine), 0)
        self._mine = [self._parts(shape, h) for h in every if h.thread == me]
        rest = next((h for h in every if h.thread != me and h.thread in {t.name for t in scope.paths}), None)
        self._rest = self._parts(shape, rest) if rest is not None else None
        self._tracked = self._rest is not None if lock.key else self._owner >= 0
        self._keyed = bool(lock.key)
        self._terms = scope.terms
        if lock.key == "address":
            addr = shape.fixed.get("page.a.addr", scope.terms.var("a", NUMBER))
            granule = scope.terms.const(lock.granule, NUMBER)
            self._key: Any = scope.terms.binary("udiv", addr, granule) if lock.granule > 1 else addr
        else:
            self._key = WITNESS

    @staticmethod
    def _parts(shape: Shape, hold: Hold) -> tuple[int, int, int]:
        return shape.places[hold.part("held")], shape.places[hold.part("shared")], shape.places[hold.part("key")]

    def places(self) -> list[int]:
        """Where a state holds it."""
        parts = [p for hold in (*self._mine, *([self._rest] if self._rest else [])) for p in hold]
        return [*parts, self._owner, self._readers, self._rest_reads]

    def modes(self, state: Sequence[Any], truth: Truth) -> Modes | None:
        """How the kept thread and the rest hold it."""
        if not self._tracked:
            return None
        if not self._keyed:
            theirs = "write" if state[self._owner] == self._rest_number else "read" if state[self._rest_reads] else ""
            readers = state[self._readers] - bool(state[self._rest_reads])
            return "write" if self._numbers.get(state[self._owner]) else "read" if readers else "", theirs
        mine = ""
        for held, shared, key in self._mine:
            if state[held] and self._at_witness(state[key], truth):
                mine = "read" if state[shared] else "write"
        assert self._rest is not None
        held, shared, _ = self._rest
        return mine, ("read" if state[shared] else "write") if state[held] else ""

    def _at_witness(self, key: Any, truth: Truth) -> bool:
        if isinstance(key, Term):
            term = self._terms.eq(key, self._key)
            return bool(term.value) if term.op == "const" else truth(term)
        return bool(key == self._key)

    def give_rest(self, values: list[Any], mode: str | None) -> None:
        """From now on the rest holds it so."""
        if not self._tracked or mode is None:
            return
        if self._keyed:
            assert self._rest is not None
            held, shared, key = self._rest
            values[held], values[shared] = bool(mode), mode == "read"
            values[key] = self._key if mode else self._none()
            return
        if values[self._owner] == self._rest_number:
            values[self._owner] = 0
        if values[self._rest_reads]:
            values[self._readers] -= 1
        values[self._rest_reads] = mode == "read"
        if mode == "write":
            values[self._owner] = self._rest_number
        elif mode == "read":
            values[self._readers] += 1

    def _none(self) -> Any:
        return self._terms.const(0, NUMBER) if isinstance(self._key, Term) else 0
