"""The verdict cache, costs, hunks, changes and lock balance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmucheck.analyses.cost import cost
from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.run import run
from mmucheck.analyses.subjects import Subject
from mmucheck.analyses.verdict_cache import VerdictCache
from mmucheck.cli.main import main
from mmucheck.engines.solver import Limits
from mmucheck.names.declarations import check
from mmucheck.names.library import Library
from mmucheck.names.loading import load
from mmucheck.syntax.diagnostics import InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def library() -> Library:
    found = load([ROOT / "specs" / "cow.mmu"])
    check(found)
    return found


def program(library: Library, path: str, change: str = "roedel_2014", side: str = "after", excepted: tuple[str, ...] = ()):
    protocol = library.changes[change].after if side == "after" else library.changes[change].before
    return Builder(library).system(Subject(((path, "v3.17"),), (), protocol, change, side, excepted)).threads[0]


def test_a_verdict_is_found_again_and_nothing_else_is(library: Library, tmp_path: Path) -> None:
    wanted = [o for o in obligations(library, library.specs.values()) if o.check == "harmless_before"]
    kept = VerdictCache(tmp_path)
    first = run(Builder(library), wanted, Limits(), kept=kept)
    entries = sorted((tmp_path / "verdicts").iterdir())
    assert len(entries) == len({o.property for o in wanted})
    again = run(Builder(library), wanted, Limits(), kept=VerdictCache(tmp_path))
    assert [r.decision for r in again] == [r.decision for r in first]


def test_a_damaged_entry_is_ignored_with_a_warning(library: Library, tmp_path: Path) -> None:
    wanted = [o for o in obligations(library, library.specs.values()) if o.check == "harmless_before"]
    run(Builder(library), wanted, Limits(), kept=VerdictCache(tmp_path))
    for entry in (tmp_path / "verdicts").iterdir():
        data = bytearray(entry.read_bytes())
        data[-1] ^= 1
        entry.write_bytes(bytes(data))
    kept = VerdictCache(tmp_path)
    assert all(r.as_expected for r in run(Builder(library), wanted, Limits(), kept=kept))
    assert kept.warnings


def test_what_was_not_decided_is_not_kept(library: Library, tmp_path: Path) -> None:
    wanted = [o for o in obligations(library, library.specs.values()) if o.check == "kvm_before" and o.property == "no_freed_page"]
    results = run(Builder(library), wanted, Limits(rlimit=1), kept=VerdictCache(tmp_path))
    assert [r.decision.verdict for r in results if r.decision] == ["inconclusive"]
    assert not (tmp_path / "verdicts").exists()


def test_entries_in_a_table_that_is_not_linked_refute_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind a step that links a table any page of it may be found with an entry, but no run begins so."""
    text = (Path(__file__).parent / "disagreements" / "linked_table_is_empty.mmu").read_text()
    changed = text.replace('assert(!pte_present(addr)) "', 'assert(!pte_present(addr + PAGE_SIZE)) "')
    assert changed != text
    (tmp_path / "p.mmu").write_text(changed)
    assert main(["check", str(tmp_path / "p.mmu"), "--no-cache"]) == 3
    assert "a table that is not linked" in capsys.readouterr().out


def test_cost_of_copy_on_write(library: Library) -> None:
    spinlocks = frozenset({"ptl", "pmd_ptl"})
    before = cost(program(library, "do_wp_page", side="before"), spinlocks)
    after = cost(program(library, "do_wp_page"), spinlocks)
    assert "invalidate_range" not in before
    count = after["invalidate_range"]
    assert (count.least, count.most, count.under_lock, count.doubled) == (0, 2, 1, 1)


def test_a_loop_is_counted_by_the_round(library: Library) -> None:
    count = cost(program(library, "zap_page_range"), frozenset({"ptl", "pmd_ptl"}))["invalidate_range"]
    assert count.per_round >= 1
    assert count.least >= 1


def test_a_hunk_left_out_leaves_the_rest(library: Library) -> None:
    def calls(excepted: tuple[str, ...]) -> int:
        return sum(n.step.names == ("invalidate_range",) for n in program(library, "do_wp_page", excepted=excepted).nodes)

    assert calls(()) == calls(("do_wp_page",)) + 1
    assert calls(("replace_page",)) == calls(())


def test_a_change_that_finds_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.mmu").write_text(
        "use <v3.17/mm/memory.mmu>;\nuse <protocols/v3_19.mmu>;\n"
        'change c "c" {\n    protocol v3_17 -> v3_19;\n    hunk do_wp_page { ptep_clear_flus -> ptep_clear_flush_notify; }\n}\n'
    )
    found = load([tmp_path / "x.mmu"])
    with pytest.raises(InputError) as caught:
        Builder(found).system(Subject((("do_wp_page", "v3.17"),), (), "v3_19", "c", "after"))
    assert [d.code for d in caught.value.diagnostics] == ["E502"]
    assert "ptep_clear_flush" in caught.value.diagnostics[0].hint


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("lock ptl(addr);", "E309"),
        ("unlock ptl(addr);", "E307"),
        ("if (nondet()) { lock ptl(addr); } clear_pte(addr); unlock ptl(addr);", "E308"),
        ("with ptl(addr) { if (nondet()) { return; } clear_pte(addr); }", ""),
    ],
)
def test_locks_balance_on_every_way_out(tmp_path: Path, body: str, code: str) -> None:
    text = f"use <kernel/pgtable.mmu>;\nuse <protocols/v3_17.mmu>;\npath p(addr: page) {{ {body} }}\n"
    (tmp_path / "x.mmu").write_text(text)
    found = load([tmp_path / "x.mmu"])
    try:
        Builder(found).system(Subject((("p", ""),), (), "v3_17"))
        codes = [""]
    except InputError as error:
        codes = [d.code for d in error.diagnostics]
    assert code in codes


def test_hunks_says_what_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.mmu").write_text(
        "use <v3.17/mm/memory.mmu>;\nuse <protocols/v3_19.mmu>;\nuse <devices/ats.mmu>;\nuse <properties.mmu>;\n"
        'change c "c" {\n    protocol v3_17 -> v3_19;\n    hunk do_wp_page { ptep_clear_flush -> ptep_clear_flush_notify; }\n}\n'
    )
    options = ["--library", "c.mmu", "--device", "ats", "--property", "no_stale_translation"]
    assert main(["hunks", "c", *options, "--format", "json", "-o", "out.json"]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["hunks"]
    assert {"hunk": "do_wp_page", "path": "do_wp_page", "needed_for": {"ats": ["no_stale_translation"]}, "undecided": []} in rows
