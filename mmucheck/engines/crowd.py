"""Deciding the properties of two VMM threads, each of which runs any of some paths any number of times: a crowd.

The threads are looked at one at a time (Flanagan and Qadeer, SPIN 2003): the states of each path are explored beside the deeds of all
others, until no thread does anything that has not been taken into account. What this rests on: mmucheck/README.md, "Again and again".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from heapq import heappop, heappush

from mmucheck.engines.cells import Exhausted
from mmucheck.engines.claims import said
from mmucheck.engines.evidence import covering
from mmucheck.engines.joins import Joins
from mmucheck.engines.members import ALL, Arrival, Arrived, Blamed, Member, MemberCell, Outcome
from mmucheck.engines.relation import Deeds, Relation
from mmucheck.engines.solver import Limits
from mmucheck.ir.crowd import Crowd
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower.beside import Write
from mmucheck.lower.crowd import ENTRY, Local, MemberWorld
from mmucheck.lower.normal import Undecided
from mmucheck.lower.situations import Bits, bits_of, each
from mmucheck.lower.surroundings import Change, Surroundings

METHOD = "thread-modular exploration"
MAX_STATES = 200_000_000
"""Explored for one group of properties. They are not kept one by one."""


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
        self._surroundings: Surroundings | None = None
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
        for member in self.outcome.members:
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
            except (Exhausted, Undecided) as limit:
                self.outcome.reason = str(limit) or "it gave up"  # without a reason it would be taken for complete
            return self.outcome

    def _begin(self) -> None:
        if self._surroundings is None:
            try:
                self._surroundings = Surroundings(self._crowd, self._properties, said, self._joins.terms)
            except ValueError as obstacle:
                raise Exhausted(str(obstacle)) from None
        self._around = self._surroundings
        worlds = [self._world(i) for i in range(len(self._crowd.system.threads))]
        self._joins.deadline, self._before = self.deadline, self.outcome.states
        members = [Member(w, 1 << i, ~apart) for i, (w, apart) in enumerate(zip(worlds, self.apart, strict=True))]
        self.outcome = Outcome(self._around, members, states=self._before)
        self._deeds = Deeds()
        self._relations: dict[int, Relation] = {}
        self._known = 0
        self._told: Bits = 0
        self._in_doubt: dict[str, Bits] = {}
        self._unowned: Bits = 0
        self._steps = 0

    def _world(self, number: int) -> MemberWorld:
        """The world of a path, which remembers its steps."""
        found = self._worlds.get(number)
        if found is None:
            found = self._worlds[number] = MemberWorld(self._crowd.member(number), self._properties, self._around)
        found.begin(self._written_beside(number))
        return found

    def _all_written(self) -> list[frozenset[Write]]:
        """Of each path what it has been seen to write so far."""
        return [w | m.world.writes.found for w, m in zip(self.written, self.outcome.members, strict=True)]

    def _written_beside(self, number: int) -> frozenset[Write]:
        """What is written beside a path, as far as it is known."""
        return frozenset().union(*(w for i, w in enumerate(self.written) if not self.apart[number] >> i & 1))

    def _explore(self) -> None:
        self._rest(self._around.starts)
        for member in self._running():
            self._begin_cell(member, ENTRY)
        while self._wanted - set(self.outcome.alarms):
            self._drain()
            if not self._another_cell():
                return

    def _drain(self) -> None:
        """Follow all that was found, until nothing comes of it any more."""
        while self._wanted - set(self.outcome.alarms):
            for member in self._running():
                self._hear(member)
                self._follow_all(member)
            self._rest(0)
            if not any(m.heap for m in self._running()) and not self._behind():
                return

    def _follow_all(self, member: Member) -> None:
        while member.heap:
            _, _, number, local = heappop(member.heap)
            self._steps += 1
            if self._steps & 0x3F == 0:
                self._within_limits()
                if not self._wanted - set(self.outcome.alarms):
                    return
            self._follow(member, number, local)

    def _taken_for_granted(self) -> None:
        """Raises _Again if what the worlds were made with is not so. Asked at the end in any case: a small world is done before that
        is asked on the way."""
        written = self._all_written()
        if written != self.written:
            self.written = written
            agree = [m.world.agrees(self._written_beside(i)) for i, m in enumerate(self.outcome.members)]  # each has to learn of it
            if not all(agree):
                raise _Again
        if any(m.world.realigned for m in self.outcome.members):
            raise _Again

    def _within_limits(self) -> None:
        self._taken_for_granted()
        if self._limits.rlimit and self.outcome.states > self._limits.rlimit:
            raise Exhausted("resource limit")
        if self.deadline and time.monotonic() > self.deadline:
            raise Exhausted("timeout")

    # ---- what the others do

    def _relation(self, beside: int) -> Relation:
        """What becomes of the situations of a thread beside which these run, as bits."""
        found = self._relations.get(beside)
        if found is None:
            found = self._relations[beside] = Relation(self._around, self._deeds, beside)
        return found

    def _behind(self) -> bool:
        """Whether something has been done that has not been taken into account by all."""
        for relation in self._relations.values():
            relation.update()
        known = [(m.known, m.beside) for m in self._running()] + [(self._known, ALL)]
        return any(number < len(self._relation(beside).grown) for number, beside in known)

    def _hear(self, member: Member) -> None:
        """What others have done since the last time happens to the states of a path, too."""
        relation = self._relation(member.beside)
        relation.update()
        if member.known == len(relation.grown):
            return
        grown = 0
        for more in relation.grown[member.known :]:
            grown |= more
        member.known = len(relation.grown)
        for number, cell in enumerate(member.cells):
            for local, seen in cell.seen.items():
                if seen & grown:
                    self._put(member, number, local, relation.next(seen & grown))

    def _publish(self, situation: int, turn: int, doers: int) -> None:
        """A thread in this situation does something that the other can tell."""
        self._deeds.publish(self._around.mirror(self._around.face(situation)), turn, doers)

    # ---- the thread that runs nothing

    def _rest(self, of: Bits) -> None:
        """A thread that runs nothing is in these situations: it may begin any path, others may do something."""
        relation = self._relation(ALL)
        relation.update()
        seen = self.outcome.idle
        for grown in relation.grown[self._known :]:
            of |= relation.next(seen & grown)
        self._known = len(relation.grown)
        new = relation.closure(of, seen)
        if not new:
            return
        self.outcome.idle |= new
        self.outcome.states += new.bit_count()
        for number in each(new):
            told = self._around.told(number, idle=True)
            self.outcome.says.update(told.says)
            for name in told.broken:
                self._alarm(name, 0, "between two runs")
            if self._around.counts_runs:
                self._publish(number, self._around.begun(number), ALL)
        begins = self._around.entered(new)
        for member in self._running():
            member.entries |= begins
            for number in member.of(ENTRY):
                self._enter(member, number, begins)

    def _enter(self, member: Member, number: int, of: Bits) -> None:
        for local, some in member.world.entered(of):
            self._put(member, number, local, some)

    # ---- states of a path

    def _put(self, member: Member, number: int, local: Local, of: Bits) -> None:
        """States of a path: those that are new are to be followed."""
        cell = member.cells[number]
        new = of & ~cell.seen.get(local, 0)
        waiting = cell.found.get(local)
        if waiting is not None:
            cell.found[local] = waiting | new
        elif new:
            cell.found[local] = new
            self._steps += 1
            heappush(member.heap, (member.world.order[member.world.pc(local)], self._steps, number, local))

    def _follow(self, member: Member, number: int, local: Local) -> None:
        cell, world = member.cells[number], member.world
        seen = cell.seen.get(local, 0)
        new = self._relation(member.beside).closure(cell.found.pop(local), seen)
        if not new:
            return
        cell.seen[local] = seen | new
        self.outcome.states += new.bit_count()
        if self.outcome.states - self._before > MAX_STATES:
            raise Exhausted(f"more than {MAX_STATES} states")
        self._judge(member, local, new)
        if not world.me.program.nodes[world.pc(local)].successors:
            return
        for (after, change), of in world.steps(local, new, cell.truth).items():
            if not world.changes_nothing(local, change, cell.truth):
                of = self._changed(member, change, of)
                if change.leaves:
                    member.ends = member.ends or bool(of)
                    self._judge(member, after, of)
                    self._rest(of)
                    continue
            if not of:
                continue
            if world.pc(after) in world.heads:
                self._arrive(member, number, after, of)
            else:
                self._put(member, number, after, of)

    def _judge(self, member: Member, local: Local, new: Bits) -> None:
        """What new states tell of the properties, and whether the argument applies to them."""
        for number in each(new & ~self._told):
            told = self._around.told(number, idle=False)
            self.outcome.says.update(told.says)
            for name in told.broken:
                self._in_doubt[name] = self._in_doubt.get(name, 0) | 1 << number
            if self._around.lowest_owned(number) < 0:
                self._unowned |= 1 << number
        self._told |= new
        for name, broken in self._in_doubt.items():
            if new & broken:
                self._alarm(name, member.bit, self._where(member.world, local))
        if new & self._unowned:
            self._must_own(member)

    def _must_own(self, member: Member) -> None:
        """A thread has dropped references that an entry owns: whose is gone is not known then."""
        raise Blamed(f"`{member.world.me.program.name}` drops a reference before the entry that owns it is gone", member.bit)

    def _alarm(self, name: str, doer: int, where: str) -> None:
        """A state breaks a claim."""
        self.outcome.alarms.setdefault(name, where)

    def _where(self, world: MemberWorld, local: Local) -> str:
        program = world.me.program
        return f"`{program.name}`, line {program.nodes[world.pc(local)].step.origin.span.line}"

    def _changed(self, member: Member, change: Change, of: Bits) -> Bits:
        """The situations in which a step leaves the thread; what others can tell of it they are told."""
        effect, after = self._around.effect(change), set()
        for number in each(of):
            made = self._around.made(effect, number)
            if made.deed >= 0:
                self._publish(number, made.deed, member.bit)
            if made.trouble:
                raise Blamed(f"`{member.world.me.program.name}` {made.trouble}", member.bit)
            after.add(made.after)
        return bits_of(sorted(after - {-1}))

    # ---- loops and cells

    def _arrive(self, member: Member, number: int, local: Local, of: Bits) -> None:
        world = member.world
        head = world.pc(local)
        try:
            abstract, stands = world.abstracted(head, local, self._aligned)
        except ValueError as obstacle:
            raise Blamed(f"`{world.me.program.name}`: {obstacle}", member.bit) from None
        kept = world.mentioned(abstract) - {name for name, _ in stands}
        arrival = Arrival(number, head, stands, kept, world.marks(abstract))
        arrived = member.arrivals.get(arrival)
        if arrived is None:
            arrived = member.arrivals[arrival] = Arrived()
            for other in member.of(head):
                if self._may_join(member, arrival, other):
                    arrived.targets.append(other)
        arrived.states[abstract] = arrived.states.get(abstract, 0) | of
        for other in list(arrived.targets):
            self._go_on(member, other, abstract, of)

    def _go_on(self, member: Member, number: int, local: Local, of: Bits) -> None:
        """States go on in a cell behind the head of a loop."""
        self._put(member, number, local, member.world.alike(of, local, member.cells[number].truth))

    def _may_join(self, member: Member, arrival: Arrival, target: int) -> bool:
        """Whether numbers of the cell that the arrival comes from may be such as they are in another."""
        world, kept, stands = member.world, arrival.kept, arrival.stands
        one, other = member.cells[arrival.source], member.cells[target]
        for comparison in world.order_at(arrival.head, arrival.marks, self._aligned):
            other.truth(comparison)
        return self._joins.may_join(world, stands, kept, one, other, self._aligned)

    def _another_cell(self) -> bool:
        """Whether there are numbers outside all cells; if so, a cell for some of them has been begun."""
        return any(self._begin_cell(m, segment) for m in self._running() for segment in m.world.segments)

    def _running(self) -> list[Member]:
        """Of the paths those that run."""
        return [m for m in self.outcome.members if not m.bit & self.skip]

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
        if segment == ENTRY:
            self._enter(member, number, member.entries)
        for arrival, arrived in list(member.arrivals.items()):
            if arrival.head == segment and self._may_join(member, arrival, number):
                arrived.targets.append(number)
                for local, of in list(arrived.states.items()):
                    self._go_on(member, number, local, of)
        return True

    def _place(self, member: Member, segment: int) -> int:
        """Which one it is of all segments of all paths."""
        before = self.outcome.members[: member.bit.bit_length() - 1]
        return sum(len(m.world.segments) for m in before) + member.world.segments.index(segment)
