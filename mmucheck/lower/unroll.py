"""A system as one formula: the control-flow graph run once over terms, states joined where control joins.

Between two visible steps stands the closure of what may happen there: unknown holders let go, caches fill, handlers
advance. A loop-free program is covered completely; a loop is followed ``bound`` times round, and ``truncated`` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mmucheck.ir.expressions import kind_of
from mmucheck.ir.formulas import FREED_LOOKS, only_breaks
from mmucheck.ir.program import DeviceVar, Local, Look, Node, Program, PropertyDecl, Step, System, subexpressions
from mmucheck.lower.witness import FreshVariables, TermState, initial, violated, witness_layout
from mmucheck.machine.state import Thread, cache_slots, threads_of
from mmucheck.machine.steps import Machine
from mmucheck.machine.terms import Term, Terms
from mmucheck.machine.visibility import Visibility, asks_cache, changes_table, changes_upper, losing_matters, variables
from mmucheck.machine.world import addresses, entries_of, of_whole_table
from mmucheck.records import record

Act = tuple[str, str | int, int]
"""Something that may happen: (thread, node, which successor), or (device, cache, 0) for a fill, (device, cache, 1) for an entry lost."""


@record
class Place:
    """A state of the unrolled program: before ``node``, after ``rounds`` times round loops."""

    node: int
    rounds: int
    guard: Term
    state: TermState


@dataclass
class Unrolling:
    """What ``unroll`` gives: every visible place, when each act is ``taken``, and ``beyond``, when control goes on where a loop was
    left (then ``truncated`` is true)."""

    places: list[Place] = field(default_factory=list)
    exits: list[Place] = field(default_factory=list)
    cuts: list[Place] = field(default_factory=list)
    truncated: bool = False
    taken: dict[Act, list[Term]] = field(default_factory=dict)
    beyond: list[Term] = field(default_factory=list)

    def take(self, act: Act, when: Term) -> None:
        """Note a condition under which something happens."""
        self.taken.setdefault(act, []).append(when)


class Lowering:
    """One system over terms. Build once, ask many times: properties share everything. ``pace`` is called at every step with the number
    of terms there are, and may raise to end it."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl] = (), pace: Callable[[int], None] | None = None) -> None:
        self.system, self._properties = system, tuple(properties)
        self._pace = pace
        self.terms = Terms()
        self.threads = threads_of(system)
        self.machine: Machine[Term] = Machine(self.terms, system, witness_layout(self.threads))
        self.chooser = FreshVariables(self.terms)
        self.state, self.assume = initial(self.terms, self.machine, system, self.threads)
        self.handlers = tuple(t for t in self.threads if t.device)
        self._visible = Visibility(system, properties)
        self._upper = any(changes_upper(n.step) for t in system.threads for n in t.nodes)
        self.one_run_is_enough = all(runs_once(h, self.threads, system) for h in self.handlers)
        self._evicts = losing_matters(self.threads, properties)
        sources = {(d.name, c.source) for d in system.devices for c in d.caches}
        self._handlers_feed = any(
            s.op == "drop" or asks_cache(s) or _fills_table(s) or (s.op == "fill" and s.names in sources)
            for s in (n.step for h in self.handlers for n in h.program.nodes)
        )
        self._turns = _turns(self.handlers)
        for handler in self.handlers:
            self._start_handler(handler)

    # ---- properties

    def violation(self, prop: PropertyDecl, unrolling: Unrolling) -> list[tuple[Place, Term]]:
        """For each place where the property must hold, the condition under which it is reached and broken."""
        places = unrolling.exits if prop.when == "finally" else unrolling.places
        found = [(p, self.terms.and_(p.guard, violated(self.machine, prop, p.state))) for p in places]
        return [(place, term) for place, term in found if term is not self.terms.false]

    def one_run_suffices(self, prop: PropertyDecl) -> bool:
        """Whether following one run of each handler is enough for a proof of the property."""
        return self.one_run_is_enough and one_run_tells(prop, self.handlers)

    # ---- running

    def unroll(self, bound: int = 0) -> Unrolling:
        """From the start state through the program, loops ``bound`` times round."""
        entry = Place(self.threads[0].program.entry, 0, self.terms.true, self.state)
        return self.run([entry], bound)

    def run(self, entries: list[Place], bound: int, cut: frozenset[int] = frozenset()) -> Unrolling:
        """From given places. Control that comes to a node of ``cut`` again stops there and is kept in ``cuts``."""
        thread = self.threads[0]
        program = thread.program
        order = {node: i for i, node in enumerate(program.topological())}
        result = Unrolling()
        waiting: dict[tuple[int, int], list[tuple[Term, TermState]]] = {}
        for entry in entries:
            waiting.setdefault((entry.rounds, entry.node), []).append((entry.guard, entry.state))
        started = {(e.rounds, e.node) for e in entries}
        while waiting:
            key = min(waiting, key=lambda k: (k[0], order[k[1]]))
            rounds, node = key
            if self._pace is not None:
                self._pace(len(self.terms))
            guard, state = self._join(waiting.pop(key))
            if node in cut and key not in started:
                state = dict(state)
                self.machine.forget_foreign(state)
                result.cuts.append(Place(node, rounds, guard, state))
                continue
            for target, after_guard, after in self._step(thread, program.nodes[node], node, rounds, guard, state, result):
                back = order[target] <= order[node]
                if back and rounds >= bound and target not in cut:
                    result.truncated = True
                    result.beyond.append(after_guard)
                    continue
                waiting.setdefault((rounds + back, target), []).append((after_guard, after))
        return result

    def _join(self, arrivals: list[tuple[Term, TermState]]) -> tuple[Term, TermState]:
        guard, state = arrivals[0]
        for other_guard, other in arrivals[1:]:
            state = {k: self.terms.ite(other_guard, other[k], v) for k, v in state.items()}
            guard = self.terms.or_(guard, other_guard)
        return guard, state

    def _step(self, thread: Thread, node: Node, index: int, rounds: int, guard: Term, state: TermState,
              result: Unrolling) -> list[tuple[int, Term, TermState]]:  # fmt: skip
        state = dict(state)
        self.chooser.place = f"{thread.name}@{index}" + (f"/{rounds}" if rounds else "")
        at_exit = not node.successors
        if at_exit or self._visible(thread, index):
            self._closure(state, guard, result)
            place = Place(index, rounds, guard, dict(state))
            result.places.append(place)
            if at_exit:
                result.exits.append(place)
                result.take((thread.name, index, 0), guard)
                return []
        self.chooser.guard = guard
        outcome = self.machine.execute(state, thread, node.step, self.chooser)
        guard = self.terms.and_(guard, outcome.guard)
        if guard is self.terms.false:
            return []
        if outcome.branch is None:
            result.take((thread.name, index, 0), guard)
            return [(node.successors[0], guard, state)]
        taken = self.terms.and_(guard, outcome.branch)
        missed = self.terms.and_(guard, self.terms.not_(outcome.branch))
        branches = [(node.successors[0], taken, state), (node.successors[1], missed, dict(state))]
        result.take((thread.name, index, 0), taken)
        result.take((thread.name, index, 1), missed)
        return [b for b in branches if b[1] is not self.terms.false]

    # ---- what may happen between two steps

    def _closure(self, state: TermState, guard: Term, result: Unrolling) -> None:
        terms, machine, chooser = self.terms, self.machine, self.chooser
        for holder in machine.unknown_holders():
            may = machine.may_drop(state, holder)
            if may is not terms.false:
                state[holder] = terms.and_(state[holder], terms.not_(terms.and_(may, chooser.boolean(f"drop.{holder}"))))
        self._fills(state, guard, result)
        for _ in range(self._turns):
            for handler in self.handlers:
                self._advance(handler, state, guard, result)
        if self._handlers_feed:
            self._fills(state, guard, result)

    def _fills(self, state: TermState, guard: Term, result: Unrolling) -> None:
        """What the caches may lose and take in by themselves."""
        terms, machine, chooser = self.terms, self.machine, self.chooser
        if self._evicts:
            for device in self.system.devices:
                for cache, slot, _ in cache_slots(device, machine.layout):
                    entry = f"{device.name}.{cache}.{slot}"
                    lost, held = chooser.boolean(f"evict.{entry}"), state[f"{entry}.valid"]
                    result.take((device.name, cache, 1), terms.and_(guard, held, lost))
                    state[f"{entry}.valid"] = terms.and_(held, terms.not_(lost))
        for fill in machine.fills():
            if fill.via and not self._upper:
                continue
            entry = f"{fill.device}.{fill.cache.name}.{fill.slot.name}"
            available, written = machine.fill(state, fill)
            if available is terms.false:
                continue
            label = f"fill.{entry}" + (f".via.{fill.via}" if fill.via else "")
            happens = terms.and_(available, chooser.boolean(label))
            result.take((fill.device, fill.cache.name, 0), terms.and_(guard, happens))
            for key, value in written.items():
                state[key] = terms.ite(happens, value, state[key])

    def _start_handler(self, handler: Thread) -> None:
        """A handler that leaves nothing behind elsewhere runs at the witness's page, any other at any page: mmucheck/README.md."""
        for index in range(len(handler.program.nodes)):
            self.state[f"{handler.name}.at.{index}"] = self.terms.false
        self.state[f"{handler.name}.at.idle"] = self.terms.true
        if at_own_page(handler, self._properties):
            for name, kind in handler.program.params:
                if kind == "page":
                    self.state[handler.local(name)] = self.state["page.a.key"]

    def _advance(self, handler: Thread, state: TermState, guard: Term, result: Unrolling) -> None:
        """Any number of the handler's next steps, in order."""
        terms = self.terms
        name = handler.name
        start = terms.and_(state[f"{name}.at.idle"], self.chooser.boolean(f"{name}.start"))
        entry = f"{name}.at.{handler.program.entry}"
        state[f"{name}.at.idle"] = terms.and_(state[f"{name}.at.idle"], terms.not_(start))
        state[entry] = terms.or_(state[entry], start)
        for index in handler.program.topological():
            here = f"{name}.at.{index}"
            node = handler.program.nodes[index]
            if state[here] is terms.false or not node.successors:
                continue
            go = state[here]
            if asks_cache(node.step) or (self._handlers_feed and self._visible(handler, index)):
                self._fills(state, guard, result)
            if self._visible(handler, index):
                go = terms.and_(go, self.chooser.boolean(f"{name}.{index}"))
            after = dict(state)
            self.chooser.guard = terms.and_(guard, go)
            outcome = self.machine.execute(after, handler, node.step, self.chooser)
            go = terms.and_(go, outcome.guard)
            if go is terms.false:
                continue
            for key, value in after.items():
                if value is not state[key]:
                    state[key] = terms.ite(go, value, state[key])
            state[here] = terms.and_(state[here], terms.not_(go))
            branch = outcome.branch if outcome.branch is not None else terms.true
            for which, (successor, way) in enumerate(zip(node.successors, (branch, terms.not_(branch)), strict=False)):
                target = f"{name}.at.{successor}"
                gone = terms.and_(go, way)
                result.take((name, index, which), terms.and_(guard, gone))
                state[target] = terms.or_(state[target], gone)


