"""The open world: pages and regions that have no slot of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from mmucheck.ir.program import Expr, Look, Step, subexpressions
from mmucheck.machine.core import Core
from mmucheck.machine.domain import COUNT, NUMBER
from mmucheck.machine.looks import View
from mmucheck.machine.state import (
    FOREIGN_KEY_FREE,
    PAGE_FIELDS,
    PMD_HUGE,
    PMD_TABLE,
    PTE_NONE,
    PTE_PRESENT,
    REGION_FIELDS,
    SORTS,
    UNLINKED,
    State,
)  # fmt: skip

V = TypeVar("V")


class Untracked(Exception):
    """A closed world has no slot for the page of this address."""

    def __init__(self, address: object) -> None:
        super().__init__(address)
        self.address = address


class OpenWorld(Core[V]):
    """Before a step looks at a page without a slot, the foreign slot becomes that page."""

    def _load_for(self, step: Step, view: View[V]) -> None:
        """Before a step looks at a page that has no slot: a foreign slot becomes that page, with any content.

        A closed world must have every page that is looked at: Untracked is raised for one that it lacks.
        """
        values = [self.looks.value(addr, View(view.state, view.prefix)) for addr in addresses(step)]
        lower = bool(values) and "page" in entries_of(step)
        for value in values:
            if self.layout.open:
                self._load(value, values, view, lower)
                continue
            hits = self.looks.page_hits(view.state, value) if lower else self.looks.region_hits(view.state, value)
            if not any(self.domain.is_true(hit) for _, hit in hits):
                raise Untracked(value)

    def _load(self, addr: V, wanted: list[V], view: View[V], lower: bool) -> None:
        """``wanted``: the addresses of the step at hand; none of them makes place for another. ``lower``: whether it looks at lower-level
        entries."""
        d, state, chooser = self.domain, view.state, view.chooser
        assert chooser is not None
        key, keys = self.looks.region_key(addr), [self.looks.region_key(w) for w in wanted]
        known = d.or_(*(hit for _, hit in self.looks.region_hits(state, addr)))
        if not d.is_true(known):
            self._replace("region", key, keys, known, chooser.first_look("region", key, d.not_(known)), view)
        if not lower:
            return
        key, keys = self.looks.page_key(addr), [self.looks.page_key(w) for w in wanted]
        known = d.or_(*(hit for _, hit in self.looks.page_hits(state, addr)))
        if not d.is_true(known):
            fresh = chooser.first_look("page", key, d.not_(known))
            linked = d.eq(self.looks.pmd(state, addr, "kind"), self._kind(PMD_TABLE))
            self.assumed.append(d.or_(known, d.not_(d.eq(fresh["kind"], self._kind(3)))))
            self.assumed.append(d.or_(known, linked, d.eq(fresh["kind"], self._kind(PTE_NONE)), state[UNLINKED]))
            self._replace("page", key, keys, known, fresh, view)

    def _replace(self, what: str, key: V, wanted: list[V], known: V, fresh: dict[str, V], view: View[V]) -> None:
        """If the page or region is not known, the first foreign slot that the step does not need becomes it."""
        d, state = self.domain, view.state
        slots = self._foreign(what, self.running)
        missing = d.not_(known)
        for slot in slots:
            entry = f"{what}.{slot}"
            needed = d.or_(*(d.eq(w, state[f"{entry}.key"]) for w in wanted)) if len(slots) > 1 else self.looks.false
            here = d.and_(missing, d.not_(needed))
            missing = d.and_(missing, needed)
            self._forget(state, what, slot, here)
            state[f"{entry}.key"] = d.ite(here, key, state[f"{entry}.key"])
            for field, value in fresh.items():
                state[f"{entry}.{field}"] = d.ite(here, value, state[f"{entry}.{field}"])
        for of, slot, held in self._owned(state, what, fresh, d.not_(known)):
            refs, others, loose = (f"{of}.{slot}.{f}" for f in ("refs", "others", "loose"))
            self.assumed.append(d.or_(d.not_(held), state[others], state[loose]))
            self.assumed.append(d.or_(d.not_(held), d.ult(state[refs], d.const(-1, COUNT))))
            taken = d.and_(held, d.not_(state[loose]))
            state[refs] = d.ite(taken, d.binary("add", state[refs], self._one), state[refs])

    def forget_foreign(self, state: State[V]) -> None:
        """The foreign pages and regions are no longer kept: what they hold is any value when next looked at."""
        for what in ("page", "region"):
            for slot in self._foreign(what):
                self.forget_slot(state, what, slot)

    def forget_slot(self, state: State[V], what: str, slot: str) -> None:
        """One foreign page or region is no longer kept."""
        self._forget(state, what, slot, self.looks.true)
        state[f"{what}.{slot}.key"] = self.domain.const(FOREIGN_KEY_FREE, NUMBER)
        for field in PAGE_FIELDS if what == "page" else REGION_FIELDS:
            state[f"{what}.{slot}.{field}"] = self.domain.const(0, SORTS[field])

    def _forget(self, state: State[V], what: str, foreign: str, when: V) -> None:
        """Before a foreign entry gives way to another: its reference, known until now, goes to the unknown holders. If the path
        has dropped it already, the entry is left without one, and may be found so later."""
        d = self.domain
        content = {f: state[f"{what}.{foreign}.{f}"] for f in (PAGE_FIELDS if what == "page" else REGION_FIELDS)}
        for of, slot, held in self._owned(state, what, content, when):
            refs, others, loose = (f"{of}.{slot}.{f}" for f in ("refs", "others", "loose"))
            some = d.not_(d.eq(state[refs], self._none))
            state[others] = d.or_(state[others], d.and_(held, some))
            state[loose] = d.or_(state[loose], d.and_(held, d.not_(some)))
            state[refs] = d.ite(d.and_(held, some), d.binary("sub", state[refs], self._one), state[refs])

    def owning(self, state: State[V], what: str, slot: str) -> V:
        """Whether the entry in a slot owns a reference on a frame or table that is tracked."""
        content = {f: state[f"{what}.{slot}.{f}"] for f in (PAGE_FIELDS if what == "page" else REGION_FIELDS)}
        return self.domain.or_(*(held for _, _, held in self._owned(state, what, content, self.looks.true)))

    def _foreign(self, what: str, thread: str = "") -> list[str]:
        """The foreign slots, or those of a thread."""
        slots = [s for s in (self.layout.pages if what == "page" else self.layout.regions) if s.foreign]
        return [s.name for s in slots if not thread or s.owner in ("", thread)]

    def _owned(self, state: State[V], what: str, content: dict[str, V], when: V) -> Iterator[tuple[str, str, V]]:
        """(frame or table, slot, whether an entry with this content maps or links it)."""
        d = self.domain
        kinds = (("frame", PTE_PRESENT),) if what == "page" else (("frame", PMD_HUGE), ("table", PMD_TABLE))
        for of, present in kinds:
            for slot in self.layout.frames if of == "frame" else self.layout.tables:
                there = d.and_(d.eq(content["kind"], self._kind(present)), d.eq(content[of], state[f"{of}.{slot}.id"]))
                yield of, slot, d.and_(when, there)


_BY_ADDRESS = frozenset(
    "set_pte clear_pte set_pte_marker wrprotect_pte mkwrite_pte set_pmd clear_pmd set_pmd_marker wrprotect_pmd mkwrite_pmd "
    "populate_pmd get_user_page".split()
)
_LOOKS_BY_ADDRESS = frozenset(
    "mapped frame_at writable_at pte_none pte_present pte_frame pte_writable pmd_none pmd_huge pmd_linked pmd_frame "
    "pmd_writable table_at maps links".split()
)

_OF_REGIONS = frozenset(
    "set_pmd clear_pmd set_pmd_marker wrprotect_pmd mkwrite_pmd "
    "pmd_none pmd_huge pmd_linked pmd_frame pmd_writable table_at links".split()
)
_OF_WHOLE_TABLES = frozenset({"fill_table", "clear_table", "assume_none_outside"})


def of_whole_table(step: Step) -> bool:
    """Whether a step reads or writes all lower-level entries of a region, that of its first argument."""
    return step.op in _OF_WHOLE_TABLES


def entries_of(step: Step) -> frozenset[str]:
    """Whether a step reads or writes lower-level entries ("page"), upper-level ones ("region"), or both. Who links a table looks at both:
    that there are no entries in it is known only of a page that is looked at before."""
    looks = [e.name for arg in step.args for e in subexpressions(arg) if isinstance(e, Look) and e.name in _LOOKS_BY_ADDRESS]
    asked = [*looks, *([step.op] if step.op in _BY_ADDRESS | _OF_WHOLE_TABLES else [])]
    if not asked:
        return frozenset()
    return frozenset({"region"}) if _OF_REGIONS.issuperset(asked) else frozenset({"page", "region"})


def addresses(step: Step) -> list[Expr]:
    """The address expressions whose page a step reads or writes, without repetition."""
    found: list[Expr] = [step.args[0]] if step.op in _BY_ADDRESS else []
    for arg in step.args:
        found.extend(e.args[0] for e in subexpressions(arg) if isinstance(e, Look) and e.name in _LOOKS_BY_ADDRESS)
    return list(dict.fromkeys(found))
