"""The witness world as one thread of a crowd sees it: its own path step by step. A state is what is local to the thread and a situation
(mmucheck.lower.situations); what becomes of that without the thread is in mmucheck.lower.surroundings.

What this rests on: mmucheck/README.md, "Again and again".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Any

from mmucheck.ir import program as ir
from mmucheck.ir.program import Op, Program, PropertyDecl, System, conjuncts, is_number, subexpressions
from mmucheck.lower.beside import Answers, MemberMoves, Write, Writes
from mmucheck.lower.choices import Choices
from mmucheck.lower.faces import key_at_witness
from mmucheck.lower.meetings import Meetings
from mmucheck.lower.normal import is_table
from mmucheck.lower.scope import Scope, Truth, shape
from mmucheck.lower.situations import ME, Bits, beside_the_machine, first, own_lock, own_table
from mmucheck.lower.starts import Starts
from mmucheck.lower.surroundings import Change, Surroundings, remembers
from mmucheck.lower.unroll import Act
from mmucheck.machine.concolic import VAGUE, WITNESS
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.looks import View
from mmucheck.machine.memo import Memo, Recording
from mmucheck.machine.state import PMD_HUGE, PMD_TABLE, PTE_PRESENT, ZERO_PAGE
from mmucheck.machine.terms import Term, postorder

ENTRY = -1
"""The segment of a path before its first loop; the others are named by the head at which they begin."""

Local = tuple[Any, ...]
"""What is local to the thread, by place in a state: None where the situation says it, REMEMBERED for a table of which it does."""
REMEMBERED = "remembered"
Marks = tuple[tuple[Term, ...], tuple[tuple[int, Term], ...]]
"""What numbers at a loop's head are compared with: bounds of what was gathered; of the locks held, bytes to a lock and which one it is."""
Standing = tuple[tuple[int, int], tuple[str, ...]]
"""How many entries at other addresses own a reference on the frame, on the table; how the thread holds the locks at the witness."""


