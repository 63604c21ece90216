"""What was proved once though it breaks: each file of ``disagreements/refuted/`` is one such hole, with twins that show what it asks.
Where it takes two runs of a handler, "bounded" is honest, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.run import run
from mmucheck.engines.solver import Limits
from mmucheck.ir.program import System
from mmucheck.lower.witness import witness_layout
from mmucheck.machine.state import threads_of
from mmucheck.machine.visibility import Visibility
from mmucheck.names.declarations import check
from mmucheck.names.loading import load

FILES = sorted((Path(__file__).parent / "disagreements" / "refuted").glob("*.mmu"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_what_breaks_is_refuted(path: Path) -> None:
    library = load([path])
    check(library)
    results = run(Builder(library), obligations(library, library.specs.values()), Limits(timeout=300))
    assert results
    assert [r.error for r in results] == [""] * len(results)
    for result in results:
        assert result.decision is not None
        says_so = {result.obligation.expected, *(["bounded"] if result.obligation.expected == "refuted" else [])}
        assert result.decision.verdict in says_so, result.obligation.check


HEAD = """
protocol proto "p" { callback flush_tlb(start, end) atomic; flush_tlb(start, end) { call flush_tlb(start, end); } }
property no_freed_page "p" { always forall d: device, a: address, f: frame. cached(d, a, f) -> !freed(f); }
path noop() in "a.c" { might_sleep(); }
"""


def system(folder: Path, device: str, paths: str = "noop") -> System:
    (folder / "p.mmu").write_text(f"{HEAD}{device}\nspec p {{ check c: {paths} on dev under proto proves no_freed_page; }}\n")
    library = load([folder / "p.mmu"])
    check(library)
    return Builder(library).system(obligations(library, library.specs.values())[0].subject)


def test_handlers_beside_two_paths_have_a_slot_for_every_page_they_look_at_together(tmp_path: Path) -> None:
    """With fewer, one page pushes out the other while both are asked about."""
    look = "if (pte_present(addr + 4K) && pte_present(addr + 8K) && pte_present(addr + 12K)) { fill tlb addr -> frame_at(addr), readonly; }"
    device = f"device dev {{ cache tlb of pages; handler fault(addr: page) {{ {look} }} }}"
    layout = witness_layout(threads_of(system(tmp_path, device, "noop || noop")))
    assert len([p for p in layout.pages if p.foreign and not p.owner]) == 3


def test_a_path_that_does_not_write_the_table_alone_is_seen_to_look(tmp_path: Path) -> None:
    """With a handler that writes it, what lies between two looks matters."""
    path = 'path looks(b: page) in "a.c" { let k = pte_none(b); let n = pte_none(b); assert(k == n) "same"; }'
    for handler, seen in (("clear_pte(addr);", True), ("might_sleep();", False)):
        found = system(tmp_path, f"{path} device dev {{ cache tlb of pages; handler h(addr: page) {{ {handler} }} }}", "looks")
        threads = threads_of(found)
        visible = Visibility(found)
        looks = [i for i, n in enumerate(threads[0].program.nodes) if n.step.op == "assign"]
        assert [visible(threads[0], i) for i in looks] == [seen] * 2


def test_a_look_at_what_is_not_known_of_other_pages_is_no_internal_error(tmp_path: Path) -> None:
    """What a cache holds of other pages is left open: a run in which the hook finds an entry where no table is linked is nobody's."""
    device = """
    device dev {
        cache psc of tables from page_table;
        cache p of pages from page_table;
        var bad = 0;
        on flush_tlb(start, end) { if (has(psc, start)) { bad = 1; } drop psc [start, end); drop p [start, end); }
    }
    property fine "x" { always forall d: device. d.bad == 0; }
    path inv(b: page) in "a.c" { flush_tlb(b, b + 4K); }
    """
    text = f"{HEAD}{device}\nspec p {{ check c: inv || inv on dev under proto refutes fine; }}\n"
    (tmp_path / "p.mmu").write_text(text)
    library = load([tmp_path / "p.mmu"])
    check(library)
    (result,) = run(Builder(library), obligations(library, library.specs.values()), Limits(timeout=300))
    assert (result.decision and result.decision.verdict, result.error) in (("refuted", ""), ("inconclusive", ""))
