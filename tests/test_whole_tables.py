"""Steps on all entries of a table: what they are about, and what is taken for granted of entries that nobody looked at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmucheck.cli.main import main

sys.path.insert(0, str(Path(__file__).resolve().parent))
from test_random import ENOUGH, compare

HEAD = """
const PAGE_SIZE = 4K;
const PMD_SIZE = 2M;
protocol proto "p" { callback flush_tlb(start, end) atomic; flush_tlb(start, end) { call flush_tlb(start, end); } }
device dev "d" { cache tlb of pages from page_table; on flush_tlb(start, end) { drop tlb [start, end); } }
property asserts "asserts" { always forall d: device. !assertion_failed(); }
"""
CASES = {
    "outside": ("a + PAGE_SIZE", "assume_none_outside(a, a, a + PAGE_SIZE)", "before", "proves"),
    "in front of the range": ("a", "assume_none_outside(a, a + PAGE_SIZE, a + PMD_SIZE)", "before", "proves"),
    "of any address": ("a", "assume_none_outside(a + PAGE_SIZE, a + PAGE_SIZE, a + PMD_SIZE)", "before", "proves"),
    "inside": ("a", "assume_none_outside(a, a, a + PAGE_SIZE)", "before", "refutes"),
    "reached by a byte": ("a + PAGE_SIZE", "assume_none_outside(a, a, a + PAGE_SIZE + 1)", "before", "refutes"),
    "another table": ("a + PMD_SIZE", "assume_none_outside(a, a, a + PAGE_SIZE)", "before", "refutes"),
    "cleared": ("a + PAGE_SIZE", "clear_table(a)", "pte_none(a + PAGE_SIZE)", "proves"),
    "cleared in another table": ("a + PMD_SIZE", "clear_table(a)", "pte_none(a + PMD_SIZE)", "refutes"),
    "was not cleared before": ("a + PAGE_SIZE", "clear_table(a)", "before", "refutes"),
}
"""The page that is looked at before, the step, and a claim about it."""


def text(page: str, step: str, claim: str, verb: str) -> str:
    path = f'path p(a: huge_page) in "x" {{ let before = pte_none({page}); {step}; assert({claim}) "c"; }}'
    return f'{HEAD}{path}\nspec random "r" {{ check c: p on dev under proto {verb} asserts; }}\n'


@pytest.mark.parametrize("name", CASES)
def test_which_entries_a_step_is_about(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.mmu").write_text(text(*CASES[name]))
    found = compare(tmp_path / "p.mmu", ENOUGH)
    refuted = CASES[name][3] == "refutes"
    assert found.verdicts == {"asserts": "refuted" if refuted else "proved"}
    assert found.broken == ({"asserts"} if refuted else set())


def test_an_entry_looked_at_afterwards_refutes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is any value when first looked at, but no run has it."""
    path = 'path p(a: huge_page) in "x" { assume_none_outside(a, a, a + PAGE_SIZE); assert(pte_none(a + PAGE_SIZE)) "none"; }'
    (tmp_path / "p.mmu").write_text(f'{HEAD}{path}\nspec r "r" {{ check c: p on dev under proto proves asserts; }}\n')
    assert main(["check", str(tmp_path / "p.mmu"), "--no-cache"]) == 3
    assert "assume_none_outside" in capsys.readouterr().out
