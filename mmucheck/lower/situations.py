"""States of a crowd's thread, taken apart: what is *local* to the thread, and the *situation*, which is what everybody sees and how the
thread and the rest stand to it.

Few situations and few local states make many states: so situations are numbered, and a set of them is a number with their bits. Places
of a situation are called *columns* (mmucheck/README.md, "Again and again": *Sets of states*).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from mmucheck.ir.program import LockDecl, System
from mmucheck.lower.scope import ALIVE, Scope
from mmucheck.lower.tallies import HANDLED, Tallies
from mmucheck.machine.state import CROWD

ME, REST = "vmm1", "vmm2"
"""The thread that is kept, and the other."""
ACTIVE = "crowd.active"
"""Whether the other runs a path."""
RUNS = "own.runs"
"""Whether the kept thread does."""
ELSEWHERE = "own.elsewhere.frames", "own.elsewhere.tables"
"""How many entries in the slots through which the thread looks at other addresses map the frame, and link the table."""

T = TypeVar("T")
Situation = tuple[Any, ...]
Bits = int
"""A set of situations."""


def pending(who: str, what: str) -> str:
    """The variable that says whether a thread, or the rest, owns the reference of a cleared entry at the witness."""
    return f"{who}.pending.{what}"


def reads(lock: LockDecl) -> str:
    """The variable that says whether the rest holds a lock without a key for reading."""
    return f"crowd.{lock.name}.reads"


def own_lock(lock: LockDecl) -> str:
    """The column that says how the kept thread holds the lock of a family that is the one at the witness."""
    return f"own.lock.{lock.name}"


def own_table(place: int) -> str:
    """The column of a table that the thread remembers, beside those that everybody sees."""
    return f"own.{place}.table"


def all_locks(system: System) -> tuple[LockDecl, ...]:
    """Those of the address space, and the devices'."""
    return (*system.locks, *(lock for d in system.devices for lock in d.locks))


def beside_the_machine(scope: Scope, ends: bool) -> dict[str, Any]:
    """What a state holds beside what the machine keeps, as it is at first. ``ends``: whether a property asks if everybody is done."""
    extra: dict[str, Any] = {reads(lock): False for lock in all_locks(scope.system) if not lock.key}
    extra |= {f"frame.{f}.{CROWD}": False for f in scope.machine.layout.frames}
    extra |= {f"table.{t}.{CROWD}": False for t in scope.machine.layout.tables}
    kinds = [what for what, slots in (("frame", scope.machine.layout.frames), ("table", scope.machine.layout.tables)) if slots]
    extra |= {pending(who, what): False for who in (ME, "crowd") for what in kinds}
    return extra | Tallies.extra(scope, ME) | ({ACTIVE: False} if ends else {})


def is_shared(scope: Scope, name: str) -> bool:
    """Whether everybody sees a variable."""
    what, _, rest = name.partition(".")
    if what in ("page", "region"):
        return rest.startswith("a.") and not rest.endswith((".key", ".addr"))
    if what in ("frame", "table"):
        return rest.endswith((".id", ".loose")) or name == HANDLED
    return what == "event" or what in {d.name for d in scope.system.devices}


def column_names(scope: Scope, names: Sequence[str], tables: int) -> tuple[str, ...]:
    """Of the names of a state's variables those that are of its situation, and what is only a situation's. ``tables``: how many a thread
    may remember."""
    keyed = {h.lock.name: h.lock for h in scope.machine.holds if h.thread == REST}
    own = [RUNS, *ELSEWHERE, *(own_lock(lock) for lock in keyed.values()), *(own_table(i) for i in range(tables))]
    return (*(n for n in names if _is_of_situation(scope, n)), *own)


def _is_of_situation(scope: Scope, name: str) -> bool:
    if is_shared(scope, name) or name in (ALIVE, ACTIVE):
        return True
    what, _, rest = name.partition(".")
    if what in ("frame", "table"):
        return not (rest.partition(".")[2].startswith("queued.") and not rest.endswith(f".{ME}"))
    if what == "lock":
        return f".{ME}." not in name
    return what == "crowd" or name.startswith((f"{ME}.pending.", f"{ME}.added."))


class Numbers(Generic[T]):
    """Gives each value a number, from 0. ``all``: the values by number."""

    def __init__(self) -> None:
        self.all: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        """The number of a value, a new one if it has none."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.all)
            self.all.append(value)
        return found


class Situations(Numbers[Situation]):
    """Numbers for situations. ``places``: the column of a name."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.places: Mapping[str, int] = {n: i for i, n in enumerate(names)}
        self._by: dict[int, dict[Any, Bits]] = {}
        self._sorted: dict[int, int] = {}

    def by(self, column: int) -> Mapping[Any, Bits]:
        """All situations by what they hold in a column."""
        found, start = self._by.setdefault(column, {}), self._sorted.get(column, 0)
        if start < len(self.all):
            more: dict[Any, list[int]] = {}
            for i in range(start, len(self.all)):
                more.setdefault(self.all[i][column], []).append(i)
            for value, numbers in more.items():
                found[value] = found.get(value, 0) | bits_of(numbers)
            self._sorted[column] = len(self.all)
        return found


def bits_of(numbers: Sequence[int]) -> Bits:
    """The set of these; they ascend."""
    if not numbers:
        return 0
    base = numbers[0] >> 3
    array = bytearray((numbers[-1] >> 3) - base + 1)
    for n in numbers:
        array[(n >> 3) - base] |= 1 << (n & 7)
    return int.from_bytes(array, "little") << (base << 3)


_IN_BYTE = [tuple(i for i in range(8) if byte >> i & 1) for byte in range(256)]
_SOME = re.compile(rb"[^\0]")


def each(bits: Bits) -> Iterator[int]:
    """The numbers in a set, ascending."""
    if not bits:
        return
    base = first(bits) & ~7
    array = (bits >> base).to_bytes((bits.bit_length() - base + 7) >> 3, "little")
    for found in _SOME.finditer(array):
        at = found.start()
        here = base + (at << 3)
        for i in _IN_BYTE[array[at]]:
            yield here + i


def first(bits: Bits) -> int:
    """The lowest number in a set that is not empty."""
    return (bits & -bits).bit_length() - 1
