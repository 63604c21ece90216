"""The moves of the thread that a crowd's world keeps, and what is written beside it: what it may rely on at other addresses."""

from __future__ import annotations

from typing import Any

from mmucheck.ir.program import Step
from mmucheck.lower.choices import Choices
from mmucheck.lower.faces import reads
from mmucheck.lower.meetings import Meetings
from mmucheck.lower.moves import Moves
from mmucheck.lower.scope import Scope
from mmucheck.lower.unroll import Act
from mmucheck.machine.concolic import ANY
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.looks import View
from mmucheck.machine.memo import Recording
from mmucheck.machine.state import FOREIGN_KEY_FREE, PMD_HUGE, PTE_PRESENT, Thread, holds
from mmucheck.machine.terms import Term
from mmucheck.machine.visibility import changes_table, changes_upper

Write = tuple[str, frozenset[tuple[str, str]]]
"""Page or region, and the locks that cover what is written."""


class Writes:
    """Which entries are written under which locks beside a path: what a thread that runs it may rely on while it holds one of them.

    ``known``: by anybody who may run beside it, as far as it is known; ``found``: what the path itself has been seen to write.
    """

    def __init__(self, known: frozenset[Write] = frozenset()) -> None:
        self.known = known
        self.found: set[Write] = set()
        self._relied: dict[tuple[str, frozenset[tuple[str, str]]], bool] = {}

    def covered(self, what: str, held: frozenset[tuple[str, str]]) -> bool:
        """Whether nobody else can write a page or region for which these locks are held."""
        found = self._relied.get((what, held))
        if found is None:
            found = self._relied[what, held] = _covered(self.known, what, held)
        return found

    def learn(self, known: frozenset[Write]) -> bool:
        """That this is what is known. False if something that was answered would be answered otherwise: then nothing is learned."""
        if known != self.known:
            if any(_covered(known, *asked) != answer for asked, answer in self._relied.items()):
                return False
            self.known = known
        return True


def _covered(known: frozenset[Write], what: str, held: frozenset[tuple[str, str]]) -> bool:
    return all(
        any(name == mine and not how == mode == "read" for name, how in locks for mine, mode in held)
        for of, locks in known if of == what
    )  # fmt: skip


class MemberMoves(Moves):
    """Moves of the kept thread. Foreign pages and regions that others may write are forgotten as soon as they may."""

    def __init__(self, scope: Scope, choices: Choices, meetings: Meetings, taken: set[Act], writes: Writes) -> None:
        super().__init__(scope, choices, meetings, 0, taken)
        self._writes = writes
        self._locks = {lock.name: lock for lock in scope.system.locks}
        me = scope.paths[0].name
        self._holds = [h for h in holds(scope.system) if h.thread == me]
        self._number = scope.paths[0].number
        self._kept = [("page", s.name) for s in scope.machine.layout.pages if s.foreign]
        self._kept += [("region", s.name) for s in scope.machine.layout.regions if s.foreign]

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

    def _visits(self, run: Recording, thread: Thread, step: Step) -> tuple[()]:
        if changes_table(step):
            whole = step.op in ("fill_table", "clear_table")
            what = "region" if changes_upper(step) or step.op.endswith("_pmd") else "page"
            at = self._machine.looks.value(step.args[0], View(run, f"{thread.name}."))  # type: ignore[arg-type]
            size = 1 << (self._scope.system.region_bits if what == "region" or whole else self._scope.system.page_bits)
            self._writes.found.add((what, self._covering(run, at, size)))
        return ()

    def _covering(self, run: Recording, at: Any, size: int) -> frozenset[tuple[str, str]]:
        """The locks held that cover the whole block of ``size`` bytes at an address."""
        domain, found = self._domain, set()
        for hold in self._holds:
            lock = hold.lock
            if lock.key == "address" and lock.granule and lock.granule % size == 0 and domain.boolean(run[hold.part("held")]):
                key = domain.binary("udiv", at, domain.const(lock.granule, NUMBER))
                if domain.boolean(domain.eq(run[hold.part("key")], key)):
                    found.add((lock.name, "read" if domain.boolean(run[hold.part("shared")]) else "write"))
        for lock in self._scope.system.locks:
            if lock.key:
                continue
            if domain.boolean(domain.eq(run[f"lock.{lock.name}"], self._number)):
                found.add((lock.name, "write"))
            elif self._reads(run, lock.name):
                found.add((lock.name, "read"))
        return frozenset(found)

    def _reads(self, run: Recording, lock: str) -> bool:
        readers = self._domain.force(run[f"lock.{lock}.readers"])
        assert isinstance(readers, int)
        return readers > (1 if readers and self._domain.boolean(run.get(reads(self._locks[lock]), False)) else 0)

    def _rest(self, run: Recording, thread: Thread, node: int) -> None:
        if thread.device:
            return
        for what, slot in self._kept:
            key = self._domain.force(run[f"{what}.{slot}.key"])
            assert isinstance(key, Term)
            if key.op == "const" and key.value == FOREIGN_KEY_FREE:
                continue
            size = 1 << (self._scope.system.region_bits if what == "region" else self._scope.system.page_bits)
            if node in self._heads[thread.name] or not self._writes.covered(what, self._covering(run, key, size)):
                self._machine.forget_slot(run, what, slot)  # type: ignore[arg-type]
