"""What the threads of a crowd see of each other: the *face* of a situation, and what one thread's step does to the faces of the others.

A face is what everybody sees (the entries at the witness, what devices hold of it) and how the thread and the rest stand to what can be
owned or held: references on the witness's frame and table, and the locks at the witness. Two threads' situations can be those of one moment
only if their faces agree (mmucheck/README.md, "Again and again").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from mmucheck.ir.program import LockDecl
from mmucheck.lower.normal import is_table
from mmucheck.lower.scope import Scope
from mmucheck.lower.situations import ACTIVE, ELSEWHERE, ME, REST, RUNS, is_shared, own_lock, pending, reads
from mmucheck.lower.tallies import Tallies
from mmucheck.machine.concolic import FIRST_OTHER, WITNESS
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.state import CROWD, PMD_HUGE, PMD_TABLE, PTE_PRESENT, ZERO_PAGE, Hold
from mmucheck.machine.terms import Term
from mmucheck.records import record

Owns = int
"""NOTHING, SOME references, or PENDING: among them the one of an entry at the witness that it has cleared while devices still hold it."""
NOTHING, SOME, PENDING = 0, 1, 2

Values = Sequence[Any]
"""Of a situation, by column."""
Shared = tuple[Any, ...]
"""What everybody sees; tables numbered in order of appearance."""
Modes = tuple[str, str]
"""How a thread and the rest hold a lock: "", read or write."""


@record
class Stand:
    """How a thread and the rest stand to what can be owned: references on the frame and on the table; ``locks``: None for one that no
    two threads take, so that nobody keeps who holds it; ``running``: whether each runs a path; ``elsewhere``: whether there are
    references that entries at other addresses own, or nobody known; ``added``: to the devices' counters."""

    owns: tuple[Owns, Owns]
    rest_owns: tuple[Owns, Owns]
    locks: tuple[Modes | None, ...]
    running: tuple[bool, bool]
    elsewhere: tuple[bool, bool]
    added: tuple[int, ...] = ()
    rest_added: tuple[int, ...] = ()

    def mirrored(self) -> Stand:
        """How the other thread stands at the same moment: each is all that the other takes for the rest."""
        locks = tuple(m and (m[1], m[0]) for m in self.locks)
        running = self.running[1], self.running[0]
        return Stand(self.rest_owns, self.owns, locks, running, self.elsewhere, self.rest_added, self.added)


Face = tuple[Shared, Stand]


@record
class Sight:
    """What is to be seen of a situation: what everybody sees, and the number that each table has in it; how the thread and the rest stand;
    how many references the thread owns on the frame and on the table."""

    shared: Shared
    numbers: Mapping[int, int]
    stand: Stand
    owned: tuple[int, int]

    @property
    def face(self) -> Face:
        """What others can tell, and how the thread stands to them."""
        return self.shared, self.stand


@record
class Turn:
    """What a step of one thread makes of what another sees and of how the rest stands there; ``holders``: whether holders that nobody
    knows may have come by a reference (on the frame, on the table)."""

    shared: Shared
    rest_owns: tuple[Owns, Owns]
    locks: tuple[str | None, ...]
    rest_running: bool
    elsewhere: tuple[bool, bool]
    holders: tuple[bool, bool]


