"""The witness world explored state by state: for two VMM threads, whose interleavings are too many for one formula.

A state is a tuple: Python values for what is finite, terms over the witness's address and the paths' arguments for numbers. The
steps are the machine's, remembered by what they read (mmucheck.machine.memo). What this rests on: mmucheck/README.md, "Two threads".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, cast

from mmucheck.ir.program import Expr, Local, Look, Op, PropertyDecl, Step, System, subexpressions
from mmucheck.lower.cuts import live_locals
from mmucheck.lower.unroll import Act, at_own_page, left_by_handlers, runs_once
from mmucheck.lower.witness import initial, violated, witness_layout
from mmucheck.machine.concolic import ANY, FIRST_OTHER, NEW, VAGUE, WITNESS, Concolic, Value
from mmucheck.machine.domain import BOOL, NUMBER
from mmucheck.machine.looks import View
from mmucheck.machine.memo import Beyond, Memo, Recording, Result
from mmucheck.machine.state import (
    CACHE_FIELDS,
    PAGE_FIELDS,
    PMD_HUGE,
    PMD_TABLE,
    PTE_PRESENT,
    REGION_FIELDS,
    ZERO_PAGE,
    Layout,
    Slot,
    Thread,
    cache_slots,
    threads_of,
)  # fmt: skip
from mmucheck.machine.steps import Fill, Machine
from mmucheck.machine.terms import Term, Terms
from mmucheck.machine.visibility import Visibility, asks_cache, changes_upper
from mmucheck.machine.world import addresses
from mmucheck.records import record

State = tuple[Any, ...]
Met = frozenset[tuple[str, str, Term]]
"""(thread, kind of place, key): where a thread has been."""
Truth = Callable[[Term], bool]

_FIELDS = (("page", PAGE_FIELDS), ("region", REGION_FIELDS))
IDLE, DONE = -1, -2
"""Where a handler is that does not run: it may start, or it has had its run."""
_ALIVE = "alive.table"
"""How many tables beside the witness a state tells apart: they are numbered in order of appearance."""


@record
class Found:
    """A page or region that was looked at first in a step: at ``key``, holding ``fields``."""

    what: str
    key: Term
    fields: tuple[tuple[str, int], ...]


@record
class Told:
    """What a state tells of properties: the names of those it breaks, and of those it says anything about."""

    broken: tuple[str, ...]
    says: tuple[str, ...]


class _Choices:
    """A chooser that asks the run at hand. A frame is the zero page, the witness or another; tables are told apart."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.run: Recording | None = None
        self._fresh = 0

    def begin(self, run: Recording | None) -> None:
        self.run = run
        self._fresh = 0

    def _choose(self, options: int) -> int:
        assert self.run is not None
        return self.run.choose(options)

    def frame(self, label: str) -> int:
        return (NEW, WITNESS)[self._choose(1 + self._tracked())]

    def mapped(self) -> int:
        """The frame of an entry, or of an argument."""
        return (VAGUE, ZERO_PAGE, WITNESS)[self._choose(2 + self._tracked())]

    def _tracked(self) -> bool:
        assert self.run is not None
        return bool(self._world.machine.layout.frames) and self.run.now("frame.f.id") == WITNESS

    def table(self, label: str) -> int:
        """The witness, every other in use, and one that is not."""
        assert self.run is not None
        known = [WITNESS] if self._world.machine.layout.tables else []
        others = self.run.now(_ALIVE) + self._fresh
        known += range(FIRST_OTHER, FIRST_OTHER + others + 1)
        chosen = known[self._choose(len(known))]
        self._fresh += chosen == FIRST_OTHER + others
        return chosen

    def boolean(self, label: str) -> Value:
        return bool(1 - self._choose(2))

    def first_look(self, what: str, key: Value, new: Value) -> dict[str, Value]:
        fields = self.entry(what, False)
        at = self._world.domain.force(key)
        assert isinstance(at, Term)
        self._world.found.append(Found(what, at, tuple(fields.items())))
        return dict(fields)

    def entry(self, what: str, own: bool) -> dict[str, int]:
        """Any content of a page or region; what its kind gives no meaning to is left open."""
        if what == "page":
            kind = self._choose(3)
            present = kind == PTE_PRESENT
        else:
            kind = self._choose(4)
            present = kind == PMD_HUGE
        fields = {"kind": kind, "frame": self.mapped() if present else ANY}
        fields["write"] = self._choose(2) if present else ANY
        if what == "region":
            fields["table"] = ANY if kind != PMD_TABLE else self.table("") if own else self._elsewhere()
        return fields

    def _elsewhere(self) -> int:
        """A table at another address: the witness or not."""
        return WITNESS if self._world.machine.layout.tables and self._choose(2) else VAGUE


