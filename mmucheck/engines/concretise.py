"""From a solver's model to a concrete start: the simplest one the query allows, the same whatever model came first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmucheck.engines.solver import Limits, Solver
from mmucheck.engines.verdicts import INCONCLUSIVE, REFUTED, Decision, InternalError
from mmucheck.ir.program import Look, PropertyDecl, System, subexpressions
from mmucheck.lower.unroll import Lowering
from mmucheck.machine.domain import BOOL, NUMBER
from mmucheck.machine.state import PMD_HUGE, PMD_TABLE, PTE_PRESENT, ZERO_PAGE, Thread
from mmucheck.machine.terms import Term, Terms, evaluate
from mmucheck.names.builtins import ADDRESS_SPACE
from mmucheck.replay.explore import SearchExhausted, search
from mmucheck.replay.world import Entry, Scenario

_BASE = 0x7F00_0000_0000
ADDRESSES = tuple(_BASE + offset for offset in (0, 1 << 12, 2 << 12, 3 << 12, 1 << 21, 2 << 21, 1 << 30, 2 << 30, 0xFFF))


def simplest_model(lowering: Lowering, query: Term, model: dict[str, int], limits: Limits) -> dict[str, int]:
    """A model of the query with preferred values tried one choice at a time in a fixed order."""
    groups = list(_wishes(lowering))
    named = {f"wish{i}.{j}": term for i, group in enumerate(groups) for j, term in enumerate(group)}
    solver = Solver([*lowering.assume, query], (), limits, list(named.items()))
    holds = dict(zip(named, evaluate(named.values(), model), strict=True))
    kept: list[str] = []
    for i, group in enumerate(groups):
        for name in (f"wish{i}.{j}" for j in range(len(group))):
            if not holds[name]:
                if solver.check([*kept, name], model=False).status != "sat":
                    continue
                holds = dict(zip(named, solver.truth(named), strict=True))
            kept.append(name)
            break
    answer = solver.check(kept)
    return answer.model if answer.status == "sat" else model


def _wishes(lowering: Lowering) -> Iterable[list[Term]]:
    """For each choice the conditions to try, best first."""
    terms, state = lowering.terms, lowering.state
    for thread in lowering.threads:
        for name, _ in thread.program.params if not thread.device else ():
            value = state[thread.local(name)]
            if value.sort == NUMBER:
                yield [terms.eq(value, terms.const(a, NUMBER)) for a in ADDRESSES]
    yield [terms.eq(state["page.a.addr"], terms.const(a, NUMBER)) for a in ADDRESSES]
    yield from plain_shared(lowering.system, state, terms)
    for ident in ("frame.f", "table.t"):
        yield [terms.eq(state[f"{ident}.id"], terms.const(1, state[f"{ident}.id"].sort))]
        yield [terms.not_(state[f"{ident}.others"])]
    for load in lowering.chooser.loads:
        yield [terms.eq(load.fields["kind"], terms.const(0, load.fields["kind"].sort))]
    for key in sorted(state):
        if key.endswith(".valid") and state[key].sort == BOOL:
            yield [terms.not_(state[key])]
    yield [terms.eq(state["region.a.kind"], terms.const(PMD_TABLE, state["region.a.kind"].sort))]
    yield [terms.not_(state["page.a.write"])]
    yield [terms.eq(state["region.a.table"], state["table.t.id"])]


def plain_shared(system: System, state: Mapping[str, Any], terms: Terms) -> Iterable[list[Term]]:
    """For each variable of the address space that may start with any number the conditions to try, best first."""
    for value in (state[f"{ADDRESS_SPACE}.{name}"] for name, start in system.shared if start is None):
        yield [terms.eq(value, terms.const(a, NUMBER)) for a in (0, 1, 2)]


def scenario_of(lowering: Lowering, model: dict[str, int]) -> Scenario:
    """The start the model describes: the witness's page, and every page first looked at on the way, as it was found."""
    names = list(lowering.state)
    state = dict(zip(names, evaluate([lowering.state[n] for n in names], model), strict=True))
    loads: list[Load] = []
    for load in lowering.chooser.loads:
        happens, key = evaluate([load.happens, load.key], model)
        if happens:
            loads.append((load.what, key, dict(zip(load.fields, evaluate(load.fields.values(), model), strict=True))))
    return scenario(lowering.system, lowering.threads, state, loads)


Load = tuple[str, int, dict[str, int]]
"""(page or region, key, fields): what was looked at first on the way, as it was found."""


