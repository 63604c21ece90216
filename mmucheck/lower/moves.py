"""One move of the explored world: a thread's next steps, or something that happens without any thread.

The steps are the machine's. A move goes on over steps of which nobody can notice when they happen (mmucheck.machine.visibility).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from mmucheck.ir.program import Step, is_number
from mmucheck.lower.choices import Choices
from mmucheck.lower.cuts import live_locals
from mmucheck.lower.meetings import Meetings, Visit
from mmucheck.lower.one_run import hurried, put_off
from mmucheck.lower.scope import DONE, IDLE, Scope
from mmucheck.lower.unroll import Act
from mmucheck.machine.domain import NUMBER
from mmucheck.machine.memo import Recording
from mmucheck.machine.state import Thread
from mmucheck.machine.steps import Fill
from mmucheck.machine.visibility import Visibility


class Moves:
    """What may happen in a state, as functions to remember. ``rounds``: how often a thread goes round a loop; ``taken``: gets the acts
    that were seen; ``truncated``: whether a thread was stopped for its rounds."""

    def __init__(self, scope: Scope, choices: Choices, meetings: Meetings, rounds: int, taken: set[Act]) -> None:
        self._scope, self._choices, self._meetings, self._rounds, self._taken = scope, choices, meetings, rounds, taken
        self._domain, self._machine = scope.domain, scope.machine
        self._put_off = put_off(scope)
        self._hurried = hurried(scope)
        self._visible = Visibility(scope.system, scope.properties, self._put_off)
        self._live = {t.name: live_locals(t.program) for t in scope.running}
        self._heads = {t.name: t.program.back_edge_targets() for t in scope.running}
        self._order = {t.name: {n: i for i, n in enumerate(t.program.topological())} for t in scope.running}
        self.truncated = False

    def live(self, thread: Thread, node: int) -> frozenset[str]:
        """The thread's variables that may still be read from this node on."""
        return self._live[thread.name][node]

    def goes_on(self, thread: Thread, node: int) -> bool:
        """Whether a move does not end before this node."""
        at = thread.program.nodes[node]
        seen = self._visible(thread, node) and (thread.name, node) not in self._hurried
        return bool(at.successors) and not seen and node not in self._heads[thread.name]

    def of(self, thread: Thread, pc: int) -> Callable[[Recording], Any]:
        """The thread's next step and those behind it that nobody can notice: (changes, what was looked at first, visits); if it cannot be
        taken, there are None instead of changes: that it cannot is something the thread has seen where it was."""
        program, live, name = thread.program, self._live[thread.name], thread.name

        def body(run: Recording) -> Any:
            at = pc
            met: set[Visit] = set()
            if at == IDLE:
                at = program.entry
                self._forget(run, thread, frozenset(program.locals) - {p for p, _ in program.params})
            while True:
                node = program.nodes[at]
                met.update(self._visits(run, thread, at))
                outcome = self._machine.execute(run, thread, node.step, self._choices)  # type: ignore[arg-type]
                if not self._domain.boolean(outcome.guard):
                    return None, (), frozenset(met)
                self._decide_results(run, thread, node.step)
                way = 0 if outcome.branch is None or self._domain.boolean(outcome.branch) else 1
                self._taken.add((name, at, way))
                target = node.successors[way]
                if self._order[name][target] <= self._order[name][at] and not thread.device and not self._again(run, name):
                    return None, (), frozenset(met)
                dead = (live[at] | frozenset(node.step.results)) - live[target]
                left, at = at, target
                if thread.device:
                    dead -= {p for p, _ in program.params}
                self._forget(run, thread, dead)
                if (self._is_enough(run) or not self.goes_on(thread, at)) and (name, left) not in self._put_off:
                    break
            if not program.nodes[at].successors:
                self._taken.add((name, at, 0))
                if thread.device:
                    self._forget(run, thread, frozenset(program.locals) - {p for p, _ in program.params})
                    at = DONE if self._scope.once else IDLE
            run[f"{name}.pc"] = at
            self._rest(run, thread, at)
            return run.changes(), tuple(self._choices.found), frozenset(met)

        return body

    def _visits(self, run: Recording, thread: Thread, node: int) -> Iterable[Visit]:
        """Where the step of this node, which comes next, is."""
        return self._meetings.visits(run, thread, thread.program.nodes[node].step)

    def _decide_results(self, run: Recording, thread: Thread, step: Step) -> None:
        """What a step may decide of the values it gives that are open."""

    def _is_enough(self, run: Recording) -> bool:
        """Whether a move may end here though nobody could notice."""
        return False

    def _again(self, run: Recording, name: str) -> bool:
        """Whether the thread may go round a loop once more."""
        rounds = cast(int, self._domain.force(run[f"{name}.rounds"]))
        if rounds >= self._rounds:
            self.truncated = True
            return False
        run[f"{name}.rounds"] = rounds + 1
        return True

    def _rest(self, run: Recording, thread: Thread, node: int) -> None:
        """At the end of a move, before this node."""

    def _forget(self, run: Recording, thread: Thread, names: frozenset[str]) -> None:
        for name in sorted(names):
            kind = thread.program.locals.get(name)
            if kind is not None:
                run[thread.local(name)] = self._scope.terms.const(0, NUMBER) if is_number(kind) else 0

    def others(self, run: Recording) -> Any:
        """One of the things that may happen without any thread: an unknown holder lets go, a cache fills or loses an entry. What it
        changes."""
        acts: list[tuple[str, Any]] = [("drop", h) for h in self._machine.unknown_holders()]
        if self._scope.evicts:
            acts += [("evict", (d, c, s)) for d, c, s, _ in self._scope.entries]
        acts += [("fill", f) for f in self._scope.fills if not self._at_once(f)]
        if not acts:
            return None
        what, which = acts[run.choose(len(acts))]
        if what == "drop":
            if not self._domain.boolean(self._machine.may_drop(run, which)):  # type: ignore[arg-type]
                return None
            run[which] = False
            of, slot, _ = which.split(".")
            if not self._domain.boolean(self._machine.looks.slot_freed(run, of, slot)):  # type: ignore[arg-type]
                return None  # nobody asks for unknown holders but to see whether it is freed: they may as well let go later
        elif what == "evict":
            device, cache, slot = which
            if not run.now(f"{device}.{cache}.{slot}.valid"):
                return None
            self._taken.add((device, cache, 1))
            run[f"{device}.{cache}.{slot}.valid"] = False
        elif not self._fill(run, which):
            return None
        return run.changes() or None

    def _at_once(self, fill: Fill) -> bool:
        """Whether a fill never does harm to who wants to break a property: what it overwrites, nobody asks about."""
        return self._scope.eager and (fill.cache.of == "pages" or not (self._scope.frames and self._scope.walks))

    def _fill(self, run: Recording, fill: Fill) -> bool:
        allowed, written = self._machine.fill(run, fill)  # type: ignore[arg-type]
        if not self._domain.boolean(allowed):
            return False
        self._taken.add((fill.device, fill.cache.name, 0))
        for name, value in written.items():
            run[name] = value
        return True
