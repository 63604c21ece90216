"""What an exploration of a crowd keeps: of each path its cells, the states seen in them, and arrivals at loops."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmucheck.engines.cells import Cell, Exhausted
from mmucheck.lower.crowd import ENTRY, Local, Marks, MemberWorld
from mmucheck.lower.situations import Bits
from mmucheck.lower.surroundings import Surroundings
from mmucheck.machine.terms import Term
from mmucheck.records import record

Stands = tuple[tuple[str, Term], ...]
"""What the variables at a loop's head stand for."""
ALL = -1
"""Every path, as bits."""


class Blamed(Exhausted):
    """The argument does not apply to a run of a path: the ``doer`` (a bit; 0 if the thread runs nothing)."""

    def __init__(self, why: str, doer: int) -> None:
        super().__init__(why)
        self.doer = doer


@record
class Arrival:
    """Control comes to the ``head`` of a loop, from the ``source``-th cell: what the variables there stand for, which arguments and
    variables of outer loops are still in use, and what numbers there are compared with."""

    source: int
    head: int
    stands: Stands
    kept: frozenset[str]
    marks: Marks


@dataclass
class Arrived:
    """The states that arrive so, and the cells in which they go on."""

    states: dict[Local, Bits] = field(default_factory=dict)
    targets: list[int] = field(default_factory=list)


@dataclass
class MemberCell(Cell[MemberWorld]):
    """One choice of the numbers of one path on a ``segment`` of it (where that begins). ``seen``: by what is local, the situations in
    which that has been seen; ``found``: those that have still to be followed."""

    segment: int = ENTRY
    seen: dict[Local, Bits] = field(default_factory=dict)
    found: dict[Local, Bits] = field(default_factory=dict)

    @property
    def states(self) -> int:
        """How many have been seen."""
        return sum(of.bit_count() for of in self.seen.values())


@dataclass
class Member:
    """A program of the crowd: its world, its ``bit``, the programs that may run ``beside`` it, its cells, the situations in which it
    begins, the arrivals at its loops' heads; ``covered``: of segments, how many comparisons each of its cells had made when there were no
    numbers outside; ``ends``: whether it was seen to run to its end; ``heap``: what is to be followed, what comes first in the program
    first: (place in the program, number, cell, what is local); ``known``: how much it knows of how its relation has grown."""

    world: MemberWorld
    bit: int
    beside: int = ALL
    cells: list[MemberCell] = field(default_factory=list)
    entries: Bits = 0
    arrivals: dict[Arrival, Arrived] = field(default_factory=dict)
    covered: dict[int, tuple[int, ...]] = field(default_factory=dict)
    ends: bool = False
    heap: list[tuple[int, int, int, Local]] = field(default_factory=list)
    known: int = 0

    def of(self, segment: int) -> list[int]:
        """The cells of a segment."""
        return [i for i, cell in enumerate(self.cells) if cell.segment == segment]


@dataclass
class Outcome:
    """What exploring came to. ``idle``: the situations seen by a thread that runs nothing; ``alarms``: by claim, the path whose thread
    came to a state that breaks it, and where it was; ``reason``: why it is not complete, "" if it is."""

    surroundings: Surroundings | None = None
    members: list[Member] = field(default_factory=list)
    idle: Bits = 0
    states: int = 0
    alarms: dict[str, str] = field(default_factory=dict)
    says: set[str] = field(default_factory=set)
    reason: str = ""

    @property
    def cells(self) -> int:
        """Of all paths together, and the one in which none runs."""
        return 1 + sum(len(m.cells) for m in self.members)
