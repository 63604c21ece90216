"""The moves of the thread that a crowd's world keeps, and what is written beside it: what it may rely on at other addresses."""

from __future__ import annotations

from typing import Any

from mmucheck.ir.overlap import held_at
from mmucheck.ir.program import Program, Step
from mmucheck.lower.choices import Choices
from mmucheck.lower.counting import asks, lasting, written
from mmucheck.lower.meetings import Meetings
from mmucheck.lower.moves import Moves
from mmucheck.lower.scope import Scope
from mmucheck.lower.unroll import Act
from mmucheck.machine.concolic import ANY
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.looks import View
from mmucheck.machine.memo import Recording
from mmucheck.machine.state import FOREIGN_KEY_FREE, PMD_HUGE, PMD_TABLE, PTE_PRESENT, Thread
from mmucheck.machine.terms import Term
from mmucheck.machine.visibility import changes_table, changes_upper
from mmucheck.machine.world import entries_of

Locks = frozenset[tuple[str, str]]
"""Held locks, each with how."""
Write = tuple[str, Locks]
"""What is written (see ``written_in``), and the locks held that cover it."""


Answers = dict[Write, bool]
"""Whether nobody else can write something for which some locks are held."""


def written_in(what: str, linked: bool) -> str:
    """A page or a region by whether the region links a table when it is written: who sees a linked table under a lock that keeps it so is
    not concerned with what is written into one that is not."""
    return what if linked else f"{what} without a table"


class Writes:
    """Which entries are written under which locks beside a path: what a thread that runs it may rely on while it holds one of them.

    ``known``: by anybody who may run beside it, as far as it is known; ``found``: what the path itself has been seen to write; ``asked``:
    gets what is answered.
    """

    def __init__(self) -> None:
        self.known: frozenset[Write] = frozenset()
        self.found: set[Write] = set()
        self.asked: Answers = {}
        self._answers: Answers = {}

    def covered(self, what: str, held: Locks) -> bool:
        """Whether nobody else can write what these locks are held for."""
        found = self.asked[what, held] = self._answer(what, held)
        return found

    def _answer(self, what: str, held: Locks) -> bool:
        found = self._answers.get((what, held))
        if found is None:
            found = self._answers[what, held] = _covered(self.known, what, held)
        return found

    def learn(self, known: frozenset[Write]) -> None:
        """That this is what is known."""
        if known != self.known:
            self.known, self._answers = known, {}

    def still(self, answers: Answers) -> bool:
        """Whether what was answered would be answered so now."""
        return all(self._answer(*asked) == answer for asked, answer in answers.items())


def _covered(known: frozenset[Write], what: str, held: Locks) -> bool:
    return all(
        any(name == mine and not how == mode == "read" for name, how in locks for mine, mode in held)
        for of, locks in known if of == what
    )  # fmt: skip


def entries_ahead(program: Program) -> dict[int, frozenset[str]]:
    """For each node, which entries ("page", "region") the program may still look at from there on."""
    ahead = {i: entries_of(node.step) for i, node in enumerate(program.nodes)}
    changed = True
    while changed:
        changed = False
        for i in reversed(range(len(program.nodes))):
            now = ahead[i].union(*(ahead[s] for s in program.nodes[i].successors))
            changed = changed or now != ahead[i]
            ahead[i] = now
    return ahead