def _turns(handlers: Sequence[Thread]) -> int:
    """How often several handlers are asked in their order, so that what one does may come before or behind what another does: as often as
    there are sections of locks, where they share one."""
    locks = [{n.step.names[0] for n in h.program.nodes if n.step.op == "lock"} for h in handlers]
    shared = any(one & other for i, one in enumerate(locks) for other in locks[:i])
    sections = sum(n.step.op == "lock" for h in handlers for n in h.program.nodes)
    return 1 if len(handlers) < 2 else max(len(handlers), sections if shared else 0)


def runs_once(handler: Thread, threads: tuple[Thread, ...], system: System) -> bool:
    """Whether one run of a handler stands for any number of them: it has no loop, changes nothing that any step reads, and frees nothing:
    nobody asks of a step what is freed, and what it drops it has taken itself.

    An entry in a cache was put there by one run. The others only read device variables, take locks and hold references for a
    while; leaving them out leaves a run that is still possible and frees no later (mmucheck/README.md, "Handlers").
    """
    conditions = [c.when for d in system.devices for c in d.caches if c.when is not None]
    reading = [a for t in threads for n in t.program.nodes for a in n.step.args] + conditions
    read = {(e.device, e.name) for arg in reading for e in subexpressions(arg) if isinstance(e, DeviceVar)}
    written = {n.step.names for n in handler.program.nodes if n.step.op == "set_var"}
    maps = any(changes_table(n.step) for n in handler.program.nodes)
    others = [n.step for t in threads if t.device == handler.device for n in t.program.nodes]
    refills = any(asks_cache(n.step) for n in handler.program.nodes) and any(s.op == "fill" for s in others)
    filled = {n.step.names for n in handler.program.nodes if n.step.op == "fill"}
    for device in system.devices:
        for cache in device.caches:  # a layer above a cache that is filled is filled, too
            filled |= {(device.name, cache.name)} if (device.name, cache.source) in filled else set()
    if any(asked & filled and not _only_renews(t.program, i) for t in threads for i, asked in _asked_caches(t.program)):
        return False
    asks_freed = any(e.name in ("freed", "table_freed") for arg in reading for e in subexpressions(arg) if isinstance(e, Look))
    loops = bool(handler.program.back_edge_targets())
    return not (loops or written & read or maps or refills or asks_freed) and _returns_what_it_took(handler.program)


