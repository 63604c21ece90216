"""The open world: pages and regions that have no slot of their own."""

from __future__ import annotations

from typing import TypeVar

from mmucheck.ir.program import Expr, Look, Step, subexpressions
from mmucheck.machine.core import Core
from mmucheck.machine.looks import View
from mmucheck.machine.state import PAGE_FIELDS, PMD_HUGE, PMD_TABLE, PTE_NONE, PTE_PRESENT, REGION_FIELDS

V = TypeVar("V")


class Untracked(Exception):
    """A closed world has no slot for the page of this address."""

    def __init__(self, address: object) -> None:
        super().__init__(address)
        self.address = address


class OpenWorld(Core[V]):
    """Before a step looks at a page without a slot, the foreign slot becomes that page."""

    def _load_for(self, step: Step, view: View[V]) -> None:
        """Before a step looks at a page that has no slot: the foreign slot becomes that page, with any content.

        A closed world must have every page that is looked at: Untracked is raised for one that it lacks.
        """
        for addr in addresses(step):
            value = self.looks.value(addr, View(view.state, view.prefix))
            if self.layout.open:
                self._load(value, view)
            elif not any(self.domain.is_true(hit) for _, hit in self.looks.page_hits(view.state, value)):
                raise Untracked(value)

    def _load(self, addr: V, view: View[V]) -> None:
        d, state, chooser = self.domain, view.state, view.chooser
        assert chooser is not None
        region_hits = self.looks.region_hits(state, addr)
        known = d.or_(*(hit for _, hit in region_hits))
        if not d.is_true(known):
            key = self.looks.region_key(addr)
            self._replace("region", REGION_FIELDS, key, known, chooser.first_look("region", key, d.not_(known)), PMD_HUGE, view)
        known = d.or_(*(hit for _, hit in self.looks.page_hits(state, addr)))
        if not d.is_true(known):
            key = self.looks.page_key(addr)
            fresh = chooser.first_look("page", key, d.not_(known))
            linked = d.eq(self.looks.pmd(state, addr, "kind"), self._kind(PMD_TABLE))
            self.assumed.append(d.or_(known, linked, d.eq(fresh["kind"], self._kind(PTE_NONE))))
            self._replace("page", PAGE_FIELDS, key, known, fresh, PTE_PRESENT, view)

    def _replace(self, what: str, fields: tuple[str, ...], key: V, known: V, fresh: dict[str, V], present: int, view: View[V]) -> None:
        d, state = self.domain, view.state
        slot = next(s for s in (self.layout.pages if what == "page" else self.layout.regions) if s.foreign)
        entry = f"{what}.{slot.name}"
        state[f"{entry}.key"] = d.ite(known, state[f"{entry}.key"], key)
        for field in fields:
            state[f"{entry}.{field}"] = d.ite(known, state[f"{entry}.{field}"], fresh[field])
        for frame in self.layout.frames:
            held = d.and_(d.eq(fresh["kind"], self._kind(present)), d.eq(fresh["frame"], state[f"frame.{frame}.id"]))
            self.assumed.append(d.or_(known, d.not_(held), state[f"frame.{frame}.others"]))
        if what == "page":
            self.assumed.append(d.or_(known, d.not_(d.eq(fresh["kind"], self._kind(3)))))
        else:
            for table in self.layout.tables:
                held = d.and_(d.eq(fresh["kind"], self._kind(PMD_TABLE)), d.eq(fresh["table"], state[f"table.{table}.id"]))
                self.assumed.append(d.or_(known, d.not_(held), state[f"table.{table}.others"]))


_BY_ADDRESS = frozenset(
    "set_pte clear_pte set_pte_marker wrprotect_pte mkwrite_pte set_pmd clear_pmd set_pmd_marker wrprotect_pmd mkwrite_pmd "
    "populate_pmd get_user_page".split()
)
_LOOKS_BY_ADDRESS = frozenset(
    "mapped frame_at writable_at pte_none pte_present pte_frame pte_writable pmd_none pmd_huge pmd_linked pmd_frame "
    "pmd_writable table_at maps links".split()
)


def addresses(step: Step) -> list[Expr]:
    """The address expressions whose page a step reads or writes, without repetition."""
    found: list[Expr] = [step.args[0]] if step.op in _BY_ADDRESS else []
    for arg in step.args:
        found.extend(e.args[0] for e in subexpressions(arg) if isinstance(e, Look) and e.name in _LOOKS_BY_ADDRESS)
    return list(dict.fromkeys(found))