def scenario(system: System, threads: Iterable[Thread], state: Mapping[str, int], loads: Iterable[Load]) -> Scenario:
    """A start state of the witness world as a concrete start."""
    page, region, witness = system.page_bits, system.region_bits, state["page.a.addr"]
    pages: dict[int, dict[str, int]] = {page_of(witness, page): {f: state[f"page.a.{f}"] for f in ("kind", "frame", "write")}}
    regions = {page_of(witness, region): {f: state[f"region.a.{f}"] for f in ("kind", "frame", "write", "table")}}
    for what, key, fields in loads:
        (pages if what == "page" else regions).setdefault(key, fields)
    for key in pages:
        regions.setdefault(page_of(key, region), {"kind": 0, "frame": 0, "write": 0, "table": 0})
    frame, table = state["frame.f.id"], state["table.t.id"]
    rename = _Renaming(frame)
    tables = _Renaming(table, 1)
    page_entries = tuple(
        (key, Entry(p["kind"], rename(p["frame"]) if p["kind"] == PTE_PRESENT else 0, bool(p["write"]))) for key, p in pages.items()
    )
    region_entries = tuple((key, _region_entry(r, rename, tables)) for key, r in regions.items())
    cached: list[tuple[str, str, int, bool]] = []
    for device in system.devices:
        for cache in device.caches:
            entry = f"{device.name}.{cache.name}.a"
            if state[f"{entry}.valid"]:
                key = page_of(witness, page) if cache.of == "pages" else page_of(witness, region)
                write = cache.of == "pages" and bool(state[f"{entry}.write"])
                cached.append((device.name, cache.name, key, write))
    params = tuple(
        (thread.local(name), state[thread.local(name)]) for thread in threads if not thread.device for name, _ in thread.program.params
    )
    return Scenario(
        witness, page_entries, region_entries, params, rename(frame), tables(table),
        frozenset({rename(frame)} if state["frame.f.others"] else ()),
        frozenset({tables(table)} if state["table.t.others"] else ()), tuple(cached), (page, region),
        tuple((name, state[f"{ADDRESS_SPACE}.{name}"]) for name, start in system.shared if start is None),
    )  # fmt: skip


def page_of(address: int, bits: int) -> int:
    return address >> bits << bits


def _region_entry(fields: dict[str, int], frames: _Renaming, tables: _Renaming) -> Entry:
    kind = fields["kind"]
    if kind == PMD_HUGE:
        return Entry(kind, frames(fields["frame"]), bool(fields["write"]))
    return Entry(kind, tables(fields["table"])) if kind == PMD_TABLE else Entry(kind)


class _Renaming:
    """Identities by order of appearance; the witness is 1, the zero page stays what it is."""

    def __init__(self, witness: int, reserved: int | None = None) -> None:
        self._names = {witness: 1} if witness != ZERO_PAGE or reserved is not None else {}
        if reserved is None:
            self._names[ZERO_PAGE] = ZERO_PAGE

    def __call__(self, ident: int) -> int:
        if ident not in self._names:
            taken = set(self._names.values()) | {0, 1}
            self._names[ident] = next(i for i in range(1, 1 << 16) if i not in taken)
        return self._names[ident]


def refuted(system: System, start: Scenario, prop: PropertyDecl, method: str, limits: Limits, others: Sequence[Scenario] = ()) -> Decision:
    """Refuted by the run from a start, or from one of ``others``, that the interpreter finds alone; for each it has as long as the engine
    had, and if that is not enough nothing is decided; nor is it if the run was said to begin with entries in a table that is not linked,
    and there is none without, or if steps ask what the witness world does not know.
    Raises InternalError if there is no such run: then whoever named the start was wrong."""
    violation, unlinked = None, False
    for each in dict.fromkeys((start, *others)):
        quiet = each.without_unlinked()
        unlinked = unlinked or quiet != each
        try:
            violation = violation or search(system, quiet, prop, limits.timeout)
        except SearchExhausted as error:
            return Decision(INCONCLUSIVE, method, f"a run that breaks it was found, but not replayed: {error}")
    if violation is None and unlinked:
        return Decision(INCONCLUSIVE, method, "the run that was found begins with entries in a table that is not linked")
    if violation is None and (asked := _left_open(system)):
        return Decision(INCONCLUSIVE, method, f"the run that was found may rest on what `{asked}` does not know of other pages or frames")
    if violation is None:
        raise InternalError(f"{prop.name}: the refutation does not replay from {start}")
    return Decision(REFUTED, method, violation=violation)


def _left_open(system: System) -> str:
    """What some step asks of all pages or frames, of which the witness world knows only some; "" if none does."""
    programs = (*system.threads, *(h for d in system.devices for h in d.handlers))
    for step in (n.step for program in programs for n in program.nodes):
        if step.op == "assume_none_outside":
            return step.op
        looks = [e.name for arg in step.args for e in subexpressions(arg) if isinstance(e, Look)]
        if found := next((name for name in looks if name in ("has", "freed", "table_freed")), ""):
            return found
    return ""
