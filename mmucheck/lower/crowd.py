"""The witness world as one thread of a crowd sees it: its own path step by step, and whatever the others' deeds make of it.

The states are those of mmucheck.lower.explicit with one thread kept. What this rests on: mmucheck/README.md, "Again and again".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any

from mmucheck.ir.program import Expr, LockDecl, Program, PropertyDecl, System
from mmucheck.lower.beside import MemberMoves, Writes
from mmucheck.lower.choices import Choices
from mmucheck.lower.faces import ACTIVE, Faces, Turn, pending, reads
from mmucheck.lower.meetings import CONSTANTS, Meetings
from mmucheck.lower.normal import NormalForm, Telling
from mmucheck.lower.one_run import OneRun
from mmucheck.lower.scope import DONE, IDLE, Scope, State, Truth, shape
from mmucheck.lower.starts import Starts
from mmucheck.lower.tallies import Tallies, obstacle
from mmucheck.lower.unroll import Act
from mmucheck.machine.concolic import VAGUE, WITNESS
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.memo import Memo, Recording, Result
from mmucheck.machine.state import CROWD, ZERO_PAGE, Thread
from mmucheck.machine.terms import Term, Terms, postorder

Cover = Callable[[PropertyDecl], Sequence[Expr]]


ENTRY = -1
"""The segment of a path before its first loop; the others are named by the head at which they begin."""


class MemberWorld:
    """One program of a crowd beside the rest (mmucheck.ir.crowd.Crowd.member).

    Raises ValueError with the reason if handlers or variables of a device are out of reach.

    ``starts``: by name of what is kept, the quiescent ones of a thread that runs nothing, one of another; ``writes``: see there;
    ``assume``: what all numbers satisfy; ``taken``: the acts seen; ``faces``: of its states; ``heads``: where loops begin; ``segments``:
    where its parts begin; ``names``: of what is kept, in the order of a state; ``realigned``: whether a number at a loop's head has fewer
    low bits zero than was thought.
    """

    def __init__(self, system: System, properties: Sequence[PropertyDecl], cover: Cover, writes: Writes, terms: Terms) -> None:
        self.scope = scope = Scope(system, properties, 1, terms)
        self.terms, self.writes = scope.terms, writes
        if why := obstacle(scope):
            raise ValueError(why)
        self._choices = Choices(scope, coarse=True)
        self._idle = not system.threads[0].nodes[system.threads[0].entry].successors
        starts = Starts(scope, self._choices, one=not self._idle)
        self.assume = starts.assume
        extra = self._extra(any(p.when != "always" for p in properties))
        self.starts = [{**state, **extra} for state in starts.states]
        self._shape = shape(scope, self.starts[0])
        self.names = self._shape.names
        self.taken: set[Act] = set()
        self.me = scope.paths[0]
        self.faces = Faces(scope, self._shape, _locks(system))
        self._moves = MemberMoves(scope, self._choices, Meetings(scope, self.starts[0]), self.taken, writes)
        self._normal = NormalForm(scope, self._shape, self._memo, self.taken)
        self.told = Telling(scope, cover, self._memo, self._quiet)
        self._others = self._memo(self._moves.others)
        self._one_run = OneRun(scope, self._shape)
        self._handlers = [(t, self._shape.places[f"{t.name}.pc"]) for t in scope.handlers]
        self._next: dict[tuple[str, int], Memo] = {}
        self._settling: dict[tuple[Any, ...], tuple[tuple[int, Any], ...]] = {}
        self._turning: dict[tuple[tuple[Any, ...], Turn], list[tuple[tuple[int, Any], ...]]] = {}
        self._order: dict[int, list[Term]] = {}
        self._common = [(n, i) for i, n in enumerate(self._shape.names) if _common(n)]
        self._mentioned: dict[tuple[Any, ...], frozenset[str]] = {}
        self._numbers = [i for i, n in enumerate(self._shape.names) if isinstance(self.starts[0][n], Term)]
        self._pc = self._shape.places[f"{self.me.name}.pc"]
        program = self.me.program
        self.heads = program.back_edge_targets()
        self.segments = segments(program)
        self.varying = {head: self._varying(head) for head in self.heads}
        self._given = frozenset(self.me.local(n) for n, _ in program.params)
        self.realigned = False
        self.counts_runs = ACTIVE in self.names
        slots = {f"{what}.{s.name}" for what in ("page", "region") for s in getattr(scope.machine.layout, what + "s") if s.foreign}
        places = self._shape.places
        self._own = frozenset(p for n, p in places.items() if n.startswith(f"{self.me.name}.") or n.rpartition(".")[0] in slots)
        self._own -= frozenset(self.faces.told) - frozenset(p for n, p in places.items() if n.rpartition(".")[0] in slots)
        self._harmless = frozenset(places[n] for n in CONSTANTS if n in places) | self.faces.lock_places

    def _extra(self, ends: bool) -> dict[str, Any]:
        scope = self.scope
        extra: dict[str, Any] = {reads(lock): False for lock in _locks(scope.system) if not lock.key}
        extra |= {f"frame.{f}.{CROWD}": False for f in scope.machine.layout.frames}
        extra |= {f"table.{t}.{CROWD}": False for t in scope.machine.layout.tables}
        kinds = [what for what, slots in (("frame", scope.machine.layout.frames), ("table", scope.machine.layout.tables)) if slots]
        extra |= {pending(who, what): False for who in (scope.paths[0].name, "crowd") for what in kinds}
        return extra | Tallies.extra(scope, scope.paths[0].name) | ({ACTIVE: False} if ends else {})

    def _memo(self, body: Callable[[Recording], Any]) -> Memo:
        return Memo(self._shape.places, body, self.scope.domain, self._begin, self._shape.fixed)

    def _begin(self, run: Recording) -> None:
        self.scope.domain.oracle = run
        self._choices.begin(run)

    def _quiet(self, run: Recording) -> bool:
        return self._idle and ACTIVE in self._shape.places and not run.now(ACTIVE)

    def begin(self) -> None:
        """It is explored anew, knowing more of how the numbers at loops' heads are aligned."""
        self.realigned = False
        self._order.clear()

    def _varying(self, head: int) -> tuple[int, ...]:
        """The places of the numbers that the loop at this head changes."""
        program, name = self.me.program, self.me.name
        body = _loop(program.nodes, head)
        changed = {r for n in body for r in program.nodes[n].step.results} & self._moves.live(self.me, head)
        if any(program.nodes[n].step.op in ("tlb_gather", "tlb_track") for n in body):
            changed |= {"tlb_start", "tlb_end"}
        names = [f"{name}.{c}" for c in sorted(changed) if program.locals.get(c, "number") not in ("bool", "frame", "table")]
        return tuple(self._shape.places[n] for n in names if n in self._shape.places)

    # ---- states

    def pc(self, state: State) -> int:
        """Where the kept thread is."""
        found: int = state[self._pc]
        return found

    def done(self, state: Sequence[Any]) -> bool:
        """Whether the kept thread has run to its end."""
        return not self._idle and not self.me.program.nodes[state[self._pc]].successors

    def settled(self, values: list[Any], truth: Truth) -> State:
        """The state these values come to; they are used up."""
        part = self.faces.part(values)
        found = self._settling.get(part)
        if found is None:
            found = self._settling[part] = self.faces.settling(values)
        for place, value in found:
            values[place] = value
        state = self._normal(values, truth)
        outdated = self.faces.outdated(state)
        return _with(state, outdated) if outdated else state

    def renamed(self) -> tuple[tuple[int, int], ...]:
        """The number that each table was given when a state last settled: they are numbered anew each time."""
        return tuple(self._normal.renamed.items())

    def successors(self, state: State, truth: Truth) -> Iterator[tuple[list[Any], bool]]:
        """What the state may become by a move of the thread (true) or of a device or an unknown holder (false), before it settles."""
        pc = self.pc(state)
        if self.me.program.nodes[pc].successors:
            for result in self._results(self.me, pc)(state, truth):
                if result.value[0] is not None:
                    after = _changed(state, result.value[0])
                    self.faces.moved(state, after)
                    yield after, True
        busy = self._one_run.busy(state)
        for handler, place in self._handlers:
            pc = state[place]
            if pc != DONE and (pc != IDLE or not busy) and (pc == IDLE or handler.program.nodes[pc].successors):
                for result in self._results(handler, pc)(state, truth):
                    if result.value[0] is not None:
                        after = _changed(state, result.value[0])
                        self.faces.tallies.handler_moved(state, after)
                        yield after, False
        for result in self._others(state, truth):
            if result.value is not None:
                yield _changed(state, result.value), False

    def unnoticed(self, state: State, truth: Truth) -> list[list[Any]] | None:
        """What the state may become by the thread's next step, if nobody else can notice when it is made: then it is made at once. None if
        somebody can. Who holds a lock may be looked at: what the thread itself holds, no other changes."""
        pc = self.pc(state)
        node = self.me.program.nodes[pc]
        if not node.successors or node.step.op in ("lock", "unlock"):
            return None
        elsewhere, found = self.faces.elsewhere(state), []
        for result in self._results(self.me, pc)(state, truth):
            if not self._is_private(result):
                return None
            after = _changed(state, result.value[0])
            if self.done(after) or self.faces.elsewhere(after) != elsewhere:
                return None
            found.append(after)
        return found

    def noticed(self) -> bool:
        """Whether anybody has looked at what ``unnoticed`` takes for the thread's own."""
        handlers = (memo for (name, _), memo in self._next.items() if name != self.me.name)
        return any(memo.reads & self._own for memo in (self._others, self._normal.settled, self.told.told, *handlers))

    def _is_private(self, result: Result) -> bool:
        """Whether a step has looked only at what the thread alone changes, and changed only what the thread alone looks at."""
        known = result.private.get(self)
        if known is None:
            changes = result.value[0]
            written = {place for place, _ in changes} if changes is not None else {-1}
            known = result.private[self] = written <= self._own and result.reads <= self._own | self._harmless
        return known

    def _results(self, thread: Thread, pc: int) -> Memo:
        memo = self._next.get((thread.name, pc))
        if memo is None:
            memo = self._next[thread.name, pc] = self._memo(self._moves.of(thread, pc))
        return memo

    def worthwhile(self, state: State) -> bool:
        """Whether what the handlers have done so far can still come to something; both views answer alike."""
        return self._one_run.worthwhile(state)

    def turned(self, state: State, turn: Turn) -> Iterator[list[Any]]:
        """What another thread's deed makes of a state, before it settles."""
        key = (self.faces.part(state), turn)
        ways = self._turning.get(key)
        if ways is None:
            ways = self._turning[key] = self.faces.turning(state, turn)
        for changes in ways:
            yield _changed(state, changes)

    # ---- from one program to another

    def neutral(self, state: State) -> tuple[tuple[str, Any], ...]:
        """What of a state is left when the thread is done with its path: by name, what is not its own."""
        values = list(state)
        self.faces.leave(values)
        return tuple((n, values[p]) for n, p in self._common)

    def entered(self, common: Sequence[tuple[str, Any]]) -> list[list[Any]]:
        """The states in which this path begins where another has left off, one for each choice of what it is given."""
        given, own = dict(common), {n: v for n, v in self.starts[0].items() if not _common(n)}
        found: list[list[Any]] = []
        for choice in self._parameters(given.get("frame.f.id") == WITNESS):
            values = {**own, **choice, **given}
            found.append([values[n] for n in self.names])
        return found

    def _parameters(self, tracked: bool) -> list[dict[str, Any]]:
        """Every choice of the parameters that are not numbers. ``tracked``: whether the witness is a frame that may be given."""
        kinds = {self.me.local(n): self.me.program.locals[n] for n, _ in self.me.program.params}
        frames = (VAGUE, ZERO_PAGE, WITNESS) if tracked and self.scope.frames else (VAGUE, ZERO_PAGE)
        ways = {name: frames if kind == "frame" else (False, True) for name, kind in kinds.items() if kind in ("frame", "bool")}
        return [dict(zip(ways, chosen, strict=True)) for chosen in product(*ways.values())]

    # ---- loops

    def abstracted(self, head: int, state: State, aligned: dict[str, int]) -> tuple[State, tuple[tuple[str, Term], ...]]:
        """At a loop's head: the state with a variable for each number that the loop changes, and what each stands for. Raises ValueError
        if something else is in terms of them."""
        values, stands = list(state), []
        for place in self.varying[head]:
            name = self._head_name(head, place)
            term = state[place]
            assert isinstance(term, Term)
            bits = aligned.setdefault(name, min(term.zeros, self.scope.system.region_bits))
            if term.zeros < bits:
                aligned[name], self.realigned = term.zeros, True
            values[place] = self.aligned(self.number(name), name, aligned)
            stands.append((name, term))
        kept = tuple(v for i, v in enumerate(state) if isinstance(v, Term) and i not in self.varying[head])
        if at_heads(kept) & {name for name, _ in stands}:
            raise ValueError("a lock that depends on where a loop is is held when it goes round")
        return tuple(values), tuple(stands)

    def order_at(self, head: int, aligned: dict[str, int]) -> list[Term]:
        """Where the numbers that the loop at this head changes, and those that the path is given and still uses, stand to the witness:
        asked of every cell, so that behind a loop it is known whether it has come by."""
        found = self._order.get(head)
        if found is None:
            program, here = self.me.program, self.terms.var("a", NUMBER)
            live = self._moves.live(self.me, head)
            given = [
                self.starts[0][self.me.local(n)] for n, _ in program.params
                if n in live and program.locals[n] not in ("bool", "frame", "table")
            ]  # fmt: skip
            own = [self.aligned(self.number(n), n, aligned) for n in (self._head_name(head, p) for p in self.varying[head])]
            found = [self.terms.ult(here, n) for n in (*own, *given)]
            found += [self.terms.eq(self.scope.machine.looks.page_key(n), self.starts[0]["page.a.key"]) for n in own]
            found = self._order[head] = [t for t in found if t.op != "const"]
        return found

    def _head_name(self, head: int, place: int) -> str:
        return f"{self.me.program.name}!head{head}!{self.names[place]}"

    def number(self, name: str) -> Term:
        """The variable of that name."""
        return self.terms.var(name, NUMBER)

    def aligned(self, variable: Term, name: str, aligned: dict[str, int]) -> Term:
        """What a variable at a loop's head is a number of: with as many low bits zero as are at every arrival."""
        return self.terms.aligned(variable, aligned[name])

    def mentioned(self, state: Sequence[Any]) -> frozenset[str]:
        """The arguments and variables at loop heads in terms of which a state is."""
        numbers = tuple(state[i] for i in self._numbers)
        found = self._mentioned.get(numbers)
        if found is None:
            found = self._mentioned[numbers] = self.own(numbers)
        return found

    def own(self, numbers: Iterable[Term]) -> frozenset[str]:
        """The arguments and variables at loop heads in terms. All other variables are the witness's."""
        return frozenset(t.name for t in postorder(numbers) if t.op == "var" and ("!head" in t.name or t.name in self._given))


