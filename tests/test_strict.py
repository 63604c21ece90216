"""No hollow success: what a proof exercises, what is vacuous, and what ``--strict`` refuses. Each good model stands beside its bad twin."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.run import Result, run
from mmucheck.analyses.verdict_cache import VerdictCache
from mmucheck.cli.main import main
from mmucheck.engines.solver import Limits
from mmucheck.names.declarations import check
from mmucheck.names.loading import load

HEAD = """use <v3.17/all.mmu>;
use <properties.mmu>;
use <devices/ats.mmu>;
use <devices/cpu.mmu>;
use <devices/hmm.mmu>;
use <devices/ats_faults.mmu>;
"""
PATHS = """
device no_cache "keeps nothing" {
    var calls = 0;
    on invalidate_range(start, end) { calls += 1; }
}
device no_fill "what it holds at the start is all" {
    cache tlb of pages;
    on invalidate_range(start, end) { drop tlb [start, end); }
}
device never_sleeps "its callback does not sleep" {
    cache tlb of pages from page_table;
    on invalidate_range(start, end) { drop tlb [start, end); }
}
device unset "a variable that nothing sets" { var failed = 0; cache tlb of pages from page_table; }
path alive(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) {
    let old = frame_at(addr);
    with ptl(addr) { ptep_clear_flush_notify(addr); }
    put_page(old);
}
path dead(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) {
    let old = frame_at(addr);
    if (!mapped(addr)) {
        clear_pte(addr);
        flush_tlb_page(addr);
    }
    with ptl(addr) { ptep_clear_flush_notify(addr); }
    put_page(old);
}
path impossible(addr: page) in "mm/memory.c" requires mapped(addr) {
    assume(pmd_none(addr));
    with ptl(addr) { clear_pte(addr); }
}
path nothing_freed(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) {
    with ptl(addr) { ptep_clear_flush_notify(addr); }
}
path no_run_in_loop(start: page, end: page) in "mm/memory.c" requires start < end requires end < start {
    for p in [start, end) step PAGE_SIZE { with ptl(p) { clear_pte(p); } }
}
path loop_with_dead(start: page, end: page) in "mm/memory.c" requires start < end {
    for p in [start, end) step PAGE_SIZE {
        with ptl(p) { if (pte_present(p)) { wrprotect_pte(p); } }
        if (p >= end) { flush_tlb_page(p); }
    }
}
"""


def results(tmp_path: Path, body: str, thorough: bool = False) -> dict[str, Result]:
    """Decide the checks of a spec; by "check.property"."""
    (tmp_path / "s.mmu").write_text(HEAD + PATHS + f'spec s "strict" {{ {body} }}\n')
    library = load([tmp_path / "s.mmu"])
    check(library)
    wanted = obligations(library, library.specs.values())
    results = run(Builder(library), wanted, Limits(timeout=300, thorough=thorough))
    return {f"{r.obligation.check}.{r.obligation.property}": r for r in results}


def decided(tmp_path: Path, body: str, thorough: bool = False) -> Result:
    (only,) = results(tmp_path, body, thorough).values()
    assert not only.error
    return only


def line_of(text: str) -> int:
    """Of the first line that has the text, in the spec file."""
    return next(i for i, line in enumerate((HEAD + PATHS).split("\n"), 1) if text in line)


# ---- what is exercised


def test_everything_is_taken(tmp_path: Path) -> None:
    seen = decided(tmp_path, "check c: alive on cpu under v3_19 proves no_freed_page;").decision.exercised
    assert seen.missing == ()
    assert seen.reached == seen.total > 10


def test_dead_code_is_named_by_line(tmp_path: Path) -> None:
    """The steps and the calls in it, and the side of the branch before it; not what other calls of the same macro reach."""
    decision = decided(tmp_path, "check c: dead on cpu under v3_19 proves no_freed_page;").decision
    assert decision.verdict == "proved"
    seen = decision.exercised
    assert seen.total - seen.reached == len(seen.missing)
    assert {m.why for m in seen.missing} == {"unreachable"}
    first = line_of("if (!mapped(addr))")
    assert [(m.line, m.what, m.dead) for m in seen.missing] == [
        (first, "if (!mapped(addr)): yes", False),
        (first + 1, "clear_pte(addr);", True),
        (first + 2, "flush_tlb_page()", True),
    ]


def test_dead_code_of_a_device_is_no_fault(tmp_path: Path) -> None:
    """A device that counts faults has code that a proof shows to be unreachable: that is what is proved."""
    found = decided(tmp_path, "check c: alive on ats_faults under v3_19 proves no_device_failure;")
    assert found.decision.verdict == "proved"
    assert "failed = 1;" in [m.what for m in found.decision.exercised.missing]
    assert not any(m.dead for m in found.decision.exercised.missing)


def test_loops_claim_only_what_was_seen(tmp_path: Path) -> None:
    """Two rounds of a loop say nothing of the third: what they do not reach is not called unreachable."""
    decision = decided(tmp_path, "check c: loop_with_dead on cpu under v3_19 proves no_freed_page;").decision
    assert decision.verdict == "proved"
    missing = [m for m in decision.exercised.missing if m.line == line_of("if (p >= end)")]
    assert {m.what for m in missing} == {"if (p >= end): yes", "flush_tlb_page()", "addr = p"}
    assert {m.why for m in decision.exercised.missing} == {"not seen within 2 rounds of the loops"}
    assert not any(m.dead for m in decision.exercised.missing)


def test_fills_are_device_actions(tmp_path: Path) -> None:
    text = HEAD + PATHS + 'device shut "its fill is never allowed" { var on = 0; cache a of pages from page_table;\n'
    text += "cache b of pages from page_table when (on == 1);\n"
    text += "on invalidate_range(start, end) { drop a [start, end); drop b [start, end); } }\n"
    text += 'spec s "" { check c: alive on shut under v3_19 proves no_freed_page; }'
    (tmp_path / "s.mmu").write_text(text)
    library = load([tmp_path / "s.mmu"])
    check(library)
    (found,) = run(Builder(library), obligations(library, library.specs.values()), Limits(timeout=300))
    assert [m.what for m in found.decision.exercised.missing] == ["fills b"]


# ---- what is vacuous


@pytest.mark.parametrize(
    ("check_", "verdict", "reason"),
    [
        ("alive on cpu under v3_19 proves no_freed_page", "proved", ""),
        ("impossible on cpu under v3_19 proves no_freed_page", "vacuous", "the path cannot run to its end"),
        ("no_run_in_loop on cpu under v3_19 proves no_freed_page", "vacuous", "the path cannot run to its end"),
        ("alive on no_fill under v3_19 proves no_freed_page", "proved", ""),
        ("alive on no_cache under v3_19 proves no_freed_page", "vacuous", "no run comes to a state of which the property says anything"),
        ("do_wp_page on hmm under v3_17 proves no_sleep_in_atomic", "proved", ""),
        ("alive on hmm under v3_19 proves no_sleep_in_atomic", "vacuous", "no run comes to a step of a callback that may sleep"),
        ("alive on never_sleeps under v3_19 proves no_sleep_in_atomic", "vacuous", "no run comes to a step of a callback that may sleep"),
        ("do_wp_page on cpu under v3_17 proves paired", "proved", ""),
        ("alive on cpu under v3_19 proves paired", "vacuous", "no run comes to an assert, and no step sets `open`"),
        ("alive on cpu under v3_19 proves asserts", "vacuous", "no run comes to an assert"),
        ("alive on unset under v3_19 proves no_device_failure", "vacuous", "no step sets `failed`"),
        ("alive on ats_faults under v3_19 proves no_device_failure", "proved", ""),
        ("alive on cpu under v3_19 proves no_device_failure", "vacuous", "no device here has a variable `failed`, and no path uses one"),
    ],
)
def test_vacuous(check_: str, verdict: str, reason: str, tmp_path: Path) -> None:
    decision = decided(tmp_path, f"check c: {check_};").decision
    assert (decision.verdict, decision.reason) == (verdict, reason)


def test_whether_it_is_vacuous_must_be_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof of which nobody knows whether it says anything is not called proved."""
    from mmucheck.engines.solver import Answer, Solver

    real = Solver.check

    def gives_up(self: Solver, assumptions: list[str], *rest: object) -> Answer:
        unsure = any(str(a).startswith("goal.") for a in assumptions)
        return Answer("unknown", reason="timeout") if unsure else real(self, assumptions, *rest)

    monkeypatch.setattr(Solver, "check", gives_up)
    assert decided(tmp_path, "check c: alive on cpu under v3_19 proves no_freed_page;").decision.verdict == "inconclusive"


