"""Two VMM threads: what a path may not do against another, agreement with the independent enumeration, and what is never proved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.run import Result, run
from mmucheck.analyses.subjects import subjects
from mmucheck.cli.main import main
from mmucheck.engines import concretise, crowd, pairs
from mmucheck.engines.solver import Limits, decide_script
from mmucheck.names.declarations import check
from mmucheck.names.loading import load
from mmucheck.replay import explore
from mmucheck.syntax.diagnostics import InputError

sys.path.insert(0, str(Path(__file__).resolve().parent))
from oracle.search import Oracle
from small_paths import OF_THE_KERNEL

ROOT = Path(__file__).resolve().parents[1]
TEXT = """
use <v3.17/all.mmu>;
use <properties.mmu>;
use <devices/all.mmu>;
path copy(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) requires !writable_at(addr) {
    lock ptl(addr);
    if (!mapped(addr) || pmd_huge(addr)) { unlock ptl(addr); return; }
    let old = frame_at(addr);
    get_page(old);
    unlock ptl(addr);
    let new = alloc_page() else { put_page(old); return; }
    lock ptl(addr);
    if (!pte_same(addr, old)) { unlock ptl(addr); put_page(new); put_page(old); return; }
    ptep_clear_flush(addr);
    set_pte(addr, new, writable);
    put_page(old);
    unlock ptl(addr);
    put_page(old);
}
path copy_early_unlock(addr: page) in "mm/memory.c" requires mapped(addr) requires !pmd_huge(addr) requires !writable_at(addr) {
    lock ptl(addr);
    if (!mapped(addr) || pmd_huge(addr)) { unlock ptl(addr); return; }
    let old = frame_at(addr);
    get_page(old);
    unlock ptl(addr);
    let new = alloc_page() else { put_page(old); return; }
    lock ptl(addr);
    if (!pte_same(addr, old)) { unlock ptl(addr); put_page(new); put_page(old); return; }
    unlock ptl(addr);
    ptep_clear_flush(addr);
    set_pte(addr, new, writable);
    put_page(old);
    put_page(old);
}
""" + OF_THE_KERNEL + """path remap(addr: page, new: frame) in "mm/memory.c" requires pmd_linked(addr) {
    lock ptl(addr);
    if (pmd_linked(addr) && pte_present(addr)) {
        ptep_clear_flush(addr);
        unlock ptl(addr);
        get_page(new);
        set_pte(addr, new, readonly);
    } else { unlock ptl(addr); }
}
path sweep(start: page, end: page) in "mm/memory.c" requires start < end {
    for p in [start, end) step PAGE_SIZE {
        lock ptl(p);
        if (pmd_linked(p) && pte_present(p)) {
            let f = pte_frame(p);
            ptep_clear_flush(p);
            put_page(f);
        }
        unlock ptl(p);
    }
}
path sweep_late_flush(start: page, end: page) in "mm/memory.c" requires start < end {
    for p in [start, end) step PAGE_SIZE {
        lock ptl(p);
        if (pmd_linked(p) && pte_present(p)) {
            let f = pte_frame(p);
            clear_pte(p);
            put_page(f);
        }
        unlock ptl(p);
    }
    flush_tlb_range(start, end);
}
path asserting(addr: page) in "mm/memory.c" requires pmd_linked(addr) requires pte_present(addr) {
    with ptl(addr) { assert(pte_present(addr)) "still there"; }
}
spec p "pairs" {
    check alone: copy_early_unlock on cpu under v3_17 proves no_freed_page, no_stale_translation;
    check locked: copy || copy on cpu under v3_17 proves no_freed_page, no_stale_translation;
    check early: copy_early_unlock || copy_early_unlock on cpu under v3_17 refutes no_freed_page;
    check refault: unmap || fault on cpu under v3_17 proves no_freed_page, no_stale_translation, no_freed_table;
    check overwritten: remap || fault on cpu under v3_17 refutes no_stale_translation;
    check gone: asserting || unmap on cpu under v3_17 refutes asserts;
    check silent: unmap || fault on cpu under v3_17 vacuous asserts;
    check kvm: unmap || fault on kvm under v3_17 refutes no_freed_page;
    check ranges: sweep || fault on cpu under v3_17 proves no_freed_page;
    check late: sweep_late_flush || fault on cpu under v3_17 refutes no_freed_page, no_stale_translation;
}
"""

NOT_FOR_THE_ORACLE = {"overwritten"}
"""It has no values for a parameter that is a frame."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "p.mmu"
    path.write_text(TEXT)
    return path


def _builder(spec: Path) -> tuple[Builder, list]:
    library = load([spec])
    check(library)
    return Builder(library), list(obligations(library, library.specs.values()))