class _StartDomain(Concolic):
    """The domain of the start state: the finite variables are chosen as they are made, numbers stay."""

    def __init__(self, world: World, zero: bool, eager: bool) -> None:
        super().__init__(world.terms)
        self._world, self._zero, self._eager = world, zero, eager
        self.entries: dict[str, dict[str, int]] = {}

    def var(self, name: str, sort: int) -> Value:
        choices = self._world.choices
        what, _, field = name.partition(".")
        if sort == NUMBER:
            return self.terms.var(name, NUMBER)
        if what in ("page", "region"):
            if what not in self.entries:
                self.entries[what] = choices.entry(what, True)
            return self.entries[what][field]
        if name == "f":
            return ZERO_PAGE if self._zero else WITNESS
        if name == "t":
            return WITNESS
        if self._eager and name.endswith((".valid", ".write")):
            return True if name.endswith(".write") or not self._world.once else choices.boolean(name)
        return choices.boolean(name) if sort == BOOL else choices.table(name) if self._world.kinds[name] == "table" else choices.mapped()

    def aligned(self, a: Value, bits: int) -> Value:
        return self.terms.aligned(a, bits) if isinstance(a, Term) else a


class World:
    """The states and moves of a system, as far as a group of properties can tell. ``rounds``: how often a thread goes round a loop."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], rounds: int,
                 cover: Callable[[PropertyDecl], Sequence[Expr]]) -> None:  # fmt: skip
        self.system, self.properties = system, list(properties)
        self._rounds, self._cover = rounds, cover
        self.terms = Terms()
        self.domain = Concolic(self.terms)
        self.threads = threads_of(system)
        self.paths = tuple(t for t in self.threads if not t.device)
        self.handlers = tuple(t for t in self.threads if t.device)
        kinds = {kind for p in properties for _, kind in p.binders}
        full = witness_layout(self.threads)
        self._frames, self._tables = "frame" in kinds, "table" in kinds
        layout = Layout(full.pages, full.regions, full.frames if self._frames else (), full.tables if self._tables else (), True)
        self.machine: Machine[Any] = Machine(self.domain, system, layout)
        self.choices = _Choices(self)
        self.found: list[Found] = []
        self._locks = {k.name: k for k in (*system.locks, *(k for d in system.devices for k in d.locks))}
        self.taken: set[Act] = set()
        self.truncated = False
        upper = any(changes_upper(n.step) for t in system.threads for n in t.nodes)
        self._fills = [f for f in self.machine.fills() if not f.via or upper]
        self._evicts = any(asks_cache(n.step) for t in self.threads for n in t.program.nodes)
        self.eager = not self._evicts and all(only_held(p.formula) for p in properties)
        """More entries in caches only break more: what can be filled is filled at once, and what nobody asks about is forgotten."""
        self._silent = self.eager and all(about_entries(p.formula) for p in properties)
        self.once = self._silent and self._one_run()
        """Whether it is enough to follow one run of one handler, or none and an entry that is there at the start."""
        self._visible = Visibility(system, properties)
        self._writes = any(e.name == "cached_writable" for p in properties for e in subexpressions(p.formula) if isinstance(e, Look))
        self._live = {t.name: live_locals(t.program) for t in self.threads}
        self._heads = {t.name: t.program.back_edge_targets() for t in self.threads}
        self._order = {t.name: {n: i for i, n in enumerate(t.program.topological())} for t in self.threads}
        self.assume: list[Term] = []
        self.kinds = {t.local(n): t.program.locals[n] for t in self.threads for n, _ in t.program.params}
        self._entries = [(d, *entry) for d in system.devices for entry in cache_slots(d, layout)]
        self._walks = any(f.via for f in self._fills)
        self.starts = self._start_states()
        self._lay_out()

    def order(self) -> list[Term]:
        """Of two threads with one program, which is which makes no difference: the first is the one whose first argument is nearer to the
        witness (its page, its region, elsewhere)."""
        same = len(self.paths) == 2 and len({re.sub(r"choice\d+", "choice", repr(t.program.nodes)) for t in self.paths}) == 1
        numbers = [[self.starts[0][t.local(n)] for n, _ in t.program.params] for t in self.paths] if same else []
        firsts = [next((v for v in values if isinstance(v, Term)), None) for values in numbers]
        if len(firsts) != 2 or firsts[0] is None or firsts[1] is None:
            return []
        terms, looks, found = self.terms, self.machine.looks, []
        for key_of, own in ((looks.page_key, self._key["page"]), (looks.region_key, self._key["region"])):
            one, two = (terms.eq(key_of(p), own) for p in firsts)
            found.append(terms.or_(terms.not_(two), one))
        return found

    def near(self) -> list[Term]:
        """That every argument of a path lies on the witness's page, the page before it or the two behind it."""
        terms, page = self.terms, 1 << self.system.page_bits
        first = terms.binary("sub", self._key["page"], terms.const(page, NUMBER))
        numbers = [self.starts[0][t.local(n)] for t in self.paths for n, _ in t.program.params]
        last = terms.const(3 * page, NUMBER)
        return [terms.ule(terms.binary("sub", v, first), last) for v in numbers if isinstance(v, Term)]

    def _one_run(self) -> bool:
        """Whether all that a property can be about is one entry, which one run of a handler put there or which was there at the start
        (mmucheck/README.md, "Two threads")."""
        if not self.handlers or not all(runs_once(h, self.threads, self.system) for h in self.handlers):
            return False
        if any(c.source or c.of != "pages" for d in self.system.devices for c in d.caches) or not self._frames or self._tables:
            return False
        return all(left_by_handlers(p, self.handlers) <= {"cached"} for p in self.properties) and all(
            len(fills) == 1 and isinstance(fills[0].args[1], Local) for fills in map(_fills_of, self.handlers)
        )

    def _worthwhile(self, state: State) -> bool:
        """Whether what the handlers have done so far can still come to something: if not, it may as well not have been done."""
        if not self.once:
            return True
        held = any(state[place] for place in self._valid)
        for handler, place, filled in self._fillers:
            pc = state[place]
            if pc == DONE:
                return held
            if pc != IDLE and filled in self._live[handler.name][pc] and state[self.places[handler.local(filled)]] != state[self._witness]:
                return False
        return True

    # ---- the start

    def _start_states(self) -> list[dict[str, Any]]:
        """Every quiescent start up to the names of frames and tables, as the lowering's start state allows it."""
        found: list[dict[str, Any]] = []
        for zero in (False, True) if self._frames else (False,):
            waiting: list[tuple[int, ...]] = [()]
            while waiting:
                script = waiting.pop()
                state = self._start(zero, script, waiting)
                if state is not None and state not in found:
                    found.append(state)
        return found

    def _start(self, zero: bool, script: tuple[int, ...], waiting: list[tuple[int, ...]]) -> dict[str, Any] | None:
        domain = _StartDomain(self, zero, self.eager)
        machine: Machine[Any] = Machine(domain, self.system, self.machine.layout)
        pseudo = {"frame.f.id": ZERO_PAGE if zero else WITNESS, _ALIVE: 0}
        places = {name: i for i, name in enumerate(pseudo)}
        run = Recording(places, list(pseudo.values()), _undecided, script, domain)
        domain.oracle = run
        self.choices.begin(run)
        try:
            state, assume = initial(domain, machine, self.system, self.threads)  # type: ignore[arg-type]
            numbers: list[Term] = []
            for condition in assume:
                try:
                    numbers.append(domain.term(condition))
                except ValueError:
                    numbers.append(self.terms.const(domain.boolean(condition), BOOL))
            values: dict[str, Any] = {name: domain.force(value) for name, value in state.items()}
        except Beyond as choice:
            waiting.extend((*script, way) for way in reversed(range(choice.options)))
            return None
        if any(n is self.terms.false for n in numbers):
            return None
        if not self.assume:
            self.assume = [n for n in numbers if n.op != "const"]
        for handler in self.handlers:
            if at_own_page(handler):
                for name, kind in handler.program.params:
                    if kind == "page":
                        values[handler.local(name)] = values["page.a.key"]
        held = self.once and any(values[f"{d.name}.{c}.{s}.valid"] for d, c, s, _ in self._entries)
        for thread in self.threads:
            values[f"{thread.name}.pc"] = thread.program.entry if not thread.device else DONE if held else IDLE
            values[f"{thread.name}.rounds"] = 0
        for slot, kept in (("frame.f", self._frames), ("table.t", self._tables)):
            if not kept:
                values |= {f"{slot}.id": WITNESS, f"{slot}.refs": 0, f"{slot}.others": False, f"{slot}.loose": False}
        return values | {_ALIVE: 0}

    # ---- moves

    def _lay_out(self) -> None:
        """The tuples and the memories. Locks for which nobody ever waits have no place."""
        modes: dict[str, list[tuple[str, str]]] = {}
        for thread in self.threads:
            for node in thread.program.nodes:
                if node.step.op == "lock":
                    modes.setdefault(node.step.names[0], []).append((thread.name, node.step.names[1]))
        idle = [k for k, takers in modes.items() if len({t for t, _ in takers}) < 2 or all(mode == "read" for _, mode in takers)]
        self._fixed: dict[str, Any] = {name: 0 for lock in idle for name in (f"lock.{lock}", f"lock.{lock}.readers")}
        for device, cache, slot, of in self._entries if self.eager else ():
            if not (self._frames if of == "pages" else self._tables or (self._frames and self._walks)):  # nobody asks: see _matters
                self._fixed |= {f"{device.name}.{cache}.{slot}.{field}": 0 for field in CACHE_FIELDS[of]}
        names = sorted(n for n in self.starts[0] if n not in self._fixed)
        self.names, self.places = names, {name: i for i, name in enumerate(names)}
        self._idents = [self.places[n] for n in names if self._is_table(n)]
        self._alive = self.places[_ALIVE]
        self._valid = [self.places[n] for n in (f"{d.name}.{c}.{s}.valid" for d, c, s, _ in self._entries) if n in self.places]
        self._witness = self.places["frame.f.id"]
        handlers = self.handlers if self.once else ()
        self._fillers = [(h, self.places[f"{h.name}.pc"], cast(Local, _fills_of(h)[0].args[1]).name) for h in handlers]
        self._paths_pcs = [(t, self.places[f"{t.name}.pc"]) for t in self.paths]
        self._content = frozenset(self.places[f"{what}.a.{f}"] for what, fields in _FIELDS for f in fields)
        self._blanks: dict[tuple[str, frozenset[str]], list[tuple[int, Any]]] = {}
        self._memos: dict[Any, Memo] = {}
        self._settle = self._memo(self._settle_body)
        self._others = self._memo(self._others_body)
        self._territories: dict[tuple[str, frozenset[str]], tuple[frozenset[int], frozenset[int]]] = {}
        self._constants = {n for n in names if n in ("page.a.addr", "page.a.key", "region.a.key", "frame.f.id", "table.t.id")}
        self._key = {"page": self.starts[0]["page.a.key"], "region": self.starts[0]["region.a.key"]}
        self._whole = any(n.step.op in ("fill_table", "clear_table") for t in self.threads for n in t.program.nodes)
        self.met: set[Met] = set()
        self._told = self._memo(self._told_body)

    def _is_table(self, name: str) -> bool:
        for thread in self.threads:
            if name.startswith(f"{thread.name}."):
                return thread.program.locals.get(name[len(thread.name) + 1 :]) == "table"
        return name.endswith(".table") and name != _ALIVE

    def _memo(self, body: Callable[[Recording], Any]) -> Memo:
        return Memo(self.places, body, self.domain, self._begin, self._fixed)

    def _begin(self, run: Recording) -> None:
        self.domain.oracle = run
        self.choices.begin(run)
        self.found = []

    def starts_like(self) -> frozenset[int]:
        """Starts in which no device can hold anything that a property asks about while nobody touches the entries at the witness: one
        for each way in which all else can stand; the starts in which a device can are among them all."""
        seen: set[tuple[Any, ...]] = set()
        kept: set[int] = set()
        for number, start in enumerate(self.starts):
            rest = tuple(start[n] for n in self.names if self.places[n] not in self._content and not self._of_cache(n))
            if not self._silent or self._holdable(start) or rest not in seen:
                kept.add(number)
                seen.add(rest)
        return frozenset(kept)

    def _of_cache(self, name: str) -> bool:
        return name == _ALIVE or any(name.startswith(f"{d.name}.{c}.{s}.") for d, c, s, _ in self._entries)

    def _holdable(self, start: dict[str, Any]) -> bool:
        """Whether the entries at the witness map the frame or link the table asked about."""
        small = start["region.a.kind"] == PMD_TABLE
        table = self._tables and small and start["region.a.table"] == start["table.t.id"]
        huge = start["region.a.kind"] == PMD_HUGE and start["region.a.frame"] == start["frame.f.id"]
        page = small and start["page.a.kind"] == PTE_PRESENT and start["page.a.frame"] == start["frame.f.id"]
        return bool(table or (self._frames and (huge or page)))

    def initial_states(self, truth: Truth, only: frozenset[int]) -> Iterator[tuple[State, int, tuple[Found, ...]]]:
        """The start states after the steps that nobody notices, in normal form; of each, which start it was, what was found on the way."""
        for number, start in enumerate(self.starts):
            if number not in only:
                continue
            states: list[tuple[State, tuple[Found, ...]]] = [(self._normal([start[n] for n in self.names], truth), ())]
            for thread in self.paths:
                if self._goes_on(thread, thread.program.entry):
                    states = [
                        (after, (*found, *more)) for s, found in states
                        for after, more in self._arrive(s, self._results(thread, s, truth), truth, frozenset())
                    ]  # fmt: skip
            yield from ((state, number, found) for state, found in states)

    def successors(self, state: State, truth: Truth, apart: frozenset[str]) -> Iterator[tuple[State, tuple[Found, ...]]]:
        """Every state one move on, and what was looked at first on the way. A path whose next steps nobody else can notice goes first,
        alone. ``apart``: the kinds of places at which the threads never meet."""
        for thread in self.paths:
            if not thread.program.nodes[state[self.places[f"{thread.name}.pc"]]].successors:
                continue
            results = self._results(thread, state, truth)
            if all(self._is_private(thread, r, apart) for r in results) and any(r.value is not None for r in results):
                yield from self._arrive(state, results, truth, apart)
                return
        busy = self.once and any(state[place] != IDLE for _, place, _ in self._fillers)
        for thread in self.threads:
            pc = state[self.places[f"{thread.name}.pc"]]
            if pc != DONE and (pc != IDLE or not busy) and (pc == IDLE or thread.program.nodes[pc].successors):
                yield from self._arrive(state, self._results(thread, state, truth), truth, apart)
        for result in self._others(state, truth):
            if result.value is not None:
                yield self._normal(self._apply(state, result.value), truth), ()

    def _results(self, thread: Thread, state: State, truth: Truth) -> list[Result]:
        pc = state[self.places[f"{thread.name}.pc"]]
        memo = self._memos.get((thread.name, pc))
        if memo is None:
            memo = self._memos[thread.name, pc] = self._memo(self._run_body(thread, pc))
        return memo(state, truth)

    def _arrive(self, state: State, results: list[Result], truth: Truth,
                apart: frozenset[str]) -> Iterator[tuple[State, tuple[Found, ...]]]:  # fmt: skip
        for result in results:
            if result.value is not None:
                changes, found, met = result.value
                if met not in self.met:
                    self.met.add(met)
                after = self._normal(self._blanked(self._apply(state, changes), apart), truth)
                if self._worthwhile(after):
                    yield after, found

    def _blanked(self, values: list[Any], apart: frozenset[str]) -> list[Any]:
        """Where a path has been that is done, and no other thread comes, nothing is looked at any more: it stays as it is, with the
        references it owns, and need not be told apart."""
        for thread, pc in self._paths_pcs:
            if not thread.program.nodes[values[pc]].successors:
                blank = self._blanks.get((thread.name, apart))
                if blank is None:
                    places = [self.places[f"{what}.{slot.name}.{f}"] for what, fields in _FIELDS
                              if what in apart for slot in self._slots(what) if slot.owner == thread.name for f in (*fields, "key")]
                    blank = self._blanks[thread.name, apart] = [(p, self.starts[0][self.names[p]]) for p in places]
                for place, value in blank:
                    values[place] = value
        return values

    def _slots(self, what: str) -> tuple[Slot, ...]:
        return self.machine.layout.pages if what == "page" else self.machine.layout.regions

    # ---- who can notice what

    def _is_private(self, thread: Thread, result: Result, apart: frozenset[str]) -> bool:
        known = result.private.get(apart)
        if known is None:
            own, harmless = self._territory(thread, apart)
            written = frozenset(place for place, _ in result.value[0]) if result.value is not None else frozenset()
            known = result.private[apart] = result.reads <= own | harmless and written <= own
        return known

    def _territory(self, thread: Thread, apart: frozenset[str]) -> tuple[frozenset[int], frozenset[int]]:
        """(places that only this thread reads and writes, places whose changes make no difference to it)."""
        found = self._territories.get((thread.name, apart))
        if found is None:
            own: set[int] = set()
            harmless: set[int] = set()
            for name, place in self.places.items():
                kind, _, rest = name.partition(".")
                space = kind if kind != "lock" else ".".join(name.split(".")[:2])
                mine = f".{thread.name}." in name if kind == "lock" else rest.startswith(f"{thread.name}_")
                if kind == thread.name or name.endswith(f".queued.{thread.name}") or (mine and space in apart):
                    own.add(place)
                elif name in self._constants or (space in apart and (kind == "lock" or name.endswith(".key"))):
                    harmless.add(place)
            found = self._territories[thread.name, apart] = (frozenset(own), frozenset(harmless))
        return found

    def spaces(self) -> frozenset[str]:
        """Kinds of places at which threads may meet: pages, regions, and families of locks by address."""
        families = {f"lock.{k.name}" for k in self._locks.values() if k.key == "address"}
        return frozenset({"page", "region", *families})

    def meetings(self, truth: Truth) -> frozenset[str]:
        """The kinds of places at which two threads have met so far, other than at the witness's page and region."""
        found: set[str] = set()
        at: dict[tuple[str, str], set[Term]] = {}
        for met in self.met:
            for name, space, key in met:
                at.setdefault((name, space), set()).add(key)
        own = {"page": self._key["page"], "region": self._key["region"]}
        for (one, space), keys in at.items():
            for (other, same_space), others in at.items():
                if one >= other or space != same_space or space in found:
                    continue
                if any(self._meet(k, o, own.get(space), truth) for k in sorted(keys, key=_index) for o in sorted(others, key=_index)):
                    found.add(space)
        if "region" in found and self._whole:
            found.add("page")
        return frozenset(found)

    def at_witness(self, truth: Truth) -> bool:
        """Whether a thread has been at the witness's entries so far. An allocation looks at them, too: for the frame asked about, which
        they do not map where ``starts_like`` leaves out a start. So does a handler, which finds another frame there: then it has done
        nothing (``once``)."""
        handlers = {h.name for h in self.handlers} if self.once else set()
        own = {"page": self._key["page"], "region": self._key["region"]}
        places = sorted({(space, key.index, key) for met in self.met for name, space, key in met if space in own and name not in handlers})
        return any(self._meet(key, own[space], None, truth) for space, _, key in places)

    def _meet(self, one: Term, other: Term, own: Term | None, truth: Truth) -> bool:
        def equal(a: Term, b: Term) -> bool:
            term = self.terms.eq(a, b)
            return bool(term.value) if term.op == "const" else truth(term)

        return equal(one, other) and not (own is not None and equal(one, own))

    @staticmethod
    def _apply(state: State, changes: tuple[tuple[int, Any], ...]) -> list[Any]:
        after = list(state)
        for place, value in changes:
            after[place] = value
        return after

    def _normal(self, values: list[Any], truth: Truth) -> State:
        (settled,) = self._settle(values, truth)
        for place, value in settled.value:
            values[place] = value
        names: dict[int, int] = {}
        for place in self._idents:
            ident = values[place]
            if ident >= FIRST_OTHER:
                name = names.get(ident)
                if name is None:
                    name = names[ident] = len(names) + FIRST_OTHER
                values[place] = name
        values[self._alive] = len(names)
        return tuple(values)

    # ---- what is remembered

    def _run_body(self, thread: Thread, pc: int) -> Callable[[Recording], Any]:
        """The thread's next step and those behind it that nobody can notice."""
        program, live, name = thread.program, self._live[thread.name], thread.name

        def body(run: Recording) -> Any:
            at = pc
            met: set[tuple[str, str, Term]] = set()
            if at == IDLE:
                at = program.entry
                self._forget(run, thread, frozenset(program.locals) - {p for p, _ in program.params})
            while True:
                node = program.nodes[at]
                self._meets(run, thread, node.step, met)
                outcome = self.machine.execute(run, thread, node.step, self.choices)  # type: ignore[arg-type]
                if not self.domain.boolean(outcome.guard):
                    return None
                way = 0 if outcome.branch is None or self.domain.boolean(outcome.branch) else 1
                self.taken.add((name, at, way))
                target = node.successors[way]
                if self._order[name][target] <= self._order[name][at] and not thread.device:
                    rounds = self._now(run, f"{name}.rounds")
                    if rounds >= self._rounds:
                        self.truncated = True
                        return None
                    run[f"{name}.rounds"] = rounds + 1
                dead = (live[at] | frozenset(node.step.results)) - live[target]
                at = target
                if thread.device:
                    dead -= {p for p, _ in program.params}
                self._forget(run, thread, dead)
                if not self._goes_on(thread, at):
                    break
            if not program.nodes[at].successors:
                self.taken.add((name, at, 0))
                if thread.device:
                    self._forget(run, thread, frozenset(program.locals) - {p for p, _ in program.params})
                    at = DONE if self.once else IDLE
            run[f"{name}.pc"] = at
            return run.changes(), tuple(self.found), frozenset(met)

        return body

    def _meets(self, run: Recording, thread: Thread, step: Step, met: set[tuple[str, str, Term]]) -> None:
        """Note which pages, regions and locks a step is about."""
        view: View[Any] = View(run, f"{thread.name}.")  # type: ignore[arg-type]
        looks = self.machine.looks
        for expr in [*addresses(step), *(step.args[:1] if step.op == "fill" else ())]:
            at = looks.value(expr, view)
            met.add((thread.name, "page", cast(Term, self.domain.force(looks.page_key(at)))))
            met.add((thread.name, "region", cast(Term, self.domain.force(looks.region_key(at)))))
        if step.op in ("lock", "unlock"):
            lock = self._locks[step.names[0]]
            if lock.key == "address":
                met.add((thread.name, f"lock.{lock.name}", cast(Term, self.domain.force(self.machine.lock_key(step, lock, view)))))

    def _now(self, run: Recording, name: str) -> Any:
        """What a variable holds at this point of a run."""
        return self.domain.force(run[name])

    def _goes_on(self, thread: Thread, node: int) -> bool:
        at = thread.program.nodes[node]
        return bool(at.successors) and not self._visible(thread, node) and node not in self._heads[thread.name]

    def _forget(self, run: Recording, thread: Thread, names: frozenset[str]) -> None:
        for name in sorted(names):
            kind = thread.program.locals.get(name)
            if kind is not None:
                run[thread.local(name)] = self.terms.const(0, NUMBER) if kind not in ("bool", "frame", "table") else 0

    def _others_body(self, run: Recording) -> Any:
        """One of the things that may happen without any thread: an unknown holder lets go, a cache fills or loses an entry."""
        acts: list[tuple[str, Any]] = [("drop", h) for h in self.machine.unknown_holders()]
        if self._evicts:
            acts += [("evict", (d.name, c, s)) for d, c, s, _ in self._entries]
        acts += [("fill", f) for f in self._fills if not self._at_once(f)]
        if not acts:
            return None
        what, which = acts[run.choose(len(acts))]
        if what == "drop":
            if not self.domain.boolean(self.machine.may_drop(run, which)):  # type: ignore[arg-type]
                return None
            run[which] = False
        elif what == "evict":
            device, cache, slot = which
            if not run.now(f"{device}.{cache}.{slot}.valid"):
                return None
            self.taken.add((device, cache, 1))
            run[f"{device}.{cache}.{slot}.valid"] = False
        elif not self._fill(run, which):
            return None
        return run.changes() or None

    def _at_once(self, fill: Fill) -> bool:
        """Whether a fill never does harm to who wants to break a property: what it overwrites, nobody asks about."""
        return self.eager and (fill.cache.of == "pages" or not (self._frames and self._walks))

    def _fill(self, run: Recording, fill: Fill) -> bool:
        allowed, written = self.machine.fill(run, fill)  # type: ignore[arg-type]
        if not self.domain.boolean(allowed):
            return False
        self.taken.add((fill.device, fill.cache.name, 0))
        for name, value in written.items():
            run[name] = value
        return True

    def _settle_body(self, run: Recording) -> Any:
        """The normal form: caches filled as far as that only breaks more, and entries that nobody asks about forgotten."""
        while self.eager and any(self._fill_more(run, fill) for fill in self._fills):
            pass
        self._forget_entries(run)
        return run.changes()

    def _fill_more(self, run: Recording, fill: Fill) -> bool:
        """Whether the fill happens: not if nobody asks for what it brings, or the entry is there already."""
        entry = f"{fill.device}.{fill.cache.name}.{fill.slot.name}"
        pages = fill.cache.of == "pages"
        allowed, written = self.machine.fill(run, fill)  # type: ignore[arg-type]
        target = written[f"{entry}.{'frame' if pages else 'table'}"]
        if not self.domain.boolean(allowed):
            return False
        self.taken.add((fill.device, fill.cache.name, 0))
        if not self._matters(run, fill.cache.of, target):
            return False
        held = self.domain.boolean(run[f"{entry}.valid"])
        if held and self._matters(run, fill.cache.of, run[f"{entry}.{'frame' if pages else 'table'}"]):
            gains = pages and self._writes and self.domain.boolean(written[f"{entry}.write"])
            if not gains or self.domain.boolean(run[f"{entry}.write"]):
                return False
        for name, value in written.items():
            run[name] = value
        return True

    def _matters(self, run: Recording, of: str, ident: Value) -> bool:
        """Whether anybody asks for an entry with this frame or table."""
        if of == "pages":
            return self._frames and self.domain.boolean(self.domain.eq(ident, run["frame.f.id"]))
        if self._frames and self._walks:
            return True
        return self._tables and self.domain.boolean(self.domain.eq(ident, run["table.t.id"]))

    def _forget_entries(self, run: Recording) -> None:
        for device, cache, slot, of in self._entries:
            entry = f"{device.name}.{cache}.{slot}"
            ident = f"{entry}.{'frame' if of == 'pages' else 'table'}"
            held = self.domain.boolean(run[f"{entry}.valid"])
            if held and self.eager and not self._matters(run, of, run[ident]):
                run[f"{entry}.valid"] = held = False
            if not held:
                run[ident] = 0
            if of == "pages" and (not held or (self.eager and not self._writes)):
                run[f"{entry}.write"] = False

    def _told_body(self, run: Recording) -> Any:
        done = all(not t.program.nodes[run.now(f"{t.name}.pc")].successors for t in self.paths)
        broken: list[str] = []
        says: list[str] = []
        for prop in self.properties:
            if (prop.when == "always" or done) and self.domain.boolean(violated(self.machine, prop, run)):  # type: ignore[arg-type]
                broken.append(prop.name)
            for said in self._cover(prop):
                some = PropertyDecl(prop.name, prop.title, "always", prop.binders, Op("!", (said,)))
                if prop.name not in says and self.domain.boolean(violated(self.machine, some, run)):  # type: ignore[arg-type]
                    says.append(prop.name)
        return Told(tuple(broken), tuple(says)), done

    def told(self, state: State, truth: Truth) -> tuple[Told, bool]:
        """What a state tells of the properties, and whether every path is done in it."""
        found = self._told(state, truth)
        if len(found) == 1:
            return found[0].value  # type: ignore[no-any-return]
        broken, says = (tuple(dict.fromkeys(n for r in found for n in names(r.value[0]))) for names in (_BROKEN, _SAYS))
        return Told(broken, says), found[0].value[1]


