"""Expressions and looks: the value of an expression of the intermediate form in a state, on either domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from mmucheck.ir.program import Const, DeviceVar, Expr, Local, Look, Nondet, Op, System
from mmucheck.machine.domain import BOOL, COUNT, FRAME, KIND, NUMBER, Domain
from mmucheck.machine.state import (
    CROWD,
    PMD_HUGE,
    PMD_NONE,
    PMD_TABLE,
    PTE_NONE,
    PTE_PRESENT,
    ZERO_PAGE,
    Chooser,
    Layout,
    Slot,
    State,
)  # fmt: skip
from mmucheck.names.builtins import ADDRESS_SPACE

V = TypeVar("V")
_BINARY = {"+": "add", "-": "sub", "*": "mul", "/": "udiv", "%": "urem", "&": "and", "|": "or", "^": "xor", "<<": "shl", ">>": "lshr"}


@dataclass
class View(Generic[V]):
    """A state as one thread sees it: where its locals live, its choices, and bound names of a property."""

    state: State[V]
    prefix: str = ""
    chooser: Chooser[V] | None = None
    bound: Mapping[str, V | str] | None = None


class Looks(Generic[V]):
    """Evaluates expressions. ``domain`` decides what a value is; the definitions are the same for all."""

    def __init__(self, domain: Domain[V], system: System, layout: Layout) -> None:
        self.domain, self.system, self.layout = domain, system, layout
        self.true = domain.const(1, BOOL)
        self.false = domain.const(0, BOOL)
        self.devices = {d.name: d for d in system.devices}

    # ---- addresses

    def page_key(self, addr: V) -> V:
        return self.domain.binary("and", addr, self.domain.const(-(1 << self.system.page_bits), NUMBER))

    def region_key(self, addr: V) -> V:
        return self.domain.binary("and", addr, self.domain.const(-(1 << self.system.region_bits), NUMBER))

    def page_hits(self, state: State[V], addr: V) -> list[tuple[Slot, V]]:
        """Each page slot with the condition that ``addr`` lies in it."""
        key = self.page_key(addr)
        return [(p, self.domain.eq(key, state[f"page.{p.name}.key"])) for p in self.layout.pages]

    def region_hits(self, state: State[V], addr: V) -> list[tuple[Slot, V]]:
        key = self.region_key(addr)
        return [(r, self.domain.eq(key, state[f"region.{r.name}.key"])) for r in self.layout.regions]

    def _select(self, state: State[V], hits: list[tuple[Slot, V]], what: str, fields: str, default: V) -> V:
        value = default
        for slot, hit in reversed(hits):
            value = self.domain.ite(hit, state[f"{what}.{slot.name}.{fields}"], value)
        return value

    def pte(self, state: State[V], addr: V, field: str) -> V:
        width = {"kind": KIND, "frame": FRAME, "write": BOOL}[field]
        return self._select(state, self.page_hits(state, addr), "page", field, self.domain.const(0, width))

    def pmd(self, state: State[V], addr: V, field: str) -> V:
        width = {"kind": KIND, "frame": FRAME, "write": BOOL, "table": FRAME}[field]
        return self._select(state, self.region_hits(state, addr), "region", field, self.domain.const(0, width))

    def _is(self, value: V, kind: int) -> V:
        return self.domain.eq(value, self.domain.const(kind, KIND))

    def walk(self, state: State[V], addr: V) -> tuple[V, V, V]:
        """(mapped, frame, writable) as a walk of both levels finds them."""
        d = self.domain
        upper = self.pmd(state, addr, "kind")
        huge = self._is(upper, PMD_HUGE)
        small = d.and_(self._is(upper, PMD_TABLE), self._is(self.pte(state, addr, "kind"), PTE_PRESENT))
        frame = d.ite(huge, self.pmd(state, addr, "frame"), self.pte(state, addr, "frame"))
        write = d.ite(huge, self.pmd(state, addr, "write"), self.pte(state, addr, "write"))
        return d.or_(huge, small), frame, write

    # ---- frames and tables

    def freed(self, state: State[V], what: str, ident: V) -> V:
        """No reference is left on the frame or table. False for one that has no slot."""
        d = self.domain
        slots = self.layout.frames if what == "frame" else self.layout.tables
        return d.or_(*(d.and_(d.eq(ident, state[f"{what}.{s}.id"]), self.slot_freed(state, what, s)) for s in slots))

    def _freed_as_seen(self, what: str, ident: V, view: View[V]) -> V:
        """What a look says of it: open for what has no slot, if it is a step that looks."""
        d, found = self.domain, self.freed(view.state, what, ident)
        if not self.layout.open or view.chooser is None:
            return found
        slots = self.layout.frames if what == "frame" else self.layout.tables
        kept = d.or_(*(d.eq(ident, view.state[f"{what}.{s}.id"]) for s in slots))
        return d.or_(found, d.and_(d.not_(kept), view.chooser.boolean("freed")))

    def slot_freed(self, state: State[V], what: str, slot: str) -> V:
        d = self.domain
        known = d.eq(state[f"{what}.{slot}.refs"], d.const(0, COUNT))
        crowd = state.get(f"{what}.{slot}.{CROWD}", self.false)
        return d.and_(known, d.not_(state[f"{what}.{slot}.others"]), d.not_(crowd))

    # ---- expressions

    def value(self, expr: Expr, view: View[V]) -> V:
        """The value of an expression. Booleans for conditions, numbers, identities otherwise."""
        d = self.domain
        match expr:
            case Const(value=number, kind=kind):
                return d.const(number, BOOL if kind == "bool" else NUMBER)
            case Local(name=name):
                if view.bound is not None and name in view.bound:
                    return view.bound[name]  # type: ignore[return-value]
                return view.state[view.prefix + name]
            case Nondet(label=label):
                assert view.chooser is not None
                return view.chooser.boolean(label)
            case DeviceVar(device=device, name=name):
                if device == ADDRESS_SPACE:
                    return view.state.get(f"{device}.{name}", d.const(0, NUMBER))  # a property may ask for one that no path uses
                return view.state[f"{device}.{name}"]
            case Look():
                return self._look(expr, view)
            case Op(op=op, args=args):
                return self._operation(op, [self.value(a, view) for a in args])

    def _operation(self, op: str, args: list[V]) -> V:
        d = self.domain
        match op:
            case "!":
                return d.not_(args[0])
            case "&&":
                return d.and_(*args)
            case "||":
                return d.or_(*args)
            case "->":
                return d.or_(d.not_(args[0]), args[1])
            case "==":
                return d.eq(args[0], args[1])
            case "!=":
                return d.not_(d.eq(args[0], args[1]))
            case "<":
                return d.ult(args[0], args[1])
            case "<=":
                return d.ule(args[0], args[1])
            case ">":
                return d.ult(args[1], args[0])
            case ">=":
                return d.ule(args[1], args[0])
            case "~":
                return d.binary("xor", args[0], d.const(-1, NUMBER))
        return d.binary(_BINARY[op], args[0], args[1])

    def _look(self, look: Look, view: View[V]) -> V:
        d, state, name = self.domain, view.state, look.name
        match name:
            case "zero_page":
                return d.const(ZERO_PAGE, FRAME)
            case "tlb_start" | "tlb_end":
                return state[view.prefix + name]
            case "assertion_failed" | "slept_in_atomic":
                return state[f"event.{name}"]
            case "has":
                cache, addr = look.args
                assert isinstance(cache, Look)
                target = self.value(addr, view)
                owner, _, kept = cache.name.partition(".")
                of = next(c.of for c in self.devices[owner].caches if c.name == kept)
                hits = self.page_hits(state, target) if of == "pages" else self.region_hits(state, target)
                own = [(slot, hit) for slot, hit in hits if not slot.foreign]
                found = d.or_(*(d.and_(hit, state[f"{cache.name}.{slot.name}.valid"]) for slot, hit in own))
                elsewhere = d.not_(d.or_(*(hit for _, hit in own)))
                if not self.layout.open or view.chooser is None or d.is_false(elsewhere):
                    return found
                return d.or_(found, d.and_(elsewhere, view.chooser.boolean("has")))  # entries of other pages are not kept
            case "device_var":
                base, member = look.args
                device = self.value(base, view)
                assert isinstance(member, Look)
                return state.get(f"{device}.{member.name}", d.const(0, NUMBER))
        args = [self.value(a, view) for a in look.args]
        match name:
            case "cached" | "cached_writable" | "table_cached":
                return self._cached(name, str(args[0]), args[1], args[2], state)
            case "mapped" | "frame_at" | "writable_at":
                mapped, frame, write = self.walk(state, args[0])
                return {"mapped": mapped, "frame_at": frame, "writable_at": d.and_(mapped, write)}[name]
            case "maps":
                mapped, frame, _ = self.walk(state, args[0])
                return d.and_(mapped, d.eq(frame, args[1]))
            case "links":
                return d.and_(self._is(self.pmd(state, args[0], "kind"), PMD_TABLE), d.eq(self.pmd(state, args[0], "table"), args[1]))
            case "pte_none":
                return self._is(self.pte(state, args[0], "kind"), PTE_NONE)
            case "pte_present":
                return self._is(self.pte(state, args[0], "kind"), PTE_PRESENT)
            case "pte_frame":
                return self.pte(state, args[0], "frame")
            case "pte_writable":
                return self.pte(state, args[0], "write")
            case "pmd_none":
                return self._is(self.pmd(state, args[0], "kind"), PMD_NONE)
            case "pmd_huge":
                return self._is(self.pmd(state, args[0], "kind"), PMD_HUGE)
            case "pmd_linked":
                return self._is(self.pmd(state, args[0], "kind"), PMD_TABLE)
            case "pmd_frame":
                return self.pmd(state, args[0], "frame")
            case "pmd_writable":
                return self.pmd(state, args[0], "write")
            case "table_at":
                return self.pmd(state, args[0], "table")
            case "freed":
                return self._freed_as_seen("frame", args[0], view)
            case "table_freed":
                return self._freed_as_seen("table", args[0], view)
        raise ValueError(f"no such look: {name}")

    def _cached(self, name: str, device: str, addr: V, ident: V, state: State[V]) -> V:
        d = self.domain
        of = "tables" if name == "table_cached" else "pages"
        hits = self.region_hits(state, addr) if of == "tables" else self.page_hits(state, addr)
        found: list[V] = []
        for cache in self.devices[device].caches:
            if cache.of != of:
                continue
            for slot, hit in hits:
                if slot.foreign:
                    continue
                entry = f"{device}.{cache.name}.{slot.name}"
                same = d.eq(state[f"{entry}.{'table' if of == 'tables' else 'frame'}"], ident)
                write = state[f"{entry}.write"] if name == "cached_writable" else self.true
                found.append(d.and_(hit, state[f"{entry}.valid"], same, write))
        return d.or_(*found) if found else self.false
