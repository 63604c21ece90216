"""Many pairs of paths decided as one crowd: the same verdicts as each alone, and what is wrong with one path stays with its pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path

import pytest

from mmucheck.analyses import together as joint_run
from mmucheck.analyses.plan import Builder
from mmucheck.analyses.run import run
from mmucheck.analyses.subjects import Obligation, Subject
from mmucheck.analyses.verdict_cache import VerdictCache
from mmucheck.cli.main import main
from mmucheck.engines import crowd
from mmucheck.engines.joint import Joint, decide_jointly
from mmucheck.engines.solver import Limits
from mmucheck.names.declarations import check
from mmucheck.names.library import Library
from mmucheck.names.loading import load

sys.path.insert(0, str(Path(__file__).resolve().parent))
from small_paths import OF_THE_KERNEL

TEXT = """
use <v3.17/all.mmu>;
use <properties.mmu>;
use <devices/cpu.mmu>;
""" + OF_THE_KERNEL + """path protect(addr: page) in "mm/mprotect.c" requires pmd_linked(addr) {
    lock ptl(addr);
    if (pmd_linked(addr) && pte_present(addr)) { wrprotect_pte(addr); flush_tlb_page(addr); }
    unlock ptl(addr);
}
path unmap_late(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    lock ptl(addr);
    if (pmd_linked(addr) && pte_present(addr)) {
        let f = pte_frame(addr);
        clear_pte(addr);
        put_page(f);
        flush_tlb_page(addr);
    }
    unlock ptl(addr);
}
path unmap_unlocked(addr: page) in "mm/rmap.c" requires pmd_linked(addr) {
    if (pmd_linked(addr) && pte_present(addr)) {
        let f = pte_frame(addr);
        ptep_clear_flush(addr);
        put_page(f);
    }
}
path reads(addr: page) in "mm/memory.c" requires mapped(addr) { let f = frame_at(addr); }
path twice(addr: page) in "mm/memory.c" requires pte_present(addr) requires pte_none(addr) { let f = frame_at(addr); }
"""
LIMITS = Limits(300.0)
PROPERTY = "no_freed_page"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("joint") / "x.mmu"
    found.write_text(TEXT)
    return found


@pytest.fixture(scope="module")
def library(file: Path) -> Library:
    found = load([file])
    check(found)
    return found


def pairs_of(library: Library, *names: str) -> list[Obligation]:
    paths = [(name, library.named(name)[0].version) for name in names]
    return [Obligation(Subject(two, ("cpu",), "v3_17"), PROPERTY) for two in combinations_with_replacement(paths, 2)]


def named(one: Obligation) -> tuple[str, str]:
    return one.subject.paths[0][0], one.subject.paths[1][0]


def proved(library: Library, *names: str, kept: VerdictCache | None = None) -> set[tuple[str, str]]:
    results = joint_run.together(Builder(library), pairs_of(library, *names), LIMITS, 1, lambda _: None, kept or VerdictCache(None))
    return {named(r.obligation) for r in results if r.decision is not None and r.decision.verdict == "proved"}


def asked(library: Library, wanted: Collection[tuple[int, int]], *names: str) -> Joint:
    builder = Builder(library)
    subject = Subject(tuple((name, library.named(name)[0].version) for name in names), ("cpu",), "v3_17", again=True)
    (prop,) = builder.properties(subject, [PROPERTY])
    return decide_jointly(builder.system(subject), wanted, prop, LIMITS, 0.0)


def test_what_one_crowd_tells_is_what_each_pair_is(library: Library) -> None:
    """All that keep the rule are proved together; a path that breaks it is taken out, and its pairs are as they are alone."""
    names = ("fault", "unmap", "protect", "unmap_late")
    alone = {named(r.obligation): r.decision.verdict for r in run(Builder(library), pairs_of(library, *names), LIMITS) if r.decision}
    assert {pair for pair, verdict in alone.items() if verdict == "proved"} == proved(library, *names)
    assert {pair for pair, verdict in alone.items() if verdict == "refuted"} == {pair for pair in alone if "unmap_late" in pair}


def test_what_is_broken_on_purpose_is_refuted_for_its_pairs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["fault", "protect", "unmap_late"]
    command = ["matrix", str(file), "--pairs", "--device", "cpu", *(part for n in names for part in ("--path", n))]
    assert main([*command, "--no-cache", "-j", "1", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    verdicts = {tuple(p["paths"]): p["verdict"] for p in document["pairs"]}
    assert {pair for pair, verdict in verdicts.items() if verdict == "refuted"} == {p for p in verdicts if "unmap_late" in p}
    assert {pair for pair, verdict in verdicts.items() if verdict == "proved"} == {p for p in verdicts if "unmap_late" not in p}
    assert sum("2 paths together" in r["method"] for r in document["results"]) == 3


def test_what_breaks_alone_breaks_beside_any_other(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is asked of its pairs; not where the property is about the end, to which the other has to come, too."""
    monkeypatch.setattr(joint_run, "FEWEST", 100)
    names = ("fault", "protect", "unmap_late")
    found = joint_run.together(Builder(library), pairs_of(library, *names), LIMITS, 1, lambda _: None, VerdictCache(None))
    assert {named(r.obligation) for r in found} == {named(o) for o in pairs_of(library, *names) if "unmap_late" in named(o)}
    assert {r.decision.verdict for r in found if r.decision} == {"refuted"}
    assert {r.decision.method for r in found if r.decision} == {"`unmap_late` alone: the other path need not begin"}
    at_the_end = [replace(o, property="quiescent") for o in pairs_of(library, *names)]
    assert library.properties["quiescent"].when == "finally"
    assert not joint_run.together(Builder(library), at_the_end, LIMITS, 1, lambda _: None, VerdictCache(None))


