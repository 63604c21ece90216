"""The witness world: one address, one frame, one table page kept in full, everything else any value.

Why this is enough: mmucheck/README.md, "One witness". This module builds the layout and the quiescent start state as terms.
"""

from __future__ import annotations

from mmucheck.ir.program import PropertyDecl, System
from mmucheck.machine.domain import BOOL, COUNT, FRAME, KIND, NUMBER, TABLE
from mmucheck.machine.looks import View
from mmucheck.machine.state import (
    CACHE_FIELDS,
    FOREIGN_KEY_FREE,
    PAGE_FIELDS,
    PMD_TABLE,
    PTE_NONE,
    REGION_FIELDS,
    SORTS,
    UNLINKED,
    ZERO_PAGE,
    Layout,
    Slot,
    Thread,
    cache_slots,
)  # fmt: skip
from mmucheck.machine.steps import Machine
from mmucheck.machine.terms import Term, Terms
from mmucheck.machine.world import addresses
from mmucheck.names.builtins import ADDRESS_SPACE, ALIGNMENT, TASK_SIZE
from mmucheck.records import record


def witness_layout(threads: tuple[Thread, ...]) -> Layout:
    """One page, region, frame and table in full, and as many foreign pages and regions as one step looks at together: of two VMM
    threads each has its own, so that what one holds under a lock is not forgotten because of where the other looks."""
    paths = [t for t in threads if not t.device]
    owners = [t.name for t in paths] if len(paths) > 1 else [""]
    foreign = [
        Slot(f"o{i}" if not owner else f"{owner}.o{i}".replace(".", "_"), foreign=True, owner=owner)
        for owner in owners
        for i in range(1, max([1, *(len(addresses(n.step)) for t in threads for n in t.program.nodes if owner in ("", t.name))]) + 1)
    ]
    if len(paths) > 1:
        most = max((len(addresses(n.step)) for t in threads if t.device for n in t.program.nodes), default=0)
        foreign += [Slot(f"o{i}", foreign=True) for i in range(1, most + 1)]
    return Layout(
        pages=(Slot("a", "a"), *foreign),
        regions=(Slot("a"), *foreign),
        frames=("f",),
        tables=("t",),
        open=True,
    )


_LOCAL_SORTS = {"number": NUMBER, "bool": BOOL, "frame": FRAME, "table": TABLE}

TermState = dict[str, Term]


@record
class Load:
    """A page or region without a slot is looked at, if ``happens``: it is at ``key`` and holds ``fields``."""

    what: str
    key: Term
    happens: Term
    fields: dict[str, Term]