def segments(program: Program) -> tuple[int, ...]:
    """Where the segments of a path begin: ENTRY, and the heads of its loops."""
    return ENTRY, *sorted(program.back_edge_targets())


def _locks(system: System) -> tuple[LockDecl, ...]:
    """Those of the address space, and the devices'."""
    return (*system.locks, *(lock for d in system.devices for lock in d.locks))


def at_heads(numbers: Iterable[Term]) -> frozenset[str]:
    """The variables at loop heads in terms."""
    return frozenset(t.name for t in postorder(numbers) if t.op == "var" and "!head" in t.name)


def _loop(nodes: Sequence[Any], head: int) -> set[int]:
    """The nodes from which the head is reached again, and that it reaches."""
    def reach(start: int, step: Callable[[int], Sequence[int]]) -> set[int]:
        seen, stack = set(), [start]
        while stack:
            for n in step(stack.pop()):
                if n not in seen:
                    seen.add(n)
                    stack.append(n)
        return seen

    back: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        for s in node.successors:
            back.setdefault(s, []).append(i)
    return reach(head, lambda n: nodes[n].successors) & reach(head, lambda n: back.get(n, ()))


def _common(name: str) -> bool:
    """Whether a variable is not the kept thread's own: neither its locals and locks nor the slots it looks through."""
    what, _, rest = name.partition(".")
    if what in ("page", "region"):
        return rest.startswith("a.")
    return not (what == "vmm1" or ".vmm1." in name or name.endswith(".queued.vmm1"))


def _with(state: State, unset: Sequence[int]) -> State:
    values = list(state)
    for place in unset:
        values[place] = False
    return tuple(values)


def _changed(state: State, changes: tuple[tuple[int, Any], ...]) -> list[Any]:
    after = list(state)
    for place, value in changes:
        after[place] = value
    return after