NAMES = ["alone", "locked", "early", "refault", "overwritten", "gone", "silent", "kvm", "ranges", "late"]


def _decided(spec: Path, name: str, limits: Limits) -> list[Result]:
    builder, wanted = _builder(spec)
    return run(builder, [o for o in wanted if o.check == name], limits)


@pytest.mark.parametrize("name", NAMES)
def test_verdict(spec: Path, name: str) -> None:
    results = _decided(spec, name, Limits(timeout=300))
    assert results
    assert [(r.obligation.property, r.decision and r.decision.verdict, r.error) for r in results] == [
        (r.obligation.property, r.obligation.expected, "") for r in results
    ]
    assert all(bool(r.trace) == (r.obligation.expected == "refuted") for r in results)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOT_FOR_THE_ORACLE])
def test_the_small_world_agrees(spec: Path, name: str) -> None:
    builder, wanted = _builder(spec)
    for subject, group in subjects(o for o in wanted if o.check == name).items():
        broken = Oracle(builder.system(subject), builder.properties(subject, [o.property for o in group])).run()
        assert {o.property for o in group if o.expected == "refuted"} == broken


def test_a_refutation_shows_both_threads(spec: Path) -> None:
    (result,) = _decided(spec, "early", Limits(timeout=300))
    assert result.trace is not None
    assert {"vmm1", "vmm2"} <= {step.actor for step in result.trace.steps}


def test_following_two_threads_round_a_loop_is_no_proof(spec: Path) -> None:
    builder, wanted = _builder(spec)
    obligation = next(o for o in wanted if o.check == "ranges")
    properties = builder.properties(obligation.subject, [obligation.property])
    decision = pairs.PairSession(builder.system(obligation.subject), properties, Limits(timeout=300)).decide(properties[0])
    assert decision.verdict == "bounded"
    assert "neighbouring pages" in decision.reason


def test_ranges_of_huge_pages_are_looked_at(tmp_path: Path) -> None:
    """Where nothing is explored, nothing is found."""
    path = """
    path sweep_huge(start: huge_page, end: huge_page) in "mm/hugetlb.c" requires start < end {
        for p in [start, end) step PMD_SIZE {
            lock pmd_ptl(p);
            if (pmd_huge(p)) { let f = pmd_frame(p); clear_pmd(p); put_page(f); }
            unlock pmd_ptl(p);
        }
    }
    """
    check = "sweep_huge || sweep_huge on cpu under v3_17 refutes no_freed_page;"
    (tmp_path / "p.mmu").write_text(TEXT[: TEXT.index("spec p")] + path + f'spec p "p" {{ check huge: {check} }}')
    (result,) = _decided(tmp_path / "p.mmu", "huge", Limits(timeout=300))
    assert result.as_expected


@pytest.mark.parametrize("limits", [Limits(timeout=0.01), Limits(rlimit=100)])
def test_a_limit_is_never_a_proof(spec: Path, limits: Limits) -> None:
    assert {r.decision and r.decision.verdict for r in _decided(spec, "refault", limits)} == {"inconclusive"}