class FreshVariables:
    """A chooser whose every choice is a fresh variable, named after its place; remembers what was looked at first where."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._used: dict[str, int] = {}
        self.place = ""
        self.guard = terms.true
        self.loads: list[Load] = []

    def _fresh(self, label: str, sort: int) -> Term:
        stem = f"{self.place}!{label}"
        count = self._used[stem] = self._used.get(stem, 0) + 1
        return self._terms.var(stem if count == 1 else f"{stem}~{count}", sort)

    def boolean(self, label: str) -> Term:
        return self._fresh(label, BOOL)

    def frame(self, label: str) -> Term:
        return self._fresh(label, FRAME)

    def table(self, label: str) -> Term:
        return self._fresh(label, TABLE)

    def first_look(self, what: str, key: Term, new: Term) -> dict[str, Term]:
        fields = {f: self._fresh(f"{what}.{f}", SORTS[f]) for f in (PAGE_FIELDS if what == "page" else REGION_FIELDS)}
        self.loads.append(Load(what, key, self._terms.and_(self.guard, new), fields))
        return fields


def initial(terms: Terms, machine: Machine[Term], system: System, threads: tuple[Thread, ...]) -> tuple[TermState, list[Term]]:
    """(state, constraints): any quiescent state. Every device entry agrees with the table, no path has begun, no lock is held."""
    state: TermState = {}
    assume: list[Term] = []
    layout = machine.layout

    def number(value: int) -> Term:
        return terms.const(value, NUMBER)

    none = terms.const(0, COUNT)

    addr = terms.var("a", NUMBER)
    assume.append(terms.ult(addr, number(TASK_SIZE)))
    state["page.a.addr"] = addr
    state["page.a.key"] = machine.looks.page_key(addr)
    state["region.a.key"] = machine.looks.region_key(addr)
    for what, fields in (("page", PAGE_FIELDS), ("region", REGION_FIELDS)):
        for field in fields:
            state[f"{what}.a.{field}"] = terms.var(f"{what}.{field}", SORTS[field])
        for slot in layout.pages:
            if slot.foreign:
                state |= {f"{what}.{slot.name}.{field}": terms.const(0, SORTS[field]) for field in fields}
                state[f"{what}.{slot.name}.key"] = number(FOREIGN_KEY_FREE)
    small = terms.eq(state["region.a.kind"], terms.const(PMD_TABLE, KIND))
    assume.append(terms.not_(terms.eq(state["page.a.kind"], terms.const(3, KIND))))
    assume.append(terms.or_(small, terms.eq(state["page.a.kind"], terms.const(PTE_NONE, KIND))))
    for what in ("page", "region"):
        is_zero = terms.eq(state[f"{what}.a.frame"], terms.const(ZERO_PAGE, FRAME))
        assume.append(terms.not_(terms.and_(is_zero, state[f"{what}.a.write"])))

    mapped, frame, write = machine.looks.walk(state, addr)
    holders = (("frame.f", "f", FRAME, mapped, frame), ("table.t", "t", TABLE, small, state["region.a.table"]))
    for what, ident, sort, present, target in holders:
        state[f"{what}.id"] = terms.var(ident, sort)
        mine = terms.and_(present, terms.eq(target, state[f"{what}.id"]))
        state[f"{what}.refs"] = terms.ite(mine, terms.const(1, COUNT), none)
        state[f"{what}.others"] = terms.var(f"{ident}.others", BOOL)
        state[f"{what}.loose"] = terms.false
    assume.append(terms.or_(terms.not_(terms.eq(state["frame.f.id"], terms.const(ZERO_PAGE, FRAME))), state["frame.f.others"]))

    for device in system.devices:
        for cache, name, of in cache_slots(device, layout):
            entry = f"{device.name}.{cache}.{name}"
            values = {
                "valid": terms.and_(terms.var(f"{entry}.valid", BOOL), mapped if of == "pages" else small),
                "frame": frame,
                "write": terms.and_(terms.var(f"{entry}.write", BOOL), write),
                "table": state["region.a.table"],
            }
            state.update({f"{entry}.{field}": values[field] for field in CACHE_FIELDS[of]})
        for name, value in device.variables:
            state[f"{device.name}.{name}"] = machine.looks.value(value, View(state))
    for name, start in system.shared:
        here = f"{ADDRESS_SPACE}.{name}"
        state[here] = terms.var(here, NUMBER) if start is None else machine.looks.value(start, View(state))
    _start_threads(terms, state, assume, machine, threads)
    return state, assume


def _start_threads(terms: Terms, state: TermState, assume: list[Term], machine: Machine[Term], threads: tuple[Thread, ...]) -> None:
    system = machine.system
    none = terms.const(0, COUNT)
    for lock in (*system.locks, *(k for d in system.devices for k in d.locks)):
        if not lock.key:
            state[f"lock.{lock.name}"] = none
            state[f"lock.{lock.name}.readers"] = none
    for hold in machine.holds:
        state[hold.part("held")] = state[hold.part("shared")] = terms.false
        state[hold.part("key")] = terms.const(0, FRAME if hold.lock.key == "frame" else NUMBER)
    state["event.assertion_failed"] = state["event.slept_in_atomic"] = state[UNLINKED] = terms.false
    for thread in threads:
        for name, kind in thread.program.locals.items():
            state[thread.local(name)] = terms.const(0, _LOCAL_SORTS[kind])
        for name, kind in thread.program.params:
            sort = _LOCAL_SORTS[thread.program.locals[name]]
            value = terms.var(thread.local(name), sort)
            if sort == NUMBER:
                value = terms.aligned(value, ALIGNMENT.get(kind, 0))
                if kind in ("address", *ALIGNMENT):
                    assume.append(terms.ule(value, terms.const(TASK_SIZE, NUMBER)))
            state[thread.local(name)] = value
        state[thread.local("tlb_start")] = terms.const(TASK_SIZE, NUMBER)
        state[thread.local("tlb_end")] = terms.const(0, NUMBER)
        state[thread.local("atomic")] = none
        for slot in ("frame.f", "table.t"):
            state[f"{slot}.queued.{thread.name}"] = none


def violated(machine: Machine[Term], prop: PropertyDecl, state: TermState) -> Term:
    """The property's negation at the witness: its address, frame and table bound to the witness's, for any device."""
    values = {"address": state["page.a.addr"], "frame": state["frame.f.id"], "table": state["table.t.id"]}
    found: list[Term] = []
    for device in machine.system.devices:
        bound: dict[str, Term | str] = {name: values.get(kind, device.name) for name, kind in prop.binders}
        found.append(machine.domain.not_(machine.looks.value(prop.formula, View(state, bound=bound))))
        if not any(kind == "device" for _, kind in prop.binders):
            break
    return machine.domain.or_(*found)
