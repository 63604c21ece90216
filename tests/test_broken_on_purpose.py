"""Models broken on purpose are refuted, the right one is proved, and a property that cannot fail is called vacuous."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.run import run
from mmucheck.engines.solver import Limits
from mmucheck.names.declarations import check
from mmucheck.names.loading import load

TEXT = """
use <v3.17/all.mmu>;
use <properties.mmu>;
use <devices/all.mmu>;
path dropped_flush(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) {
    let old = frame_at(addr);
    with ptl(addr) { clear_pte(addr); mmu_notifier_invalidate_range(addr, addr + PAGE_SIZE); }
    put_page(old);
}
path short_range(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) {
    let old = frame_at(addr);
    with ptl(addr) { ptep_clear_flush(addr); mmu_notifier_invalidate_range(addr, addr + PAGE_SIZE - 1); }
    put_page(old);
}
path right(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) {
    let old = frame_at(addr);
    with ptl(addr) { ptep_clear_flush_notify(addr); assert(pte_none(addr)) "cleared"; }
    put_page(old);
}
path wrong_assert(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) {
    with ptl(addr) { ptep_clear_flush_notify(addr); assert(!pte_none(addr)) "cleared"; }
}
spec b "broken on purpose" {
    check a: dropped_flush on cpu under v3_19 refutes no_freed_page;
    check b: short_range on ats under v3_19 refutes no_freed_page;
    check c: right on ats under v3_19 proves no_freed_page, asserts vacuous no_device_failure;
    check d: right on cpu under v3_19 proves no_freed_page;
    check e: wrong_assert on ats under v3_19 refutes asserts;
}
"""


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "e"])
def test_verdict(tmp_path: Path, name: str) -> None:
    (tmp_path / "b.mmu").write_text(TEXT)
    library = load([tmp_path / "b.mmu"])
    check(library)
    wanted = [o for o in obligations(library, library.specs.values()) if o.check == name]
    results = run(Builder(library), wanted, Limits(timeout=300))
    assert [(r.obligation.property, r.as_expected) for r in results] == [(o.property, True) for o in wanted]
    assert all(bool(r.trace) == (r.obligation.expected == "refuted") for r in results)
