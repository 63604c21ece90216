"""Variables of devices, and references of their handlers, where two threads of a crowd are looked at one at a time.

A *counter* goes up and down by constants: what the kept thread has added to it is kept, the rest is the other's, but for what paths that
are done have *left* there (mmucheck/README.md, "Again and again": *Devices*).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmucheck.ir.program import Const, DeviceVar
from mmucheck.lower.counting import change_by, compared_only, counters, lasting, only_grows, writes, written
from mmucheck.lower.scope import Scope
from mmucheck.lower.unroll import at_own_page
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.state import ZERO_PAGE
from mmucheck.records import record

HANDLED = "frame.f.handled"
"""How many references on the witness's frame handlers of devices have."""


def added(who: str, variable: DeviceVar) -> str:
    """The variable that says what a thread has added to a counter."""
    return f"{who}.added.{variable.device}.{variable.name}"


def left(variable: DeviceVar) -> str:
    """The variable that says whether paths that are done have added to a counter for good: 1, however much it is."""
    return f"{variable.device}.{variable.name}.left"


def obstacle(scope: Scope) -> str:
    """Why handlers and variables of the devices are out of reach of a crowd, as far as the properties can tell; "" if they are not."""
    system = scope.system
    if scope.handlers and not scope.once:
        return f"one run of `{scope.handlers[0].name}` does not stand for all that handlers do, or not for this property"
    for device in system.devices:
        own = {lock.name for lock in device.locks}
        for handler in device.handlers:
            if any(n.step.op == "set_var" for n in handler.nodes):
                return f"the handler `{handler.name}` of `{device.name}` sets a variable"
            if any(n.step.op == "lock" and (n.step.names[1] == "read" or n.step.names[0] not in own) for n in handler.nodes):
                return f"the handler `{handler.name}` of `{device.name}` takes a lock that is not its device's, or one for reading"
        if any(lock.key for lock in device.locks):
            return f"`{device.name}` has a lock with a key"
    for thread in scope.handlers:
        if not at_own_page(thread, scope.properties):
            return f"the handler `{thread.name}` looks at other pages than its own"
    return next((why for v in written(system) if (why := _why_not(scope, v, scope.named))), "")


def _why_not(scope: Scope, variable: DeviceVar, asked: frozenset[str]) -> str:
    name, system = f"`{variable.device}.{variable.name}`", scope.system
    for step in writes(system, variable):
        if change_by(step, variable) is None and not (len(step.args) == 1 and isinstance(step.args[0], Const)):
            return f"a hook sets {name} to what is neither a constant nor itself and a constant"
    if lasting(system, variable, asked):
        return ""
    if only_grows(system, variable) and (variable.name in asked or not compared_only(system, variable)):
        return f"{name} grows without end, and is used for more than to see whether it has grown"
    return ""


class Tallies:
    """Counters and handlers' references in the states of a world. ``me``: the thread that is kept."""

    def __init__(self, scope: Scope, places: Mapping[str, int], me: str) -> None:
        starts = {(d.name, n): e.value for d in scope.system.devices for n, e in d.variables if isinstance(e, Const)}
        self._terms = scope.terms
        self._counters = [
            _Counter(places[f"{v.device}.{v.name}"], places[added(me, v)], places.get(left(v), -1), starts[v.device, v.name])
            for v in counters(scope.system, scope.named)
        ]  # fmt: skip
        self._handled, self._refs, self._ident = places[HANDLED], places["frame.f.refs"], places["frame.f.id"]

    @staticmethod
    def extra(scope: Scope, me: str) -> dict[str, Any]:
        """What a state has beside what the machine keeps, as it is at first."""
        kept = counters(scope.system, scope.named)
        found: dict[str, Any] = {added(me, v): 0 for v in kept} | {HANDLED: 0}
        return found | {left(v): 0 for v in kept if lasting(scope.system, v, scope.named)}

    def handled(self, state: Sequence[Any]) -> int:
        """How many references on the witness's frame handlers have."""
        found: int = state[self._handled]
        return found

    def sides(self, state: Sequence[Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the kept thread has added to each counter, and what the rest has."""
        return tuple(state[c.own] for c in self._counters), tuple(c.of_rest(state) for c in self._counters)

    def moved(self, before: Sequence[Any], values: list[Any]) -> None:
        """The thread has made a move: what it has added."""
        for c in self._counters:
            if values[c.place] is not before[c.place]:
                values[c.own] += _signed(values[c.place].value - before[c.place].value)

    def leave(self, values: list[Any]) -> None:
        """The thread is done: what it has added to counters that last is nobody's from now on. That it is more than one is forgotten."""
        for c in self._counters:
            if c.left >= 0 and values[c.own] > 0:
                value = values[c.place].value - values[c.own] - values[c.left] + 1
                values[c.place], values[c.own], values[c.left] = self._terms.const(value, NUMBER), 0, 1

    def ambiguous(self, values: Sequence[Any]) -> bool:
        """Whether somebody has taken from a counter to which more was added for good than is known: it may be what it was at the start."""
        return any(c.left >= 0 and values[c.left] and (values[c.own] < 0 or c.of_rest(values) < 0) for c in self._counters)

    def handler_moved(self, before: Sequence[Any], values: list[Any]) -> None:
        """A handler has made a move: the references it has."""
        if values[self._ident] != ZERO_PAGE:
            values[self._handled] += values[self._refs] - before[self._refs]


@record
class _Counter:
    """Where a state holds a counter, what the kept thread has added to it, and whether something was added for good (-1: never)."""

    place: int
    own: int
    left: int
    start: int

    def of_rest(self, state: Sequence[Any]) -> int:
        """What the rest has added."""
        gone: int = state[self.left] if self.left >= 0 else 0
        return _signed(state[self.place].value - self.start) - int(state[self.own]) - gone


def _signed(value: int) -> int:
    """A difference of 64-bit numbers."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
