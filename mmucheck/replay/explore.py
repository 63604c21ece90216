"""The interpreter at work: every schedule of a concrete world, shortest first, until a property breaks.

Nothing here knows of a solver. A refutation is shown only if this search finds it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Sequence
from itertools import product

from mmucheck.ir.program import PropertyDecl, Step, System
from mmucheck.machine.domain import Concrete
from mmucheck.machine.looks import View
from mmucheck.machine.state import State, Thread, threads_of
from mmucheck.machine.steps import Fill, Machine, Untracked
from mmucheck.machine.visibility import Visibility, losing_matters
from mmucheck.records import record
from mmucheck.replay.world import Scenario, layout_of, start

MAX_STATES = 200_000
MAX_PAGES = 12


@record
class Event:
    """One atomic thing that happened. ``actor`` is a thread or device; ``step`` is set for steps of a program, ``action`` says
    what happened otherwise; ``before`` and ``after`` are the whole states."""

    actor: str
    action: str
    step: Step | None
    before: State[int]
    after: State[int]
    way: int | None = None
    """For a step with two successors, which was taken: 0 or 1."""


@record
class Violation:
    """``witness``: the bound names with their values, e.g. {"d": "ats", "a": 4096, "f": 1}."""

    property: PropertyDecl
    witness: dict[str, int | str]
    events: tuple[Event, ...]
    start: State[int]
    scenario: Scenario


class SearchExhausted(Exception):
    """The world is too large to search: no verdict may be drawn."""


_Key = tuple[int, ...]


class _NeedChoice(Exception):
    def __init__(self, options: tuple[int, ...]) -> None:
        super().__init__()
        self.options = options


class _Script:
    """A chooser that plays given decisions and asks for the next one when they run out."""

    def __init__(self, decisions: tuple[int, ...], frames: tuple[int, ...], tables: tuple[int, ...]) -> None:
        self._decisions, self._frames, self._tables = list(decisions), frames, tables

    def _next(self, options: tuple[int, ...]) -> int:
        if not self._decisions:
            raise _NeedChoice(options)
        return self._decisions.pop(0)

    def boolean(self, label: str) -> int:
        return self._next((1, 0))

    def frame(self, label: str) -> int:
        return self._next(self._frames)

    def table(self, label: str) -> int:
        return self._next(self._tables)

    def first_look(self, what: str, key: int, new: int) -> dict[str, int]:
        raise AssertionError("a closed world has every page")


def search(system: System, scenario: Scenario, prop: PropertyDecl, seconds: float = 0.0) -> Violation | None:
    """The shortest schedule from the scenario that breaks the property, fewest device actions among equals; None if none does.

    Raises SearchExhausted if the world is too large, or takes more than so many seconds (0 for no limit).
    """
    return next(broken(system, scenario, [prop], seconds=seconds), None)


def broken(system: System, scenario: Scenario, properties: Sequence[PropertyDecl], states: int = MAX_STATES,
           seconds: float = 0.0) -> Iterator[Violation]:  # fmt: skip
    """For each of the properties that some schedule from the scenario breaks, the shortest one, as they are found.

    Raises SearchExhausted if that takes more than so many states or seconds (0 for no limit).
    """
    left = list(properties)
    end = time.monotonic() + seconds if seconds else 0.0
    while left:
        try:
            for violation in _Explorer(system, scenario, left, states, end).run():
                left = [p for p in left if p is not violation.property]
                yield violation
            return
        except Untracked as missing:
            if len(scenario.pages) >= MAX_PAGES:
                raise SearchExhausted("the path walks over too many pages") from None
            scenario = scenario.with_page(int(str(missing.address)))


class _Explorer:
    def __init__(self, system: System, scenario: Scenario, properties: Sequence[PropertyDecl], states: int, end: float) -> None:
        self.system, self.scenario, self.left, self.states, self.end = system, scenario, list(properties), states, end
        self.layout = layout_of(scenario)
        self.machine: Machine[int] = Machine(Concrete(), system, self.layout)
        self.threads = threads_of(system)
        self.fills = self.machine.fills()
        self.holders = self.machine.unknown_holders()
        self.visible = Visibility(system, properties)
        self.evicts = losing_matters(self.threads, properties)
        self.paths = [t for t in self.threads if not t.device]
        self.heads = {t.name: t.program.back_edge_targets() for t in self.threads}
        """Round a loop no thread goes without a stop: a longer way over more pages is looked at only when its turn comes."""
        self.costs: dict[tuple[int, ...], tuple[int, int]] = {}
        self.held = {
            kind: [t.local(n) for t in self.threads for n, k in t.program.locals.items() if k == kind] for kind in ("frame", "table")
        }

    def run(self) -> Iterator[Violation]:
        first = start(self.system, self.scenario, self.layout)
        self.keys = sorted(first)
        counter = 0
        heap: list[tuple[int, int, int, State[int]]] = []
        parents: dict[tuple[int, ...], tuple[tuple[int, ...] | None, tuple[Event, ...]]] = {}
        for state, events in self._settle(first):
            if (key := self._key(state)) not in parents:
                parents[key] = (None, events)
                heapq.heappush(heap, (len(events), 0, counter, state))
                counter += 1
        done: set[tuple[int, ...]] = set()
        while heap:
            length, actions, _, state = heapq.heappop(heap)
            key = self._key(state)
            if key in done:
                continue
            done.add(key)
            for prop in list(self.left):
                bound = self._broken(prop, state)
                if bound is not None:
                    self.left.remove(prop)
                    yield Violation(prop, bound, self._history(key, parents), first, self.scenario)
            if not self.left:
                return
            if len(done) > self.states:
                raise SearchExhausted(f"more than {self.states} states")
            if self.end and not len(done) & 0xFF and time.monotonic() > self.end:
                raise SearchExhausted(f"timeout, after {len(done)} states")
            for by_device, events, after in self._successors(state):
                target = self._key(after)
                if target in done:
                    continue
                known = parents.get(target)
                cost = (length + len(events), actions + by_device)
                if known is None or cost < self.costs.get(target, (0, 0)):
                    parents[target] = (key, events)
                    self.costs[target] = cost
                    heapq.heappush(heap, (*cost, counter, after))
                    counter += 1

    def _key(self, state: State[int]) -> tuple[int, ...]:
        return tuple(map(state.__getitem__, self.keys))

    def _history(self, key: _Key, parents: dict[_Key, tuple[_Key | None, tuple[Event, ...]]]) -> tuple[Event, ...]:
        parts: list[tuple[Event, ...]] = []
        at: tuple[int, ...] | None = key
        while at is not None:
            at, events = parents[at]
            parts.append(events)
        return tuple(e for part in reversed(parts) for e in part)

    # ---- what can happen next

    def _successors(self, state: State[int]) -> Iterator[tuple[int, tuple[Event, ...], State[int]]]:
        for thread in self.paths:
            for after, events in self._run(thread, state):
                yield 0, events, after
        yield from self._device_actions(state)
        for holder in self.holders:
            if self.machine.may_drop(state, holder):
                what, name, _ = holder.split(".")
                after = {**state, holder: False}
                yield 1, (Event("others", f"drop their references on {what} {name}", None, state, after),), after

    def _device_actions(self, state: State[int]) -> Iterator[tuple[int, tuple[Event, ...], State[int]]]:
        for fill in self.fills:
            available, written = self.machine.fill(state, fill)
            if available:
                after = {**state, **written}
                if after != state:
                    yield 1, (Event(fill.device, _say_fill(fill, after), None, state, after),), after
        for handler in (t for t in self.threads if t.device):
            for after, events in self._handler(handler, state):
                yield 1, events, after
        if self.evicts:
            for device in self.system.devices:
                for cache in device.caches:
                    for slot in self.layout.pages if cache.of == "pages" else self.layout.regions:
                        valid = f"{device.name}.{cache.name}.{slot.name}.valid"
                        if state[valid]:
                            after = {**state, valid: False}
                            yield 1, (Event(device.name, f"evicts its {cache.name} entry", None, state, after),), after

    def _handler(self, handler: Thread, state: State[int]) -> Iterator[tuple[State[int], tuple[Event, ...]]]:
        if state[f"{handler.name}.pc"] >= 0:
            yield from self._run(handler, state)
            return
        for slot in self.layout.pages:
            begun = {**state, f"{handler.name}.pc": handler.program.entry}
            for name in handler.program.locals:
                begun[handler.local(name)] = 0
            key = state[f"page.{slot.name}.key"]
            named = {handler.local(name): (0, 1) if kind == "bool" else (key,) for name, kind in handler.program.params}
            for values in product(*named.values()):
                yield from self._run(handler, {**begun, **dict(zip(named, values, strict=True))})

    def _run(self, thread: Thread, state: State[int]) -> Iterator[tuple[State[int], tuple[Event, ...]]]:
        """The thread's next step, and the steps behind it that nobody can notice."""
        pc = state[f"{thread.name}.pc"]
        node = thread.program.nodes[pc]
        if not node.successors:
            if thread.device:
                yield {**state, f"{thread.name}.pc": -1}, ()
            return
        for event in self._execute(thread, state):
            for settled, events in self._settle(event.after, thread):
                yield settled, (event, *events)

    def _settle(self, state: State[int], thread: Thread | None = None) -> Iterator[tuple[State[int], tuple[Event, ...]]]:
        """Run on through steps nobody can notice; a handler that is done becomes idle again."""
        for each in [thread] if thread else self.paths:
            pc = state[f"{each.name}.pc"]
            if pc < 0:
                continue
            node = each.program.nodes[pc]
            if not node.successors:
                if each.device:
                    cleared = {each.local(n): 0 for n in each.program.locals}
                    state = {**state, f"{each.name}.pc": -1, **cleared}
                continue
            if not self.visible(each, pc) and pc not in self.heads[each.name]:
                for event in self._execute(each, state):
                    for settled, events in self._settle(event.after, thread):
                        yield settled, (event, *events)
                return
        yield state, ()

    def _execute(self, thread: Thread, state: State[int]) -> Iterator[Event]:
        node = thread.program.nodes[state[f"{thread.name}.pc"]]
        pending: list[tuple[int, ...]] = [()]
        frames, tables = self._free(state, "frame"), self._free(state, "table")
        while pending:
            decisions = pending.pop(0)
            after = dict(state)
            try:
                outcome = self.machine.execute(after, thread, node.step, _Script(decisions, frames, tables))
            except _NeedChoice as need:
                pending.extend((*decisions, option) for option in need.options)
                continue
            if not outcome.guard:
                continue
            way = 0 if outcome.branch is None or outcome.branch else 1
            after[f"{thread.name}.pc"] = node.successors[way]
            shown = way if len(node.successors) > 1 else None
            yield Event(node.step.origin.actor or thread.name, "", node.step, state, after, shown)

    def _free(self, state: State[int], what: str) -> tuple[int, ...]:
        """Identities an allocation may return: every one that was in use and is free now, and one that never was."""
        names = self.layout.frames if what == "frame" else self.layout.tables
        free = [int(n) for n in names if not state[f"{what}.{n}.refs"] and not state[f"{what}.{n}.others"]]
        suffix = f".{what}"
        seen = {v for k, v in state.items() if k.endswith(suffix)} | {state[k] for k in self.held[what]}
        used = seen | {self.scenario.frame if what == "frame" else self.scenario.table}
        fresh = [i for i in free if i not in used]
        return (*fresh[:1], *(i for i in free if i in used))

    # ---- the property

    def _broken(self, prop: PropertyDecl, state: State[int]) -> dict[str, int | str] | None:
        if prop.when == "finally" and any(t.program.nodes[state[f"{t.name}.pc"]].successors for t in self.paths):
            return None
        for bound in bindings(prop, self.system, self.layout.pages, self.layout.frames, self.layout.tables, state):
            if not self.machine.looks.value(prop.formula, View(state, bound=bound)):
                return bound
        return None