def _undecided(term: Term) -> bool:
    raise AssertionError("the start state depends on no comparison of numbers")


def about_entries(formula: Expr) -> bool:
    """Whether a formula can be false only where a device holds something."""
    if isinstance(formula, Op) and formula.op == "&&":
        return all(map(about_entries, formula.args))
    return isinstance(formula, Op) and formula.op == "->" and _asks_entry(formula.args[0])


def _asks_entry(condition: Expr) -> bool:
    if isinstance(condition, Op) and condition.op == "&&":
        return any(map(_asks_entry, condition.args))
    return isinstance(condition, Look) and condition.name in ("cached", "cached_writable", "table_cached")


def _fills_of(handler: Thread) -> list[Step]:
    return [n.step for n in handler.program.nodes if n.step.op == "fill"]


_BROKEN = attrgetter("broken")
_SAYS = attrgetter("says")
_index = attrgetter("index")


def only_held(formula: Expr, positive: bool = True) -> bool:
    """Whether a formula asks caches only on the left of implications, for the bound frame or table: then an entry more never makes it
    true."""
    if isinstance(formula, Op):
        if formula.op == "!":
            return only_held(formula.args[0], not positive)
        if formula.op == "->":
            return only_held(formula.args[0], not positive) and only_held(formula.args[1], positive)
        if formula.op in ("&&", "||"):
            return all(only_held(a, positive) for a in formula.args)
    looks = [e for e in subexpressions(formula) if isinstance(e, Look) and e.name in ("cached", "cached_writable", "table_cached")]
    if not looks:
        return True
    return not positive and isinstance(formula, Look) and formula.name != "has" and isinstance(formula.args[2], Local)
