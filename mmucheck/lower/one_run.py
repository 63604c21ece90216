"""Runs of handlers where one run of one of them is enough (``Scope.once``), and sequence numbers, by which a handler sees that it is late.

What this rests on: mmucheck/README.md, "Two threads": *Fewer states*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from mmucheck.ir.program import DeviceVar, Expr, Local, Op, Program, conjuncts, subexpressions
from mmucheck.lower.counting import compares, sequences, snapshots_of
from mmucheck.lower.cuts import live_locals
from mmucheck.lower.scope import DONE, IDLE, Scope, Shape, State, fills_of
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.state import Thread
from mmucheck.records import record

_LETS_GO = frozenset("nop unlock put_page".split())

EXAMPLES = 16
"""Of runs that are followed although they come to nothing."""


@record
class Snapshot:
    """A handler's local that holds what a sequence number was; ``node``: where it is taken, if in one place; ``guards``: whether the
    handler fills only if the number is still that."""

    variable: DeviceVar
    handler: Thread
    local: str
    node: int
    guards: bool

    def place_names(self) -> tuple[str, str, str]:
        """Of the number, of the local, of where the handler is."""
        return f"{self.variable.device}.{self.variable.name}", self.handler.local(self.local), f"{self.handler.name}.pc"


def sequence_numbers(scope: Scope) -> list[DeviceVar]:
    """The variables of which handlers only ask whether they have grown."""
    return sequences(scope.system, scope.named)


def snapshots(scope: Scope) -> list[Snapshot]:
    """Of every handler, of every sequence number."""
    found = []
    for variable in sequence_numbers(scope):
        for handler in scope.handlers:
            program = handler.program
            for local in sorted(snapshots_of(program, variable)):
                taken = [i for i, n in enumerate(program.nodes) if n.step.op == "assign" and n.step.results == (local,)]
                guards = len(taken) == 1 and _guards(program, variable, local, taken[0])
                found.append(Snapshot(variable, handler, local, taken[0], guards))
    return found


def _guards(program: Program, variable: DeviceVar, local: str, taken: int) -> bool:
    """Whether every way to a fill takes the snapshot first, and then the side of a branch on which the number is what it was."""
    fills = {i for i, n in enumerate(program.nodes) if n.step.op == "fill"}
    if fills & _reached(program, [program.entry], {taken}, None):
        return False
    same = {
        i: n.successors[0] for i, n in enumerate(program.nodes)
        if n.step.op == "branch" and any(_says_same(c, variable, local) for c in conjuncts(n.step.args[0]))
    }  # fmt: skip
    live = live_locals(program)
    if any(local in live[successor] for successor in same.values()):
        return False  # behind the check it says nothing of the fill
    return not fills & _reached(program, program.nodes[taken].successors, set(), same)


def _reached(program: Program, start: Iterable[int], without: set[int], cut: Mapping[int, int] | None) -> set[int]:
    """The nodes to which control comes, if it neither goes through ``without`` nor takes the first way out of one of the ``cut``."""
    seen: set[int] = set()
    stack = [n for n in start if n not in without]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for way, successor in enumerate(program.nodes[node].successors):
            if successor not in without and not (cut and node in cut and way == 0):
                stack.append(successor)
    return seen


def _says_same(expr: Expr, variable: DeviceVar, local: str) -> bool:
    return isinstance(expr, Op) and expr.op == "==" and compares(expr, variable, frozenset({local}))


def put_off(scope: Scope) -> frozenset[tuple[str, int]]:
    """(handler, node) where a snapshot is taken that may as well be taken later, together with the next step: in a run in which it comes
    to something the number stays what it is until the handler fills."""
    return frozenset((s.handler.name, s.node) for s in snapshots(scope) if s.guards) if scope.once else frozenset()


def hurried(scope: Scope) -> frozenset[tuple[str, int]]:
    """(handler, node) behind the fill, where all that is left is to let go of locks and references: the sooner, the more may happen."""
    found: set[tuple[str, int]] = set()
    for handler in scope.handlers if scope.once else ():
        program = handler.program
        behind = _reached(program, [s for n in program.nodes if n.step.op == "fill" for s in n.successors], set(), None)
        if all(program.nodes[i].step.op in _LETS_GO for i in behind):
            found |= {(handler.name, i) for i in behind}
    return frozenset(found)


def permissions(scope: Scope) -> list[str]:
    """The handlers' locals that are nothing but the permission they fill with, where nobody asks for permissions."""
    found = []
    for handler in scope.handlers if scope.eager and not scope.writes else ():
        filled = {s.args[2] for s in fills_of(handler) if len(s.args) > 2}
        others = {e for n in handler.program.nodes for i, a in enumerate(n.step.args) if not (n.step.op == "fill" and i == 2)
                  for e in subexpressions(a)}  # fmt: skip
        found += [handler.local(e.name) for e in filled - others if isinstance(e, Local)]
    return sorted(found)