def test_only_pairs_that_are_asked_for_run_beside_each_other(library: Library) -> None:
    """Whoever clears without the lock does harm to who clears with it, and to nobody who clears nothing."""
    everything = asked(library, {(0, 0), (0, 1), (1, 1), (0, 2), (1, 2)}, "fault", "unmap", "unmap_unlocked")
    assert set(everything.proved) >= {(0, 0), (0, 1), (1, 1)}
    assert (1, 2) not in everything.proved
    assert everything.out
    without = asked(library, {(0, 0), (0, 1), (1, 1), (0, 2)}, "fault", "unmap", "unmap_unlocked")
    assert set(without.proved) >= {(0, 0), (0, 1), (1, 1)}


def test_a_pair_that_needs_a_third_to_end_is_not_proved(library: Library) -> None:
    """Between its two requirements somebody has to clear the entry: with the reader alone the path never begins. One by one it is said
    of each of its pairs."""
    found = asked(library, {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)}, "unmap", "reads", "twice")
    assert set(found.proved) == {(0, 0), (0, 1), (1, 1)}
    assert not found.out


def test_a_property_of_which_nothing_is_said_is_not_proved(library: Library) -> None:
    builder = Builder(library)
    subject = Subject((("fault", ""), ("protect", "")), ("cpu",), "v3_17", again=True)
    system = builder.system(subject)
    (prop,) = builder.properties(subject, ["no_device_failure"])
    assert not decide_jointly(system, {(0, 0), (0, 1), (1, 1)}, prop, LIMITS, 0.0).proved


def test_a_limit_proves_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "MAX_STATES", 50)
    found = asked(library, {(0, 0), (0, 1), (1, 1)}, "fault", "unmap")
    assert not found.proved
    assert "more than 50 states" in next(iter(found.out.values()))


def test_a_proof_is_kept_for_the_pair(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is not asked again, together or alone."""
    kept = VerdictCache(tmp_path)
    first = proved(library, "fault", "unmap", kept=kept)
    assert len(first) == 3
    monkeypatch.setattr(joint_run, "_decide", None)
    assert not proved(library, "fault", "unmap", kept=kept)
    again = run(Builder(library), pairs_of(library, "fault", "unmap"), replace(LIMITS, timeout=0.001), kept=kept)
    assert {named(r.obligation) for r in again if r.decision is not None and r.decision.verdict == "proved"} == first
