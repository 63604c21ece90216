"""Variables of the address space: what one step of a path does with them, what the other thread sees, agreement with the enumeration."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.run import Result, run
from mmucheck.analyses.subjects import subjects
from mmucheck.cli.main import main
from mmucheck.engines.solver import Limits
from mmucheck.ir.program import Const
from mmucheck.machine.state import threads_of
from mmucheck.machine.visibility import Visibility
from mmucheck.names.declarations import check
from mmucheck.names.loading import load

sys.path.insert(0, str(Path(__file__).resolve().parent))
from oracle.search import Oracle

TEXT = """
use <v4.15/kernel.mmu>;
use <protocols/v4_15.mmu>;
use <properties.mmu>;
use <devices/cpu.mmu>;
const SET = 1;
shared flag = any;                   // any number
shared gathers = SET - 1;
shared unused = 3;
property closed "every gather is over" { finally forall d: device. gathers == 0; }
property never_two "one gather at a time" { always forall d: device. gathers <= 1; }
property of_unused "nobody sets it" { always forall d: device. unused == 3; }
property raised "the flag is up at the end" { finally forall d: device. flag == SET; }

macro pending() = flag != 0;
macro flush_pending() in "mm/rmap.c" { if (pending()) { flush_tlb_mm(); flag = 0; } }

path plain(addr: page) in "mm/rmap.c" requires pmd_linked(addr) { gathers += 1; gathers -= 1; }
path leaves_open(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    gathers += 1;
    if (nondet()) { return; }
    gathers -= 1;
}
path rounds(start: page, end: page) in "mm/rmap.c" requires start < end {
    gathers += 1;
    for p in [start, end) step PAGE_SIZE { with ptl(p) { flag = 0; } }
    gathers -= 1;
}
path torn(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    let seen = gathers;
    gathers = seen + 1;
    let again = gathers;
    gathers = again - 1;
}
path swaps(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    flag = 0;
    cmpxchg(flag, 0, SET);
    cmpxchg(flag, 0, 2);
}
path takes(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    cmpxchg(flag, SET, 7);
    assert(flag != SET) "somebody else's";
}
path reclaim(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    lock ptl(addr);
    if (!pmd_linked(addr) || !pte_present(addr)) { unlock ptl(addr); return; }
    let old = pte_frame(addr);
    clear_pte(addr);
    flag = SET;
    unlock ptl(addr);
    flush_tlb_mm();
    put_page(old);
}
path refault(addr: page) in "mm/memory.c" requires pmd_linked(addr) {
    let new = alloc_page() else return;
    lock ptl(addr);
    flush_pending();
    if (pmd_linked(addr) && pte_none(addr)) { set_pte(addr, new, writable); } else { put_page(new); }
    unlock ptl(addr);
}
path refault_unaware(addr: page) in "mm/memory.c" requires pmd_linked(addr) {
    let new = alloc_page() else return;
    lock ptl(addr);
    if (pmd_linked(addr) && pte_none(addr)) { set_pte(addr, new, writable); } else { put_page(new); }
    unlock ptl(addr);
}
spec s "shared" {
    check plain: plain on cpu under v4_15 proves closed, never_two vacuous of_unused;
    check exits: leaves_open on cpu under v4_15 refutes closed;
    check rounds: rounds on cpu under v4_15 proves closed;
    check swaps: swaps on cpu under v4_15 proves raised;
    check torn_alone: torn on cpu under v4_15 proves closed;
    check takes: takes on cpu under v4_15 proves asserts;
    check counted: plain || plain on cpu under v4_15 proves closed refutes never_two;
    check torn: torn || torn on cpu under v4_15 refutes closed;
    check raced: takes || swaps on cpu under v4_15 refutes asserts, raised;
    check told: reclaim || refault on cpu under v4_15 proves no_stale_translation;
    check untold: reclaim || refault_unaware on cpu under v4_15 refutes no_stale_translation;
}
"""
NAMES = ["plain", "exits", "rounds", "swaps", "torn_alone", "takes", "counted", "torn", "raced", "told", "untold"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "s.mmu"
    path.write_text(TEXT)
    return path


def _builder(spec: Path) -> tuple[Builder, list]:
    library = load([spec])
    check(library)
    return Builder(library), list(obligations(library, library.specs.values()))


def _decided(spec: Path, name: str) -> list[Result]:
    builder, wanted = _builder(spec)
    return run(builder, [o for o in wanted if o.check == name], Limits(timeout=300))


@pytest.mark.parametrize("name", NAMES)
def test_verdict(spec: Path, name: str) -> None:
    results = _decided(spec, name)
    assert results
    assert [(r.obligation.property, r.decision and r.decision.verdict, r.error) for r in results] == [
        (r.obligation.property, r.obligation.expected, "") for r in results
    ]
    assert all(bool(r.trace) == (r.obligation.expected == "refuted") for r in results)


@pytest.mark.parametrize("name", NAMES)
def test_the_small_world_agrees(spec: Path, name: str) -> None:
    builder, wanted = _builder(spec)
    for subject, group in subjects(o for o in wanted if o.check == name and o.property != "of_unused").items():
        broken = Oracle(builder.system(subject), builder.properties(subject, [o.property for o in group])).run()
        assert {o.property for o in group if o.expected == "refuted"} == broken


def test_a_refutation_shows_the_variable(spec: Path) -> None:
    """Its value at the start, and every step that changes it."""
    (result,) = _decided(spec, "torn")
    assert result.trace is not None
    assert dict(result.trace.start)["mm.gathers"] == "0"
    assert [c.after for s in result.trace.steps for c in s.changes if c.what == "mm.gathers"][-1] != "0"


def test_only_what_the_paths_use_is_part_of_the_system(spec: Path) -> None:
    builder, wanted = _builder(spec)
    of = {o.check: builder.system(o.subject).shared for o in wanted}
    assert [name for name, _ in of["told"]] == ["flag"]
    assert [name for name, _ in of["plain"]] == ["gathers"]
    assert of["told"][0][1] is None
    assert of["plain"][0][1] == Const(0)


def test_the_other_thread_sees_when_a_variable_is_read_and_written(spec: Path) -> None:
    """One thread alone is noticed by nobody, so long as no property asks."""
    builder, wanted = _builder(spec)
    for name, asked, noticed in (("counted", "no_freed_page", 2), ("plain", "no_freed_page", 0), ("plain", "closed", 2)):
        subject = next(o.subject for o in wanted if o.check == name)
        system = builder.system(subject)
        visible = Visibility(system, builder.properties(subject, [asked]))
        thread = threads_of(system)[0]
        steps = [i for i, n in enumerate(thread.program.nodes) if n.step.op == "set_var"]
        assert sum(visible(thread, i) for i in steps) == noticed


def test_a_certificate_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = TEXT[: TEXT.index('spec s "shared"')]
    (tmp_path / "s.mmu").write_text(
        f'{text}spec s "s" {{ check c: reclaim || refault on cpu under v4_15 proves no_stale_translation;'
        " check r: rounds on cpu under v4_15 proves closed; }\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["certify", "s.mmu", "-o", "certificates"]) == 0
    assert main(["verify-certificate", "certificates", "--solver", "cvc5"]) == 0
    assert "2 of 2 certificates confirmed by cvc5" in capsys.readouterr().out