class OneRun:
    """Which runs of handlers are followed: where one run is not enough, every one."""

    def __init__(self, scope: Scope, shape: Shape) -> None:
        places = shape.places
        self._once = scope.once
        self._valid = [places[n] for n in (f"{d}.{c}.{s}.valid" for d, c, s, _ in scope.entries) if n in places]
        self._witness = places["frame.f.id"]
        self._runs: list[tuple[int, int, dict[int, frozenset[str]], str]] = []
        for handler in scope.handlers if scope.once else ():
            filled = cast(Local, fills_of(handler)[0].args[1]).name
            self._runs.append((places[f"{handler.name}.pc"], places[handler.local(filled)], live_locals(handler.program), filled))
        self._late = _Places(scope, shape, [s for s in snapshots(scope) if s.guards] if scope.once else [])
        self._followed: dict[tuple[int, ...], set[State]] = {}

    def busy(self, state: State) -> bool:
        """Whether the one run has begun."""
        return any(state[pc] != IDLE for pc, *_ in self._runs)

    def worthwhile(self, state: State) -> bool:
        """Whether what the handlers have done so far can still come to something: if not, it may as well not have been done."""
        if not self._once:
            return True
        for place, frame, live, filled in self._runs:
            pc = state[place]
            if pc == DONE:
                return any(state[valid] for valid in self._valid)
            if pc != IDLE and filled in live[pc] and state[frame] != state[self._witness]:
                return False
        late = any(state[number] is not state[local] for number, local in self._late.taken(state))
        return not late or self._is_example(state)

    def _is_example(self, state: State) -> bool:
        """Some runs that are too late are followed all the same, to see what becomes of them: reports say which code runs."""
        followed = self._followed.setdefault(tuple(state[pc] for pc, *_ in self._runs), set())
        if len(followed) < EXAMPLES:
            followed.add(state)
        return state in followed


class SequenceNumbers:
    """Sequence numbers in states: only the order of what is remembered of them makes a difference. They are thought never to come round
    to where they were."""

    def __init__(self, scope: Scope, shape: Shape) -> None:
        self._terms = scope.terms
        self._taken = _Places(scope, shape, snapshots(scope))
        self._numbers = [shape.places[f"{v.device}.{v.name}"] for v in sequence_numbers(scope)]

    def settle(self, values: list[Any]) -> None:
        """Each becomes its rank."""
        if not self._numbers:
            return
        remembered: dict[int, list[int]] = {place: [] for place in self._numbers}
        for number, local in self._taken.taken(values):
            remembered[number].append(local)
        for number, locals_ in remembered.items():
            places = (number, *locals_)
            ranks = {v: i for i, v in enumerate(sorted({values[p].value for p in places}))}
            for p in places:
                values[p] = self._terms.const(ranks[values[p].value], NUMBER)


class _Places:
    """Where states hold snapshots."""

    def __init__(self, scope: Scope, shape: Shape, found: Sequence[Snapshot]) -> None:
        self._all = []
        for snapshot in found:
            number, local, pc = (shape.places[n] for n in snapshot.place_names())
            live = live_locals(snapshot.handler.program)
            at = frozenset(node for node, names in live.items() if snapshot.local in names)
            self._all.append((number, local, pc, at))

    def taken(self, state: Sequence[Any]) -> list[tuple[int, int]]:
        """(number, snapshot) of those that are still to be compared."""
        return [(number, local) for number, local, pc, at in self._all if state[pc] in at]