def bindings(prop: PropertyDecl, system: System, pages: tuple[object, ...], frames: tuple[str, ...], tables: tuple[str, ...],
             state: State[int]) -> Iterator[dict[str, int | str]]:  # fmt: skip
    """Every way to bind a property's names in a closed world."""
    values: dict[str, list[int | str]] = {
        "device": [d.name for d in system.devices],
        "address": [state[f"page.{p.name}.addr"] for p in pages],  # type: ignore[attr-defined]
        "frame": [int(f) for f in frames],
        "table": [int(t) for t in tables],
    }
    found: list[dict[str, int | str]] = [{}]
    for name, kind in prop.binders:
        found = [{**b, name: v} for b in found for v in values[kind]]
    yield from found


def _say_fill(fill: Fill, after: State[int]) -> str:
    entry = f"{fill.device}.{fill.cache.name}.{fill.slot.name}"
    if fill.cache.of == "tables":
        return f"walks: {fill.cache.name} holds table {after[f'{entry}.table']}"
    via = f" through {fill.via}" if fill.via else ""
    source = f" from {fill.cache.source}" if fill.cache.source != "page_table" else via
    mode = "writable" if after[f"{entry}.write"] else "read-only"
    return f"fills {fill.cache.name}{source}: frame {after[f'{entry}.frame']}, {mode}"
