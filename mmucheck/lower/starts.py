"""The quiescent start states of two VMM threads, one by one: those that the lowering's start state stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmucheck.lower.choices import Choices
from mmucheck.lower.scope import ALIVE, DONE, ENTRIES, IDLE, Scope
from mmucheck.lower.unroll import at_own_page
from mmucheck.lower.witness import initial
from mmucheck.machine.concolic import WITNESS, Concolic, Value
from mmucheck.machine.domain import BOOL, NUMBER
from mmucheck.machine.memo import Recording, Script
from mmucheck.machine.state import PMD_HUGE, PMD_TABLE, PTE_PRESENT, ZERO_PAGE
from mmucheck.machine.steps import Machine
from mmucheck.machine.terms import Term


class _StartDomain(Concolic):
    """The domain of the start state: the finite variables are chosen as they are made, numbers stay."""

    def __init__(self, scope: Scope, choices: Choices, zero: bool) -> None:
        super().__init__(scope.terms)
        self._scope, self._choices, self._zero = scope, choices, zero
        self._kinds = {t.local(n): t.program.locals[n] for t in scope.threads for n, _ in t.program.params}
        self._entries: dict[str, dict[str, int]] = {}
        self._cached = {f"{device}.{cache}.{slot}" for device, cache, slot, _ in scope.entries}

    def var(self, name: str, sort: int) -> Value:
        choices = self._choices
        what, _, field = name.partition(".")
        if sort == NUMBER:
            return self.terms.var(name, NUMBER)
        if what in ("page", "region"):
            if what not in self._entries:
                self._entries[what] = choices.entry(what, True)
            return self._entries[what][field]
        if name == "f":
            return ZERO_PAGE if self._zero else WITNESS
        if name == "t":
            return WITNESS
        entry, _, field = name.rpartition(".")
        if self._scope.eager and entry in self._cached and field in ("valid", "write"):
            return True if field == "write" or not self._scope.once else choices.boolean(name)
        return choices.boolean(name) if sort == BOOL else choices.table(name) if self._kinds[name] == "table" else choices.mapped()

    def aligned(self, a: Value, bits: int) -> Value:
        return self.terms.aligned(a, bits) if isinstance(a, Term) else a


class Starts:
    """Every quiescent start up to the names of frames and tables. ``states``: by name of what is kept; ``assume``: what the numbers of
    all of them satisfy. ``one``: whether a single one will do."""

    def __init__(self, scope: Scope, choices: Choices, one: bool = False) -> None:
        self._scope, self._choices = scope, choices
        self.states: list[dict[str, Any]] = []
        self.assume: list[Term] = []
        for zero in (False, True) if scope.frames else (False,):
            waiting: list[Script] = [()]
            while waiting and not (one and self.states):
                script = waiting.pop()
                state = self._start(zero, script, waiting)
                if state is not None and state not in self.states:
                    self.states.append(state)

    def _start(self, zero: bool, script: Script, waiting: list[Script]) -> dict[str, Any] | None:
        """The start with these choices and the first of all others, None if there is none; the others are put into ``waiting``."""
        scope = self._scope
        domain = _StartDomain(scope, self._choices, zero)
        machine: Machine[Any] = Machine(domain, scope.system, scope.machine.layout, scope.machine.holds)
        pseudo = {"frame.f.id": ZERO_PAGE if zero else WITNESS, ALIVE: 0}
        places = {name: i for i, name in enumerate(pseudo)}
        run = Recording(places, list(pseudo.values()), _undecided, script, domain)
        domain.oracle = run
        self._choices.begin(run)
        state, assume = initial(domain, machine, scope.system, scope.threads)  # type: ignore[arg-type]
        numbers: list[Term] = []
        for condition in assume:
            try:
                numbers.append(domain.term(condition))
            except ValueError:
                numbers.append(scope.terms.const(domain.boolean(condition), BOOL))
        values: dict[str, Any] = {name: domain.force(value) for name, value in state.items()}
        waiting.extend(run.not_taken())
        if any(n is scope.terms.false for n in numbers):
            return None
        if not self.assume:
            self.assume = [n for n in numbers if n.op != "const"]
        return self._with_threads(values)

    def _with_threads(self, values: dict[str, Any]) -> dict[str, Any]:
        """The start with everybody in place, and without what no property is about."""
        scope = self._scope
        for handler in scope.handlers:
            if at_own_page(handler, scope.properties):
                for name, kind in handler.program.params:
                    if kind == "page":
                        values[handler.local(name)] = values["page.a.key"]
        held = scope.once and any(values[f"{d}.{c}.{s}.valid"] for d, c, s, _ in scope.entries)
        for thread in scope.threads:
            values[f"{thread.name}.pc"] = thread.program.entry if not thread.device else DONE if held else IDLE
            values[f"{thread.name}.rounds"] = 0
        for slot, kept in (("frame.f", scope.frames), ("table.t", scope.tables)):
            if not kept:
                values |= {f"{slot}.id": WITNESS, f"{slot}.refs": 0, f"{slot}.others": False, f"{slot}.loose": False}
        return values | {ALIVE: 0}

    def alike(self, names: Sequence[str]) -> frozenset[int]:
        """Starts in which no device can hold anything that a property asks about while nobody touches the entries at the witness: one
        for each way in which all else of ``names`` can stand; the starts in which a device can are among them all."""
        content = {f"{what}.a.{f}" for what, fields in ENTRIES for f in fields}
        seen: set[tuple[Any, ...]] = set()
        kept: set[int] = set()
        for number, start in enumerate(self.states):
            rest = tuple(start[n] for n in names if n not in content and not self._of_cache(n))
            if not self._scope.silent or self._holdable(start) or rest not in seen:
                kept.add(number)
                seen.add(rest)
        return frozenset(kept)

    def _of_cache(self, name: str) -> bool:
        return name == ALIVE or any(name.startswith(f"{d}.{c}.{s}.") for d, c, s, _ in self._scope.entries)

    def _holdable(self, start: dict[str, Any]) -> bool:
        """Whether the entries at the witness map the frame or link the table asked about."""
        small = start["region.a.kind"] == PMD_TABLE
        table = self._scope.tables and small and start["region.a.table"] == start["table.t.id"]
        huge = start["region.a.kind"] == PMD_HUGE and start["region.a.frame"] == start["frame.f.id"]
        page = small and start["page.a.kind"] == PTE_PRESENT and start["page.a.frame"] == start["frame.f.id"]
        return bool(table or (self._scope.frames and (huge or page)))


def _undecided(term: Term) -> bool:
    raise AssertionError("the start state depends on no comparison of numbers")