# ---- whether the flush matters


def test_whether_the_flush_matters(tmp_path: Path) -> None:
    body = "check a: alive on cpu under v3_19 proves no_freed_page, no_stale_write;"
    body += "check b: nothing_freed on cpu under v3_19 proves quiescent;"
    body += "check e: alive on no_fill under v3_19 proves no_freed_page;"
    body += "check c: loop_with_dead on cpu under v3_19 proves no_freed_page;"
    body += "check d: do_wp_page on hmm under v3_17 proves no_sleep_in_atomic;"
    found = {name: r.decision.needs_flush for name, r in results(tmp_path, body, thorough=True).items()}
    assert found == {
        "a.no_freed_page": True,
        "a.no_stale_write": True,
        "b.quiescent": True,
        "e.no_freed_page": True,
        "c.no_freed_page": False,
        "d.no_sleep_in_atomic": None,
    }


def test_it_is_asked_only_if_wanted(tmp_path: Path) -> None:
    assert decided(tmp_path, "check c: alive on cpu under v3_19 proves no_freed_page;").decision.needs_flush is None


def test_kept_apart(tmp_path: Path) -> None:
    """A verdict kept without the question does not answer it later."""
    (tmp_path / "s.mmu").write_text(HEAD + PATHS + 'spec s "" { check c: alive on cpu under v3_19 proves no_freed_page; }')
    library = load([tmp_path / "s.mmu"])
    check(library)
    wanted = obligations(library, library.specs.values())
    for thorough, said in ((False, None), (True, True), (False, None), (True, True)):
        (found,) = run(Builder(library), wanted, Limits(timeout=300, thorough=thorough), kept=VerdictCache(tmp_path / "kept", thorough))
        assert found.decision.needs_flush is said
        assert found.decision.exercised.missing == ()