def test_too_many_states_are_never_a_proof(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAX_STATES", 1000)
    monkeypatch.setattr(crowd, "MAX_STATES", 100)
    assert {r.decision and r.decision.verdict for r in _decided(spec, "refault", Limits(timeout=300))} == {"inconclusive"}


def test_what_takes_too_long_to_replay_is_not_shown(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says that there is a run is not believed until it was made."""
    given_up = Mock(side_effect=explore.SearchExhausted("more than 5 states"))
    monkeypatch.setattr(concretise, "search", given_up)
    (result,) = _decided(spec, "early", Limits(timeout=300))
    assert given_up.called
    assert result.trace is None
    assert result.decision is not None
    assert (result.decision.verdict, result.decision.reason) == (
        "inconclusive", "a run that breaks it was found, but not replayed: more than 5 states")  # fmt: skip


def test_a_replay_ends_with_its_time(spec: Path) -> None:
    builder, wanted = _builder(spec)
    asked = next(o for o in wanted if o.check == "early")
    system, (prop,) = builder.system(asked.subject), builder.properties(asked.subject, [asked.property])
    violation = pairs.PairSession(system, [prop], Limits(timeout=300)).decide(prop).violation
    assert violation is not None
    start = violation.scenario
    assert explore.search(system, start, prop) is not None
    with pytest.raises(explore.SearchExhausted, match="timeout"):
        explore.search(system, start, prop, 1e-9)


def test_the_cells_cover_all_numbers_and_each_is_needed(spec: Path) -> None:
    """What makes it a proof: no numbers lie outside the cells; without any one of them some do."""
    builder, wanted = _builder(spec)
    obligation = next(o for o in wanted if o.check == "refault" and o.property == "no_freed_page")
    properties = builder.properties(obligation.subject, ["no_freed_page"])
    exploration = pairs.Exploration(builder.system(obligation.subject), pairs.claims(properties[0]), Limits(), 0.0)
    found = exploration.run()
    assert not found.reason
    assert decide_script(exploration.evidence(), Limits()) == "unsat"
    cells = list(found.cells)
    assert len(cells) > 3
    for left_out in range(len(cells)):
        found.cells[:] = [c for i, c in enumerate(cells) if i != left_out]
        assert decide_script(exploration.evidence(), Limits()) == "sat"


def test_reductions_change_no_answer(spec: Path) -> None:
    """Threads that go first where nobody can notice, and starts left out: without both the same properties break."""
    builder, wanted = _builder(spec)
    for name in ("early", "refault"):
        obligation = next(o for o in wanted if o.check == name and o.property == "no_freed_page")
        claims = pairs.claims(builder.properties(obligation.subject, ["no_freed_page"])[0])
        broken = []
        for plain in (False, True):
            exploration = pairs.Exploration(builder.system(obligation.subject), claims, Limits(), 0.0)
            if plain:
                world = exploration.world
                world.starts_like = lambda world=world: frozenset(range(len(world.starts)))  # type: ignore[method-assign]
                exploration._apart = frozenset()
                world.territories.is_private = lambda *_: False  # type: ignore[method-assign]
            found = exploration.run()
            assert not found.reason
            broken.append(set(found.breaches))
        assert broken[0] == broken[1]


def test_a_handler_that_builds_on_itself_is_not_proved(tmp_path: Path) -> None:
    device = """
    device counting "each run changes what the next one sees" {
        cache tlb of pages;
        var n = 0;
        handler fill_later(addr: page) {
            let k = n;
            n = k + 1;
            if (k == 3) { let f, w = get_user_page(addr) else return; fill tlb addr -> f, w; put_page(f); }
        }
        on flush_tlb(start, end) { drop tlb [start, end); }
    }
    """
    (tmp_path / "p.mmu").write_text(TEXT.replace("spec p", device + "spec p").replace("on cpu", "on counting"))
    results = _decided(tmp_path / "p.mmu", "refault", Limits(timeout=4))
    assert {r.decision and r.decision.verdict for r in results} & {"proved"} == set()


def test_three_threads_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.mmu").write_text(TEXT.replace("copy || copy on", "copy || copy || copy on"))
    with pytest.raises(InputError) as refused:
        _builder(tmp_path / "p.mmu")
    assert [d.code for d in refused.value.diagnostics] == ["E605"]


def test_two_programs_alike_are_told_by_what_they_do(spec: Path) -> None:
    """Which thread is which makes a difference for different programs: only of equal ones one half is explored."""
    builder, wanted = _builder(spec)
    same, other = (next(o for o in wanted if o.check == n) for n in ("locked", "refault"))
    for obligation, halves in ((same, True), (other, False)):
        claims = pairs.claims(builder.properties(obligation.subject, ["no_freed_page"])[0])
        system = builder.system(obligation.subject)
        assert bool(pairs.Exploration(system, claims, Limits(), 0.0).world.order()) is halves
        assert replace(system, threads=system.threads[:1]) != system


def test_a_certificate_is_confirmed_and_lacks_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TEXT[: TEXT.index('spec p "pairs"')]
    (tmp_path / "p.mmu").write_text(f'{text}spec p "p" {{ check locked: copy || copy on cpu under v3_17 proves no_freed_page; }}\n')
    monkeypatch.chdir(tmp_path)
    assert main(["certify", "p.mmu", "-o", "certificates"]) == 0
    assert main(["verify-certificate", "certificates", "--solver", "cvc5"]) == 0
    assert "1 of 1 certificates confirmed by cvc5" in capsys.readouterr().out
    (home,) = (tmp_path / "certificates").iterdir()
    record = json.loads((home / "certificate.json").read_text())
    record["cells"][0].pop()
    (home / "certificate.json").write_text(json.dumps(record))
    assert main(["verify-certificate", "certificates"]) == 1
    assert "REJECTED: cells-1.smt2 is not what the model gives" in capsys.readouterr().out


def test_the_cells_are_the_same_whatever_the_hash_seed(tmp_path: Path) -> None:
    text = TEXT[: TEXT.index('spec p "pairs"')]
    (tmp_path / "p.mmu").write_text(f'{text}spec p "p" {{ check locked: copy || unmap on cpu under v3_17 proves no_freed_page; }}\n')
    found = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "mmucheck", "certify", "p.mmu", "-o", seed]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        found.append({file.name: file.read_text() for file in (tmp_path / seed).rglob("*") if file.is_file()})
    assert found[0] == found[1]
