"""Deciding the properties of two VMM threads, each of which runs any of some paths any number of times: a crowd.

The threads are looked at one at a time (Flanagan and Qadeer, SPIN 2003): the states of each path are explored beside the deeds of all
others, until no thread does anything that has not been taken into account. What this rests on: mmucheck/README.md, "Again and again".
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmucheck.engines.cells import Exhausted
from mmucheck.engines.claims import said
from mmucheck.engines.evidence import covering
from mmucheck.engines.joins import Joins
from mmucheck.engines.members import ALL, Arrival, Arrived, Blamed, Doers, Member, MemberCell, Met, Outcome
from mmucheck.engines.solver import Limits
from mmucheck.ir.crowd import Crowd
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower.beside import Write, Writes
from mmucheck.lower.crowd import ENTRY, MemberWorld
from mmucheck.lower.faces import Deed, Shared, Stand, Turn, turn
from mmucheck.lower.scope import State

METHOD = "thread-modular exploration"
MAX_STATES = 6_000_000
"""Explored for one group of properties."""


class _Again(Exception):
    """What was taken for granted about other threads, or about numbers, is not so: begin again with what is known now."""


class Exploration:
    """The states of every path of a crowd, for properties that ask about the same kinds of things. ``apart``: for each path those, as
    bits, that never run beside it; ``skip``: those, as bits, that never run."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], limits: Limits, deadline: float) -> None:
        self._crowd, self._properties = Crowd(system), tuple(properties)
        self._limits, self.deadline = limits, deadline
        self.apart, self.skip = [0] * len(system.threads), 0
        self._joins = Joins(limits)
        self._wanted = {p.name for p in properties}
        self.written: list[frozenset[Write]] = [frozenset() for _ in system.threads]
        self._aligned: dict[str, int] = {}
        self._worlds: dict[int, MemberWorld] = {}
        self._given: list[list[dict[str, int]]] | None = None
        self.outcome = Outcome()

    def repeat(self, members: Sequence[Sequence[dict[str, int]]]) -> Outcome:
        """Explore the cells of these members (of each path, of each segment) and no others: whether they are all is for ``evidence``."""
        self._given = [list(of_segment) for of_segment in members]
        return self.run()

    def evidence(self) -> list[tuple[str, list[dict[str, int]]]]:
        """For each path, for each segment of it: SMT-LIB script of what must be unsatisfiable if every cell has been explored, and a member
        of every cell."""
        found = []
        for member in self.outcome.members[1:]:
            for segment in member.world.segments:
                cells = [member.cells[i] for i in member.of(segment)]
                text = covering(self._joins.terms, member.world.assume, [c.condition() for c in cells])
                found.append((text, [c.model for c in cells]))
        return found

    def run(self) -> Outcome:
        """Explore until nothing new comes up, every property is in doubt, or a limit is reached."""
        while True:
            try:
                self._begin()
                self._explore()
                self._taken_for_granted()
            except _Again:
                continue
            except Exhausted as limit:
                self.outcome.reason = str(limit)
            return self.outcome

    def _begin(self) -> None:
        number = len(self._crowd.system.threads)
        try:
            worlds = [self._world(-1, frozenset()), *(self._world(i, self._written_beside(i)) for i in range(number))]
        except ValueError as obstacle:
            raise Exhausted(str(obstacle)) from None
        bits = [(0, ALL), *((1 << i, ~apart) for i, apart in enumerate(self.apart))]
        self._joins.deadline, self._before = self.deadline, self.outcome.states
        self.outcome = Outcome([Member(w, *b) for w, b in zip(worlds, bits, strict=True)], self.outcome.states)
        self._queue: deque[tuple[Member, int, State]] = deque()
        self._deeds: dict[Shared, dict[Deed, Doers]] = {}
        self._stands: dict[Shared, dict[Stand, None]] = {}
        self._turns: dict[tuple[Shared, Stand], dict[Turn, Doers]] = {}
        self._at: dict[tuple[Shared, Stand], list[tuple[Member, int, State]]] = {}
        self._left: set[tuple[tuple[str, Any], ...]] = set()
        self._idle = self.outcome.members[0]

    def _world(self, number: int, written: frozenset[Write]) -> MemberWorld:
        """The world of a path, of a thread that runs nothing for -1: one that was made before remembers its steps."""
        found = self._worlds.get(number)
        if found is None or not found.writes.learn(written):
            system = self._crowd.idle() if number < 0 else self._crowd.member(number)
            found = self._worlds[number] = MemberWorld(system, self._properties, said, Writes(written), self._joins.terms)
        found.begin()
        return found

    def _all_written(self) -> list[frozenset[Write]]:
        """Of each path what it has been seen to write so far."""
        return [w | m.world.writes.found for w, m in zip(self.written, self.outcome.members[1:], strict=True)]

    def _written_beside(self, number: int) -> frozenset[Write]:
        """What is written beside a path, as far as it is known."""
        return frozenset().union(*(w for i, w in enumerate(self.written) if not self.apart[number] >> i & 1))

    def _explore(self) -> None:
        idle = self._idle
        idle.cells.append(MemberCell(idle.world, {}))
        for start in idle.world.starts:
            self._add(idle, 0, [start[n] for n in idle.world.names])
        while self._wanted - set(self.outcome.alarms):
            self._drain()
            if not self._another_cell():
                return

    def _drain(self) -> None:
        counted = 0
        while self._queue:
            counted += 1
            if counted & 0xFF == 0:
                self._within_limits()
                if not self._wanted - set(self.outcome.alarms):
                    return
            self._next(*self._queue.popleft())

    def _next(self, member: Member, number: int, state: State) -> None:
        self._follow(member, number, state)

    def _taken_for_granted(self) -> None:
        """Raises _Again if what the worlds were made with is not so. Asked at the end in any case: a small world is done before that
        is asked on the way."""
        written = self._all_written()
        if written != self.written:
            self.written = written
            if not all(m.world.writes.learn(self._written_beside(i)) for i, m in enumerate(self.outcome.members[1:])):
                raise _Again
        if any(m.world.realigned for m in self.outcome.members):
            raise _Again
        if any(m.world.noticed() for m in self.outcome.members):
            raise Exhausted("somebody looks at what was taken for a thread's own")
        if any(cell.truths for cell in self._idle.cells):
            raise Exhausted("what is seen between two runs depends on a number")

    def _within_limits(self) -> None:
        self._taken_for_granted()
        if self._limits.rlimit and self.outcome.states > self._limits.rlimit:
            raise Exhausted("resource limit")
        if self.outcome.states - self._before > MAX_STATES:
            raise Exhausted(f"more than {MAX_STATES} states")
        if self.deadline and time.monotonic() > self.deadline:
            raise Exhausted("timeout")

    # ---- one state

    def _add(self, member: Member, number: int, values: list[Any], met: Met = (0, 0)) -> None:
        """A state of a path, if it is new: told of the properties, seen by others, and to be followed."""
        world, cell = member.world, member.cells[number]
        self._put(member, number, world.settled(values, cell.truth), met)

    def _put(self, member: Member, number: int, state: State, met: Met) -> None:
        world, cell = member.world, member.cells[number]
        if state in cell.seen or not world.worthwhile(state):
            return
        shared, stand, owned = cell.face(state)
        self._must_own(member, owned, met)
        cell.seen[state] = met
        self.outcome.states += 1
        told, _ = world.told(state, cell.truth)
        self.outcome.says.update(told.says)
        for name in told.broken:
            self._alarm(name, member, state, met)
        key = (shared, stand)
        self._queue.append((member, number, state))
        if key not in self._turns:
            self._turns[key] = {}
            self._at[key] = []
            self._stands.setdefault(shared, {})[stand] = None
            known = self._turns[key]
            for deed, doers in self._deeds.get(shared, {}).items():
                came = turn(deed, stand)
                if came is not None:
                    known[came] = _joined(known.get(came), doers)
        self._at[key].append((member, number, state))

    def _must_own(self, member: Member, owned: tuple[int, int], met: Met) -> None:
        """Raises Blamed if a thread has dropped references that an entry owns: whose is gone is not known then."""
        if min(owned) < 0:
            raise Blamed(f"`{member.world.me.program.name}` drops a reference before the entry that owns it is gone", member.bit, met)

    def _alarm(self, name: str, member: Member, state: State, met: Met) -> None:
        """A state breaks a claim."""
        self.outcome.alarms.setdefault(name, self._where(member.world, state))

    def _must_leave(self, member: Member, state: State, met: Met) -> None:
        """Raises Blamed if a path ends with a device's counter other than it was: whose that is would not be known any more."""
        if any(member.world.faces.tallies.sides(state)[0]):
            raise Blamed(f"`{member.world.me.program.name}` leaves a counter of a device other than it was", member.bit, met)

    def _where(self, world: MemberWorld, state: State) -> str:
        program = world.me.program
        origin = program.nodes[world.pc(state)].step.origin
        return f"`{program.name}`, line {origin.span.line}" if program.name != "idle" else "between two runs"

    def _turn(self, member: Member, number: int, state: State, came: Turn, doers: Doers) -> None:
        who, needed = doers
        beside_it = who & member.beside
        if not beside_it:
            return
        doer = 0 if who == ALL else beside_it & -beside_it
        cell = member.cells[number]
        beside, others = cell.seen[state]
        met = (beside | doer, others | needed) if member.bit else (0, others | doer | needed)
        for values in member.world.turned(state, came):
            if tuple(values) not in cell.seen:  # what has settled once stays as it is
                self._put(member, number, member.world.settled(values, cell.truth), met)

    def _publish(self, shared: Shared, deed: Deed, doers: Doers) -> None:
        deeds = self._deeds.setdefault(shared, {})
        known = deeds.get(deed)
        if known is not None and not doers[0] & ~known[0]:
            return
        deeds[deed] = _joined(known, doers)
        for stand in list(self._stands.get(shared, {})):
            turns = self._turns[shared, stand]
            came = turn(deed, stand)
            if came is None:
                continue
            before = turns.get(came, (0, 0))
            if doers[0] & ~before[0]:
                turns[came] = _joined(before, doers)
                if any(doers[0] & m.beside and not before[0] & m.beside for m in self.outcome.members):
                    for member, number, state in list(self._at[shared, stand]):
                        if not before[0] & member.beside:
                            self._turn(member, number, state, came, doers)

    def _follow(self, member: Member, number: int, state: State) -> None:
        world, cell = member.world, member.cells[number]
        shared, stand, _ = cell.face(state)
        met = cell.seen[state]
        for known, doers in list(self._turns[shared, stand].items()):
            self._turn(member, number, state, known, doers)
        if member is self._idle:
            self._start_all(state, shared, stand, met)
        for values, mine in world.successors(state, cell.truth):
            after = world.settled(values, cell.truth)
            if not world.worthwhile(after):
                continue
            if mine:
                renamed = world.renamed()
                if world.faces.loosened(state, after):
                    raise Blamed(f"`{world.me.program.name}` drops a reference that it does not have", member.bit, met)
                done = world.done(after)
                deed = cell.deed(state, after, done, renamed)
                if deed is not None:
                    self._publish(*deed, (member.bit, met[0] | met[1]))
                if done:
                    self._must_leave(member, after, met)
                    self._must_own(member, world.faces.owned(after), met)  # before what is left of it is made right for the next run
                    member.ends = True
                    self._leave(world, after, (0, met[0] | met[1] | member.bit))
                    continue
                self._go_on(member, number, after, met)
                continue
            self._put(member, number, after, met)

    def _go_on(self, member: Member, number: int, state: State, met: Met) -> None:
        """The thread has come here by a step of its own: it makes at once what steps nobody can notice."""
        world, cell, waiting = member.world, member.cells[number], [state]
        while waiting:
            here = waiting.pop()
            if world.pc(here) in world.heads:
                self._arrive(member, number, here, met)
            elif here not in cell.seen:
                ways = world.unnoticed(here, cell.truth)
                if ways is None:
                    self._put(member, number, here, met)
                else:
                    waiting.extend(world.settled(values, cell.truth) for values in ways)

    # ---- from path to path

    def _leave(self, world: MemberWorld, state: State, met: Met) -> None:
        left = world.neutral(state)
        if left in self._left:
            return
        self._left.add(left)
        given, start = dict(left), self._idle.world.starts[0]
        self._add(self._idle, 0, [given.get(n, start[n]) for n in self._idle.world.names], met)

    def _start_all(self, state: State, shared: Shared, stand: Stand, met: Met) -> None:
        common = self._idle.world.neutral(state)
        if self._idle.world.counts_runs:
            begun = Deed(stand, replace(stand, running=(True, stand.running[1])), shared, (False, False))
            self._publish(shared, begun, (ALL, 0))
        for member in self._running():
            if common not in member.entries:
                member.entries[common] = met[1]
                for number in member.of(ENTRY):
                    self._enter(member, number, common)

    def _enter(self, member: Member, number: int, common: tuple[tuple[str, Any], ...]) -> None:
        for values in member.world.entered(common):
            self._add(member, number, values, (0, member.entries[common]))

    # ---- loops and cells

    def _arrive(self, member: Member, number: int, state: State, met: Met) -> None:
        world = member.world
        head = world.pc(state)
        try:
            abstract, stands = world.abstracted(head, state, self._aligned)
        except ValueError as obstacle:
            raise Blamed(f"`{world.me.program.name}`: {obstacle}", member.bit, (0, 0)) from None
        arrival = Arrival(number, head, stands, world.mentioned(abstract) - {name for name, _ in stands})
        arrived = member.arrivals.get(arrival)
        if arrived is None:
            arrived = member.arrivals[arrival] = Arrived()
            for other in member.of(head):
                if self._may_join(member, arrival, other):
                    arrived.targets.append(other)
        if abstract not in arrived.states:
            arrived.states[abstract] = met
            for other in list(arrived.targets):
                self._put(member, other, abstract, met)

    def _may_join(self, member: Member, arrival: Arrival, target: int) -> bool:
        """Whether numbers of the cell that the arrival comes from may be such as they are in another."""
        world, kept, stands = member.world, arrival.kept, arrival.stands
        one, other = member.cells[arrival.source], member.cells[target]
        for comparison in world.order_at(arrival.head, self._aligned):
            other.truth(comparison)
        return self._joins.may_join(world, stands, kept, one, other, self._aligned)

    def _another_cell(self) -> bool:
        """Whether there are numbers outside all cells; if so, a cell for some of them has been begun."""
        return any(self._begin_cell(m, segment) for m in self._running() for segment in m.world.segments)

    def _running(self) -> list[Member]:
        """Of the paths those that run."""
        return [m for m in self.outcome.members[1:] if not m.bit & self.skip]

    def _begin_cell(self, member: Member, segment: int) -> bool:
        """The same for one segment of a path."""
        known = member.of(segment)
        if self._given is not None:
            given = self._given[self._place(member, segment)]
            model = given[len(known)] if len(known) < len(given) else None
        else:
            size = tuple(len(member.cells[i].truths) for i in known)
            if member.covered.get(segment) == size:
                return False
            model = self._joins.outside(member.world, segment, (member.cells[i] for i in known))
            if model is None:
                member.covered[segment] = size
        if model is None:
            return False
        member.cells.append(MemberCell(member.world, model, segment=segment))
        number = len(member.cells) - 1
        for common in list(member.entries) if segment == ENTRY else ():
            self._enter(member, number, common)
        for arrival, arrived in list(member.arrivals.items()):
            if arrival.head == segment and self._may_join(member, arrival, number):
                arrived.targets.append(number)
                for state, met in list(arrived.states.items()):
                    self._put(member, number, state, met)
        return True

    def _place(self, member: Member, segment: int) -> int:
        """Which one it is of all segments of all paths."""
        before = self.outcome.members[1 : self.outcome.members.index(member)]
        return sum(len(m.world.segments) for m in before) + member.world.segments.index(segment)


def _joined(known: Doers | None, more: Doers) -> Doers:
    return more if known is None or not known[0] else (known[0] | more[0], known[1])