# ---- --strict


@pytest.mark.parametrize(
    ("check_", "plain", "strict"),
    [
        ("alive on cpu under v3_19 proves no_freed_page", 0, 0),
        ("dead on cpu under v3_19 proves no_freed_page", 0, 1),
        ("alive on ats_faults under v3_19 proves no_device_failure", 0, 0),
        ("alive on no_cache under v3_19 proves no_freed_page", 1, 1),
        ("alive on no_cache under v3_19 vacuous no_freed_page", 0, 0),
    ],
)
def test_strict(check_: str, plain: int, strict: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("s.mmu").write_text(HEAD + PATHS + f'spec s "" {{ check c: {check_}; }}')
    assert main(["check", "s.mmu"]) == plain
    assert main(["check", "s.mmu", "--strict"]) == strict
    capsys.readouterr()
    assert main(["check", "s.mmu", "--strict", "--format", "json"]) == strict
    document = json.loads(capsys.readouterr().out)
    schema = json.loads(resources.files("mmucheck.report").joinpath("results.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    assert document["results"][0]["as_expected"] is not bool(strict)


def test_strict_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.mmu").write_text(HEAD + PATHS + 'spec s "" { check c: dead on cpu under v3_19 proves no_freed_page; }')
    assert main(["check", "s.mmu", "--strict"]) == 1
    out, line = capsys.readouterr().out, line_of("if (!mapped(addr))")
    assert "FAIL proved" in out
    assert f"s.mmu:{line}: if (!mapped(addr)): yes (unreachable)" in out
    assert f"s.mmu:{line + 1}: clear_pte(addr); (unreachable, in the path itself)" in out
    assert f"why: no run reaches s.mmu:{line + 1}, s.mmu:{line + 2}" in out


def test_strict_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is stated, vacuous is fine, but not for a gate."""
    monkeypatch.chdir(tmp_path)
    Path("s.mmu").write_text(HEAD.replace("v3.17/all", "v3.17/mm/memory") + PATHS)
    chosen = ["matrix", "s.mmu", "--protocol", "v3_19", "--path", "impossible", "--device", "cpu"]
    assert main(chosen) == 0
    assert main([*chosen, "--strict"]) == 1
    assert "vacuous" in capsys.readouterr().out


def test_explain_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    body = "check c: dead on cpu under v3_19 proves no_freed_page; check d: loop_with_dead on cpu under v3_19 proves no_freed_page;"
    Path("s.mmu").write_text(HEAD + PATHS + f'spec s "" {{ {body} }}')
    main(["explain", "s.mmu::s::c"])
    out = capsys.readouterr().out
    assert "steps exercised, but never:" in out
    assert f"s.mmu:{line_of('clear_pte(addr);')}: clear_pte(addr); (unreachable, in the path itself)" in out
    assert "it fails if cpu drops nothing" in out
    main(["explain", "s.mmu::s::d"])
    assert "it holds even if cpu drops nothing" in capsys.readouterr().out