class MemberMoves(Moves):
    """Moves of the kept thread. Foreign pages and regions that others may write are forgotten as soon as they may."""

    def __init__(self, scope: Scope, choices: Choices, meetings: Meetings, taken: set[Act], writes: Writes) -> None:
        super().__init__(scope, choices, meetings, 0, taken)
        self._writes = writes
        me = scope.paths[0].name
        self._ahead = entries_ahead(scope.paths[0].program)
        last = [v for v in written(scope.system) if lasting(scope.system, v, scope.named)]
        self._asking = {i for i, n in enumerate(scope.paths[0].program.nodes) if any(asks(n.step, v) for v in last)}
        self._held = held_at(scope.paths[0].program, scope.system.locks)
        self._holds = [h for h in scope.machine.holds if h.thread == me]
        self._kept = [("page", s.name) for s in scope.machine.layout.pages if s.foreign]  # what stays of these rests on those
        self._kept += [("region", s.name) for s in scope.machine.layout.regions if s.foreign]

    def goes_on(self, thread: Thread, node: int) -> bool:
        """Not where the path asks for a counter: how it stands to what was left there is looked at between moves."""
        return super().goes_on(thread, node) and (thread.device != "" or node not in self._asking)

    def _is_enough(self, run: Recording) -> bool:
        """What a move chooses and what it looks at behind that would have to be remembered together."""
        return run.has_chosen

    def _again(self, run: Recording, name: str) -> bool:
        return True

    def _decide_results(self, run: Recording, thread: Thread, step: Step) -> None:
        """A frame found where nothing is mapped is some frame: which one is decided once, since references may be taken and dropped."""
        frames = [thread.local(name) for name in step.results if thread.program.locals.get(name) == "frame"]
        if step.op in ("set_pte", "fill_table"):
            frames += [f"page.{p.name}.frame" for p in self._machine.layout.pages if self._is(run, f"page.{p.name}.kind", PTE_PRESENT)]
        if step.op == "set_pmd":
            frames += [f"region.{r.name}.frame" for r in self._machine.layout.regions if self._is(run, f"region.{r.name}.kind", PMD_HUGE)]
        for name in frames:
            if self._domain.force(run[name]) == ANY:
                run[name] = self._choices.mapped()

    def _is(self, run: Recording, name: str, kind: int) -> bool:
        return self._domain.force(run[name]) == kind

    def _visits(self, run: Recording, thread: Thread, node: int) -> tuple[()]:
        step = thread.program.nodes[node].step
        if changes_table(step):
            whole = step.op in ("fill_table", "clear_table")
            what = "region" if changes_upper(step) or step.op.endswith("_pmd") else "page"
            at = self._machine.looks.value(step.args[0], View(run, f"{thread.name}."))  # type: ignore[arg-type]
            size = 1 << (self._scope.system.region_bits if what == "region" or whole else self._scope.system.page_bits)
            covering = self._covering(run, node, at, size)
            for linked in self._linked(run, at):
                self._writes.found.add((written_in(what, linked), covering))
        return ()

    def _linked(self, run: Recording, at: Any) -> tuple[bool, ...]:
        """Whether the region of an address links a table: both, if that is not known."""
        looks, domain = self._machine.looks, self._domain
        if not any(domain.boolean(hit) for _, hit in looks.region_hits(run, at)):  # type: ignore[arg-type]
            return True, False
        kind = domain.force(looks.pmd(run, at, "kind"))  # type: ignore[arg-type]
        return (kind == PMD_TABLE,) if kind != ANY else (True, False)

    def _covering(self, run: Recording, node: int, at: Any, size: int) -> Locks:
        """The locks held before a node that cover the whole block of ``size`` bytes at an address."""
        domain, found = self._domain, set(self._held[node])
        for hold in self._holds:
            lock = hold.lock
            if lock.key == "address" and lock.granule and lock.granule % size == 0 and domain.boolean(run[hold.part("held")]):
                key = domain.binary("udiv", at, domain.const(lock.granule, NUMBER))
                if domain.boolean(domain.eq(run[hold.part("key")], key)):
                    found.add((lock.name, "read" if domain.boolean(run[hold.part("shared")]) else "write"))
        return frozenset(found)

    def _rest(self, run: Recording, thread: Thread, node: int) -> None:
        if thread.device:
            return
        for what, slot in self._kept:
            key = self._domain.force(run[f"{what}.{slot}.key"])
            assert isinstance(key, Term)
            if key.op == "const" and key.value == FOREIGN_KEY_FREE:
                continue
            if node in self._heads[thread.name] or not (self._counts(run, node, what, slot) and self._stays(run, node, what, key)):
                self._machine.forget_slot(run, what, slot)  # type: ignore[arg-type]

    def _counts(self, run: Recording, node: int, what: str, slot: str) -> bool:
        """Whether anything may still come of what is in a slot: the path may look at it, or it owns a reference."""
        return what in self._ahead[node] or self._domain.boolean(self._machine.owning(run, what, slot))  # type: ignore[arg-type]

    def _stays(self, run: Recording, node: int, what: str, key: Term) -> bool:
        """Whether nobody else can write the page or region at an address, as long as this thread holds what it holds."""
        system, (linked, *unsure) = self._scope.system, self._linked(run, key)
        region = self._covering(run, node, key, 1 << system.region_bits)
        if what == "region":
            return all(self._writes.covered(written_in("region", way), region) for way in (linked, *unsure))
        page = self._covering(run, node, key, 1 << system.page_bits)
        if not self._writes.covered(written_in("page", True), page):
            return False
        if linked and not unsure and self._writes.covered(written_in("region", True), region):
            return True
        return self._writes.covered(written_in("page", False), page)