class Faces:
    """Faces of situations whose columns are at these ``places``. ``locks``: those of the address space and of the devices."""

    def __init__(self, scope: Scope, places: Mapping[str, int], locks: Sequence[LockDecl]) -> None:
        names = [n for n in places if is_shared(scope, n)]
        self._shared = [places[n] for n in names]
        self._tables = [i for i, n in enumerate(names) if is_table(scope, n)]
        self._all_tables = [p for n, p in places.items() if is_table(scope, n)]
        every = scope.machine.holds
        self._locks = [_LockPlaces(scope, places, lock, [h for h in every if h.lock == lock]) for lock in locks]
        self.tallies = Tallies(scope, places, ME)
        get = places.get
        self._page = get("page.a.kind", -1), get("page.a.frame", -1)
        self._region = get("region.a.kind", -1), get("region.a.frame", -1), get("region.a.table", -1)
        self._frame = [get(f"frame.f.{n}", -1) for n in ("id", "refs", "others", CROWD, f"queued.{ME}", "loose")]
        self._table = [get(f"table.t.{n}", -1) for n in ("id", "refs", "others", CROWD, f"queued.{ME}", "loose")]
        self._pending = [(get(pending(ME, what), -1), get(pending("crowd", what), -1)) for what in ("frame", "table")]
        self._held = [
            [(get(f"{d}.{c}.{s}.valid", -1), get(f"{d}.{c}.{s}.{what}", -1)) for d, c, s, of in scope.entries if of == kind]
            for what, kind in (("frame", "pages"), ("table", "tables"))
        ]
        self._elsewhere = places[ELSEWHERE[0]], places[ELSEWHERE[1]]
        self._runs, self._active = places[RUNS], get(ACTIVE, -1)
        self._frames, self._tabled = scope.frames, scope.tables

    def sight(self, values: Values) -> Sight:
        """What is to be seen of a situation."""
        shared, numbers = self._numbered([values[p] for p in self._shared], {})
        owned = self.owned(values)
        return Sight(shared, numbers, self._stand(values, owned), owned)

    def _numbered(self, values: list[Any], known: dict[int, int]) -> tuple[Shared, dict[int, int]]:
        for i in self._tables:
            if values[i] >= FIRST_OTHER:
                values[i] = known.setdefault(values[i], len(known) + FIRST_OTHER)
        return tuple(values), known

    def _stand(self, values: Values, owned: tuple[int, int]) -> Stand:
        owns, rest, elsewhere = [NOTHING, NOTHING], [NOTHING, NOTHING], [False, False]
        for which, tracked, places in self._kinds():
            if tracked:
                mine, theirs = self._pending[which]
                owns[which] = PENDING if values[mine] else SOME if owned[which] > 0 else NOTHING
                rest[which] = PENDING if values[theirs] else SOME if values[places[3]] else NOTHING
                elsewhere[which] = bool(values[places[2]]) or values[self._elsewhere[which]] > 0
        locks = tuple(lock.modes(values) for lock in self._locks)
        running = (bool(values[self._runs]), bool(values[self._active])) if self._active >= 0 else (False, False)
        return Stand((owns[0], owns[1]), (rest[0], rest[1]), locks, running, (elsewhere[0], elsewhere[1]), *self.tallies.sides(values))

    def _kinds(self) -> tuple[tuple[int, bool, list[int]], ...]:
        return (0, self._frames, self._frame), (1, self._tabled, self._table)

    def owned(self, values: Values) -> tuple[int, int]:
        """How many references the thread itself owns on the frame and on the table: those known to it, without what is mapped, and what
        handlers have."""
        frame = table = 0
        if self._frames and values[self._frame[0]] != ZERO_PAGE:
            frame = values[self._frame[1]] - self._mapped(values) - values[self._elsewhere[0]] - self.tallies.handled(values)
        if self._tabled:
            table = values[self._table[1]] - self._linked(values) - values[self._elsewhere[1]]
        return frame, table

    def _mapped(self, values: Values) -> int:
        """Whether the entry at the witness owns a reference on the frame. In a table that is not linked any more it keeps it."""
        ident = values[self._frame[0]]
        if values[self._region[0]] == PMD_HUGE:
            return int(values[self._region[1]] == ident)
        return int(values[self._page[0]] == PTE_PRESENT and values[self._page[1]] == ident)

    def _linked(self, values: Values) -> int:
        return int(values[self._region[0]] == PMD_TABLE and values[self._region[2]] == WITNESS)

    def leave(self, values: list[Any]) -> None:
        """The thread is done: what it owns, and what the entries at other addresses own, unknown holders have from now on."""
        owned = self.owned(values)
        for which, tracked, places in self._kinds():
            if tracked and not (which == 0 and values[places[0]] == ZERO_PAGE):
                values[places[2]] = values[places[2]] or owned[which] > 0 or values[self._elsewhere[which]] > 0
                values[places[1]] = self._linked(values) if which else self._mapped(values) + self.tallies.handled(values)

    def settle(self, values: list[Any]) -> None:
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

    def outdated(self, values: Values) -> list[int]:
        """Where a situation says that a reference is of a cleared entry which no device holds any more: a question of what everybody sees,
        so that both threads answer it alike."""
        return [
            place for which, tracked, _ in self._kinds() if tracked
            for place in self._pending[which] if values[place] and not self._is_held(values, which)
        ]  # fmt: skip

    def loosened(self, before: Values, after: Values) -> bool:
        """Whether a reference was dropped that the thread did not have: it may have been anybody's."""
        return any(t and after[p[5]] and not before[p[5]] for _, t, p in self._kinds())

    def _is_held(self, values: Values, which: int) -> bool:
        """Whether a device holds the witness's frame, or table."""
        ident = values[self._frame[0]] if which == 0 else WITNESS
        return any(values[valid] and values[target] == ident for valid, target in self._held[which] if valid >= 0)

    def moved(self, before: Values, values: list[Any]) -> None:
        """The thread has made a move: whether what it owns now came from the witness's entry."""
        self.tallies.moved(before, values)
        owned = self.owned(values)
        for which, tracked, _ in self._kinds():
            if tracked:
                there = self._linked if which else self._mapped
                cleared = there(before) > there(values)
                mine = self._pending[which][0]
                values[mine] = owned[which] > 0 and (values[mine] or cleared)

    def deed(self, before: Values, seen: Sight, after: Values, now: Sight, leaves: bool, renamed: Mapping[int, int]) -> Turn | None:
        """What a move of the thread is to the other, None if it cannot tell. ``seen`` of it before, ``now`` after. ``leaves``:
        the thread is done; what it owns then, nobody known does. ``renamed``: what the tables of ``before`` are called in ``after``."""
        then = now.shared
        if now.numbers and seen.numbers:  # else its own numbering is the same
            known_as = {name: table for table, name in renamed.items()}
            values = [after[p] for p in self._shared]
            for i in self._tables:
                values[i] = known_as.get(values[i], values[i])
            then, _ = self._numbered(values, dict(seen.numbers))
        old, new = seen.stand, now.stand
        had, has = seen.owned, now.owned
        holders = [False, False]
        for which, tracked, places in self._kinds():
            if tracked and has[which] < had[which]:
                more = after[self._elsewhere[which]] > before[self._elsewhere[which]]
                holders[which] = bool(after[places[2]]) or more
            if tracked and after[places[2]] and not before[places[2]]:  # entries elsewhere map it from now on, or one is only forgotten
                forgotten = after[self._elsewhere[which]] < before[self._elsewhere[which]] and has[which] == had[which]
                holders[which] = holders[which] or not forgotten
            if leaves and has[which] > 0:
                holders[which] = True
        if leaves:
            locks = tuple(m if m is None else ("", m[1]) for m in new.locks)
            elsewhere = new.elsewhere[0] or has[0] > 0, new.elsewhere[1] or has[1] > 0
            new = replace(new, owns=(NOTHING, NOTHING), locks=locks, running=(False, new.running[1]), elsewhere=elsewhere)
        same = seen.shared == then and not any(holders) and (old.owns, old.elsewhere) == (new.owns, new.elsewhere)
        if same and old.running[0] == new.running[0] and _mine(old) == _mine(new):
            return None
        return Turn(then, new.owns, _mine(new), new.running[0], new.elsewhere, (holders[0], holders[1]))

    def begun(self, sight: Sight) -> Turn:
        """What it is to the other thread that this one, which has run nothing, begins a path."""
        shared, stand = sight.face
        return Turn(shared, stand.owns, _mine(stand), True, stand.elsewhere, (False, False))

    def turned(self, values: Values, sight: Sight, turn: Turn) -> list[list[Any]]:
        """What a turn of another thread makes of a situation. A table new to all may be one that this thread remembers."""
        numbers, owned = sight.numbers, sight.owned
        if any(values[here] and not there for here, there in zip(self._elsewhere, turn.elsewhere, strict=True)):
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

    def _with(self, values: Values, turn: Turn, tables: dict[int, int], owned: tuple[int, int]) -> list[Any]:
        after = list(values)
        for i, place in enumerate(self._shared):
            after[place] = turn.shared[i]
        for i in self._tables:
            if turn.shared[i] >= FIRST_OTHER:
                after[self._shared[i]] = tables[turn.shared[i]]
        elsewhere = values[self._elsewhere[0]], values[self._elsewhere[1]]
        if self._frames and after[self._frame[0]] != ZERO_PAGE:
            after[self._frame[1]] = owned[0] + self._mapped(after) + elsewhere[0] + self.tallies.handled(after)
        if self._tabled:
            after[self._table[1]] = owned[1] + self._linked(after) + elsewhere[1]
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