def _asked_caches(program: Program) -> Iterator[tuple[int, set[tuple[str, ...]]]]:
    """The nodes that ask what caches hold, each with (device, cache) of those."""
    for i, node in enumerate(program.nodes):
        looks = [e.args[0] for arg in node.step.args for e in subexpressions(arg) if isinstance(e, Look) and e.name == "has"]
        if looks:
            yield i, {tuple(e.name.split(".", 1)) for e in looks if isinstance(e, Look)}


_RENEWS = frozenset("nop dispatch lock unlock branch assign".split())


def _only_renews(program: Program, node: int) -> bool:
    """Whether all that the code of a device makes of what one cache holds is to drop that entry, or to fill it: then an entry that is put
    there once more makes no difference but for itself."""
    step = program.nodes[node].step
    (asked, *others), actor = next(caches for i, caches in _asked_caches(program) if i == node), step.origin.actor
    if others or step.op != "branch" or not actor:
        return False
    seen, waiting = set(), [*program.nodes[node].successors]
    while waiting:
        at = waiting.pop()
        here = program.nodes[at].step
        if at in seen or here.origin.actor != actor:
            continue
        seen.add(at)
        if here.op not in _RENEWS and not (here.op in ("drop", "fill") and here.names == asked):
            return False
        waiting += program.nodes[at].successors
    return True


