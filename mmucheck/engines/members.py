"""What an exploration of a crowd keeps: of each path its cells, the states seen in them with what they have met, and arrivals at loops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmucheck.engines.cells import Cell, Exhausted
from mmucheck.lower.crowd import ENTRY, MemberWorld
from mmucheck.lower.faces import Deed, Shared, Stand
from mmucheck.lower.scope import State
from mmucheck.machine.terms import Term
from mmucheck.records import record

Stands = tuple[tuple[str, Term], ...]
"""What the variables at a loop's head stand for."""
Met = tuple[int, int]
"""On the way on which a state was found first: the paths (a bit for each) that have done something beside this run of the thread's, and
all others without which it would not have been found."""
ALL = -1
"""Every path, as bits."""
Doers = tuple[int, int]
"""Of a deed: the paths that do it, and all without which that would not have been seen the first time."""


class Blamed(Exhausted):
    """The argument does not apply to the run of a path: the ``doer``-th one of the crowd, after what ``met`` says it has met."""

    def __init__(self, why: str, doer: int, met: Met) -> None:
        super().__init__(why)
        self.doer, self.met = doer, met


@record
class Arrival:
    """Control comes to the ``head`` of a loop, from the ``source``-th cell: what the variables there stand for, and which arguments and
    variables of outer loops are still in use."""

    source: int
    head: int
    stands: Stands
    kept: frozenset[str]


@dataclass
class Arrived:
    """The states that arrive so with what they have met, and the cells in which they go on."""

    states: dict[State, Met] = field(default_factory=dict)
    targets: list[int] = field(default_factory=list)


@dataclass
class MemberCell(Cell[MemberWorld]):
    """One choice of the numbers of one path on a ``segment`` of it (where that begins), and the states seen for it with what they have
    met."""

    segment: int = ENTRY
    seen: dict[State, Met] = field(default_factory=dict)
    faces: dict[tuple[Any, ...], tuple[Shared, Stand, tuple[int, int]]] = field(default_factory=dict)
    deeds: dict[tuple[Any, ...], tuple[Shared, Deed] | None] = field(default_factory=dict)

    def face(self, state: State) -> tuple[Shared, Stand, tuple[int, int]]:
        """See mmucheck.lower.faces.Faces.face."""
        part = self.world.faces.part(state)
        found = self.faces.get(part)
        if found is None:
            found = self.faces[part] = self.world.faces.face(state, self.truth)
        return found

    def deed(self, before: State, after: State, leaves: bool, renamed: tuple[tuple[int, int], ...]) -> tuple[Shared, Deed] | None:
        """See mmucheck.lower.faces.Faces.deed."""
        key = (self.world.faces.part(before), self.world.faces.part(after), leaves, renamed)
        if key not in self.deeds:
            self.deeds[key] = self.world.faces.deed(before, after, self.truth, leaves, renamed)
        return self.deeds[key]


@dataclass
class Member:
    """A program of the crowd: its world, its ``bit`` (0 for nothing), the programs that may run ``beside`` it, its cells, where it began,
    the arrivals at its loops' heads; ``covered``: of segments, how many comparisons each of its cells had made when there were no numbers
    outside."""

    world: MemberWorld
    bit: int = 0
    beside: int = ALL
    cells: list[MemberCell] = field(default_factory=list)
    entries: dict[tuple[tuple[str, Any], ...], int] = field(default_factory=dict)
    arrivals: dict[Arrival, Arrived] = field(default_factory=dict)
    covered: dict[int, tuple[int, ...]] = field(default_factory=dict)
    ends: bool = False

    def of(self, segment: int) -> list[int]:
        """The cells of a segment."""
        return [i for i, cell in enumerate(self.cells) if cell.segment == segment]


@dataclass
class Outcome:
    """What exploring came to. ``alarms``: by claim, the path whose thread came to a state that breaks it, and where it was; ``reason``:
    why it is not complete, "" if it is."""

    members: list[Member] = field(default_factory=list)
    states: int = 0
    alarms: dict[str, str] = field(default_factory=dict)
    says: set[str] = field(default_factory=set)
    reason: str = ""

    @property
    def cells(self) -> int:
        """Of all paths together."""
        return sum(len(m.cells) for m in self.members)