def _mine(stand: Stand) -> tuple[str | None, ...]:
    return tuple(m and m[0] for m in stand.locks)


class _LockPlaces:
    """One lock in situations: of a family, the one at the witness."""

    def __init__(self, scope: Scope, places: Mapping[str, int], lock: LockDecl, every: Sequence[Hold]) -> None:
        get = places.get
        self._owner, self._readers = get(f"lock.{lock.name}", -1), get(f"lock.{lock.name}.readers", -1)
        self._rest_reads = get(reads(lock), -1)
        self._numbers = {t.number: t.name == ME for t in scope.paths}
        self._rest_number = next((n for n, mine in self._numbers.items() if not mine), 0)
        self._mine = get(own_lock(lock), -1)
        rest = next((h for h in every if h.thread == REST), None)
        self._rest = (places[rest.part("held")], places[rest.part("shared")], places[rest.part("key")]) if rest is not None else None
        self._tracked = self._rest is not None if lock.key else self._owner >= 0
        self._keyed = bool(lock.key)
        self._key = key_at_witness(scope, lock)
        self._no_key = scope.terms.const(0, NUMBER) if isinstance(self._key, Term) else 0

    def modes(self, values: Values) -> Modes | None:
        """How the kept thread and the rest hold it."""
        if not self._tracked:
            return None
        if not self._keyed:
            theirs = "write" if values[self._owner] == self._rest_number else "read" if values[self._rest_reads] else ""
            readers = values[self._readers] - bool(values[self._rest_reads])
            return "write" if self._numbers.get(values[self._owner]) else "read" if readers else "", theirs
        assert self._rest is not None
        held, shared, _ = self._rest
        return values[self._mine], ("read" if values[shared] else "write") if values[held] else ""

    def give_rest(self, values: list[Any], mode: str | None) -> None:
        """From now on the rest holds it so."""
        if not self._tracked or mode is None:
            return
        if self._keyed:
            assert self._rest is not None
            held, shared, key = self._rest
            values[held], values[shared] = bool(mode), mode == "read"
            values[key] = self._key if mode else self._no_key
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


def key_at_witness(scope: Scope, lock: LockDecl) -> Any:
    """The key of a family's lock that is the one at the witness."""
    if lock.key != "address":
        return WITNESS
    addr = scope.terms.var("a", NUMBER)
    granule = scope.terms.const(lock.granule, NUMBER)
    return scope.terms.binary("udiv", addr, granule) if lock.granule > 1 else addr