_FREES = frozenset("put_table tlb_queue tlb_queue_table tlb_free_pages tlb_free_tables split_page".split())


def _returns_what_it_took(program: Program) -> bool:
    """Every reference a handler drops is one it took itself: on every way to a ``put_page`` its frame was got and not yet put."""
    held: dict[int, frozenset[str]] = {program.entry: frozenset()}
    for index in program.topological():
        node, mine = program.nodes[index], held[index]
        step = node.step
        if step.op in _FREES:
            return False
        if step.op == "put_page":
            frame = step.args[0]
            if not isinstance(frame, Local) or frame.name not in mine:
                return False
            mine = mine - {frame.name}
        else:
            mine = mine - set(step.results)
        for i, successor in enumerate(node.successors):
            after = mine | {step.results[0]} if step.op == "get_user_page" and i == 0 else mine
            held[successor] = held[successor] & after if successor in held else after
    return True


def left_by_handlers(prop: PropertyDecl, handlers: Sequence[Thread]) -> frozenset[str]:
    """What the property asks about that runs of handlers leave behind. If it is more than one thing, they may be of different runs."""
    done = [n.step for h in handlers for n in h.program.nodes]
    looks = {e.name for e in subexpressions(prop.formula) if isinstance(e, Look)}
    left = {s.names[1] for s in done if s.op == "set_var"} & variables(prop.formula)
    ops = {s.op for s in done}
    left |= {"cached"} if "fill" in ops and looks & {"cached", "cached_writable"} else set()
    left |= {"table_cached"} & looks if any(_fills_table(s) for s in done) else set()
    left |= {"assertion_failed"} & looks if "assert" in ops else set()
    left |= {"slept_in_atomic"} & looks if ops & {"might_sleep", "lock"} else set()
    return frozenset(left)


def one_run_tells(prop: PropertyDecl, handlers: Sequence[Thread]) -> bool:
    """Whether what one run of a handler leaves is all that the property can be about: one thing, and not that references are held."""
    return not handlers or (len(left_by_handlers(prop, handlers)) <= 1 and only_breaks(prop.formula, FREED_LOOKS))


def _fills_table(step: Step) -> bool:
    """Whether it fills a cache of tables."""
    return step.op == "fill" and kind_of(step.args[1]) == "table"


def at_own_page(handler: Thread, properties: Iterable[PropertyDecl]) -> bool:
    """Whether the handler looks at and fills only the page it is started for: then the others' runs leave nothing at the witness, but for
    what a property asks beside an address."""
    for prop in properties:
        if any(kind == "address" for _, kind in prop.binders) and left_by_handlers(prop, [handler]) - {"cached", "table_cached"}:
            return False
        if not only_breaks(prop.formula, FREED_LOOKS):  # it may hold a reference that makes it so
            return False
    pages = [name for name, kind in handler.program.params if kind == "page"]
    touched = [a for n in handler.program.nodes for a in addresses(n.step)]
    touched += [n.step.args[0] for n in handler.program.nodes if n.step.op == "fill"]
    steps = [n.step for n in handler.program.nodes]
    if any(map(of_whole_table, steps)) or (any(map(_fills_table, steps)) and any("page" in entries_of(s) for s in steps)):
        return False  # what it leaves for a whole region may rest on an entry of any page
    asked = (e for n in handler.program.nodes for arg in n.step.args for e in subexpressions(arg))
    touched += [e.args[1] for e in asked if isinstance(e, Look) and e.name == "has"]
    return len(pages) == 1 and all(isinstance(a, Local) and a.name == pages[0] for a in touched)