class MemberWorld:
    """One program of a crowd beside the rest (mmucheck.ir.crowd.Crowd.member).

    ``surroundings``: of all threads of the crowd; ``writes``: beside the path; ``assume``: what all numbers satisfy; ``taken``: the acts
    seen; ``heads``: where loops begin; ``segments``: where its parts begin; ``names``: of a state's places; ``realigned``: whether a number
    at a loop's head has fewer low bits zero than was thought; ``order``: where each node stands in its program.
    """

    def __init__(self, system: System, properties: Sequence[PropertyDecl], surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.scope = scope = Scope(system, properties, 1, surroundings.scope.terms)
        self.terms, self.writes = scope.terms, Writes()
        self.me = scope.paths[0]
        self._choices = Choices(scope, coarse=True)
        starts = Starts(scope, self._choices, one=True)
        self._start = starts.states[0] | beside_the_machine(scope, any(p.when != "always" for p in properties))
        self.assume = [*starts.assume, *self._required()]
        self._shape = shape(scope, self._start)
        self.names = self._shape.names
        self.taken: set[Act] = set()
        self._moves = MemberMoves(scope, self._choices, Meetings(scope, self._start), self.taken, self.writes)
        self._next: dict[int, list[tuple[Memo, Answers]]] = {}
        self._now: dict[int, tuple[Memo, Answers]] = {}
        self._order: dict[int, list[Term]] = {}
        self._mentioned: dict[tuple[Any, ...], frozenset[str]] = {}
        self._pc = self._shape.places[f"{self.me.name}.pc"]
        self._laid()
        program = self.me.program
        self.heads = program.back_edge_targets()
        self.segments = segments(program)
        self.varying = {head: self._varying(head) for head in self.heads}
        self.order = {n: i for i, n in enumerate(program.topological())}
        self._given = frozenset(self.me.local(n) for n, _ in program.params)
        self.realigned = False

    def _required(self) -> list[Term]:
        """What the path requires of the numbers that it is given: they stay what they are for the whole run."""
        step = self.me.program.nodes[self.me.program.entry].step
        looks, view, found = self.scope.machine.looks, View(self._start, f"{self.me.name}."), []
        for conjunct in conjuncts(step.args[0]) if step.op == "assume" else ():
            if all(isinstance(e, ir.Const | Op) or (isinstance(e, ir.Local) and is_number(e.kind)) for e in subexpressions(conjunct)):
                with suppress(ValueError):  # it compares truths: that is asked on the way
                    found.append(self.scope.domain.term(looks.value(conjunct, view)))
        return found

    def _laid(self) -> None:
        """Where in a state what is."""
        columns, places = self.surroundings.situations.places, self._shape.places
        self._columns = {places[n]: c for n, c in columns.items() if n in places}
        self._ident = places["frame.f.id"]
        self._gathered = places[f"{ME}.tlb_start"], places[f"{ME}.tlb_end"]
        self._blocks = [
            (places[h.part("held")], places[h.part("key")], h.lock.granule) for h in self.scope.machine.holds
            if h.thread == ME and h.lock.key == "address" and h.lock.granule > 1
        ]  # fmt: skip
        self._tables = [p for n, p in places.items() if is_table(self.scope, n) and p not in self._columns]
        self._table_columns = [columns[own_table(i)] for i in range(self.surroundings.tables)]
        self._numbers = [i for i, n in enumerate(self.names) if isinstance(self._start[n], Term) and i not in self._columns]
        slots = [s.name for s in self.scope.machine.layout.pages if s.foreign]
        content = ("page", "kind"), ("page", "frame"), ("region", "kind"), ("region", "frame"), ("region", "table")
        self._foreign = [tuple(places[f"{what}.{s}.{f}"] for what, f in content) for s in slots]
        every = [h for h in self.scope.machine.holds if h.thread == ME]
        self._locks = [
            (key_at_witness(self.scope, lock),
             [tuple(places[h.part(f)] for f in ("held", "shared", "key")) for h in every if h.lock == lock])
            for lock in self.surroundings.locks
        ]  # fmt: skip

    def _memo(self, body: Callable[[Recording], Any]) -> Memo:
        return Memo(self._shape.places, body, self.scope.domain, self._begin, self._shape.fixed)

    def _begin(self, run: Recording) -> None:
        self.scope.domain.oracle = run
        self._choices.begin(run)

    def begin(self, written: frozenset[Write]) -> None:
        """It is explored anew, knowing what is ``written`` beside it, and how the numbers at loops' heads are aligned."""
        self.realigned = False
        self._order.clear()
        self.writes.learn(written)
        self._now.clear()

    def agrees(self, written: frozenset[Write]) -> bool:
        """Whether the steps made since it began would be the same if this were written beside it; then they may go on so."""
        self.writes.learn(written)
        return all(self.writes.still(answers) for _, answers in self._now.values())

    def _steps_at(self, pc: int) -> Memo:
        """What is remembered of the step there, as far as it rests on what is known to be written beside it."""
        found = self._now.get(pc)
        if found is None:
            made = self._next.setdefault(pc, [])
            found = next((step for step in made if self.writes.still(step[1])), None)
            if found is None:
                found = self._memo(self._moves.of(self.me, pc)), {}
                made.append(found)
            self._now[pc] = found
        memo, self.writes.asked = found
        return memo

    def _varying(self, head: int) -> tuple[int, ...]:
        """The places of the numbers that the loop at this head changes."""
        program, name = self.me.program, self.me.name
        body = _loop(program.nodes, head)
        changed = {r for n in body for r in program.nodes[n].step.results} & self._moves.live(self.me, head)
        if any(program.nodes[n].step.op in ("tlb_gather", "tlb_track") for n in body):
            changed |= {"tlb_start", "tlb_end"}
        names = [f"{name}.{c}" for c in sorted(changed) if is_number(program.locals.get(c, "number"))]
        return tuple(self._shape.places[n] for n in names if n in self._shape.places)

    # ---- states

    def pc(self, local: Local) -> int:
        """Where the thread is."""
        found: int = local[self._pc]
        return found

    def steps(self, local: Local, of: Bits, truth: Truth) -> Mapping[tuple[Local, Change], Bits]:
        """What the thread's next step makes of what is local, and what it does to the situation, each with those of the situations in
        which it does so."""
        pc = self.pc(local)
        memo = self._steps_at(pc)
        situations, columns = self.surroundings.situations, self._columns
        remembered = {p: self._table_columns[i] for i, p in enumerate(p for p in self._tables if local[p] is REMEMBERED)}

        def by(place: int) -> Mapping[Any, Bits] | None:
            column = columns.get(place) if local[place] is None else remembered.get(place)
            return None if column is None else situations.by(column)

        def one(some: Bits) -> list[Any]:
            situation, values = situations.all[first(some)], list(local)
            for place, column in (*columns.items(), *remembered.items()):
                values[place] = situation[column]
            return values

        found: dict[tuple[Local, Change], Bits] = {}
        for result, some in memo.among(local, of, by, one, truth):
            changes = result.value[0]
            if changes is not None:
                step = self._stepped(local, changes, truth)
                found[step] = found.get(step, 0) | some
        return found

    def _stepped(self, local: Local, changes: tuple[tuple[int, Any], ...], truth: Truth) -> tuple[Local, Change]:
        after, written = list(local), []
        for place, value in changes:
            if place in self._columns:
                written.append((self._columns[place], value))
            else:
                after[place] = value
        kept = {p: i for i, p in enumerate(p for p in self._tables if local[p] is REMEMBERED)}
        tables = []
        for place in self._tables:
            if after[place] is REMEMBERED:
                tables.append((True, kept[place]))
            elif remembers(after[place]):
                tables.append((False, after[place]))
                after[place] = REMEMBERED
        elsewhere, locks = self.standing(after, truth)
        done = not self.me.program.nodes[after[self._pc]].successors
        return tuple(after), Change(tuple(written), tuple(tables), elsewhere, locks, done)

    def changes_nothing(self, local: Local, change: Change, truth: Truth) -> bool:
        """Whether every situation stays as it is where the thread does this from there."""
        if change.written or change.leaves or self.standing(local, truth) != (change.elsewhere, change.locks):
            return False
        remembered = sum(local[p] is REMEMBERED for p in self._tables)
        return change.tables == tuple((True, i) for i in range(remembered))

    def standing(self, local: Sequence[Any], truth: Truth) -> Standing:
        """What of a situation follows from what is local: it agrees with no other."""
        frame = table = 0
        ident = local[self._ident]
        for page, page_frame, region, region_frame, region_table in self._foreign:
            if self.scope.frames:
                frame += local[page] == PTE_PRESENT and local[page_frame] == ident
                frame += local[region] == PMD_HUGE and local[region_frame] == ident
            if self.scope.tables:
                table += local[region] == PMD_TABLE and local[region_table] == WITNESS
        return (frame, table), tuple(self._mode(local, key, places, truth) for key, places in self._locks)

    def _mode(self, local: Sequence[Any], witness: Any, places: Iterable[tuple[int, ...]], truth: Truth) -> str:
        mode = ""
        for held, shared, key in places:
            if local[held] and self._same(local[key], witness, truth):
                mode = "read" if local[shared] else "write"
        return mode

    def _same(self, key: Any, witness: Any, truth: Truth) -> bool:
        if isinstance(key, Term):
            term = self.terms.eq(key, witness)
            return bool(term.value) if term.op == "const" else truth(term)
        return bool(key == witness)

    def alike(self, of: Bits, local: Local, truth: Truth) -> Bits:
        """Those of the situations that agree with how the thread holds the locks at the witness in what is local: of numbers that
        say otherwise nothing comes."""
        for lock, mode in zip(self.surroundings.locks, self.standing(local, truth)[1], strict=True):
            of &= self.surroundings.situations.by(self.surroundings.situations.places[own_lock(lock)]).get(mode, 0)
        return of

    def entered(self, of: Bits) -> list[tuple[Local, Bits]]:
        """What is local where this path begins in one of these situations, one for each choice of what it is given."""
        found = []
        for ident, some in self.surroundings.situations.by(self.surroundings.situations.places["frame.f.id"]).items():
            if some & of:
                for choice in self._parameters(ident == WITNESS):
                    values = {**self._start, **choice, "frame.f.id": ident}
                    local = [None if i in self._columns else values[n] for i, n in enumerate(self.names)]
                    local[self._ident] = ident
                    found.append((tuple(local), some & of))
        return found

    def _parameters(self, tracked: bool) -> list[dict[str, Any]]:
        """Every choice of the parameters that are not numbers. ``tracked``: whether the witness is a frame that may be given."""
        kinds = {self.me.local(n): self.me.program.locals[n] for n, _ in self.me.program.params}
        frames = (VAGUE, ZERO_PAGE, WITNESS) if tracked and self.scope.frames else (VAGUE, ZERO_PAGE)
        ways = {name: frames if kind == "frame" else (False, True) for name, kind in kinds.items() if kind in ("frame", "bool")}
        return [dict(zip(ways, chosen, strict=True)) for chosen in product(*ways.values())]

    # ---- loops

    def abstracted(self, head: int, state: Local, aligned: dict[str, int]) -> tuple[Local, tuple[tuple[str, Term], ...]]:
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

    def order_at(self, head: int, marks: Marks, aligned: dict[str, int]) -> list[Term]:
        """Where the numbers that the loop at this head changes, those that the path is given and still uses, and what was gathered stand
        to the witness: asked of every cell, so that behind a loop it is known whether it has come by, and what a flush will reach. And
        whether the locks held are those of where the loop is, which rests on where it began: what nobody else can write there."""
        here, (gathered, locked) = self.terms.var("a", NUMBER), marks
        found = [*self._order_at(head, aligned), *(self.terms.ult(here, b) for b in gathered)]
        for granule, key in locked:
            unit = self.terms.const(granule, NUMBER)
            for n in self._at_head(head, aligned):
                found.append(self.terms.eq(self.terms.binary("udiv", n, unit), key))
                found += [self.terms.ult(n, g) for g in self._still_given(head)]
        return [t for t in found if t.op != "const"]

    def marks(self, local: Local) -> Marks:
        """What numbers at a loop's head are compared with: what was gathered so far, where that is open, and the keys of the locks held."""
        gathered = tuple(t for t in (local[p] for p in self._gathered) if isinstance(t, Term) and t.op != "const")
        return gathered, tuple((granule, local[key]) for held, key, granule in self._blocks if local[held])

    def _still_given(self, head: int) -> list[Term]:
        """The numbers that the path is given and still uses."""
        program, live = self.me.program, self._moves.live(self.me, head)
        return [self._start[self.me.local(n)] for n, _ in program.params if n in live and is_number(program.locals[n])]

    def _at_head(self, head: int, aligned: dict[str, int]) -> list[Term]:
        """The numbers that the loop changes."""
        return [self.aligned(self.number(n), n, aligned) for n in (self._head_name(head, p) for p in self.varying[head])]

    def _order_at(self, head: int, aligned: dict[str, int]) -> list[Term]:
        found = self._order.get(head)
        if found is None:
            here, own = self.terms.var("a", NUMBER), self._at_head(head, aligned)
            found = [self.terms.ult(here, n) for n in (*own, *self._still_given(head))]
            found += [self.terms.eq(self.scope.machine.looks.page_key(n), self._start["page.a.key"]) for n in own]
            self._order[head] = found
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
