"""Two VMM threads that run paths any number of times: what is proved, what is not, and that each part of the argument is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.subjects import subjects
from mmucheck.cli.main import main
from mmucheck.engines import crowd, relation
from mmucheck.engines.cells import Exhausted
from mmucheck.engines.claims import claims
from mmucheck.engines.joins import Joins
from mmucheck.engines.pairs import PairSession
from mmucheck.engines.solver import Limits, decide_script
from mmucheck.engines.threads import CrowdSession, ThreadsSession
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower import choices, scope, situations, surroundings
from mmucheck.lower.beside import MemberMoves, Writes, written_in
from mmucheck.lower.crowd import MemberWorld
from mmucheck.lower.moves import Moves
from mmucheck.lower.surroundings import Surroundings
from mmucheck.machine.memo import Recording
from mmucheck.names.declarations import check
from mmucheck.names.loading import load

sys.path.insert(0, str(Path(__file__).resolve().parent))
from crowd_campaign import KEPT, compare
from oracle.search import Oracle
from random_programs import PRELUDE, PROPERTIES
from small_paths import BARE

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Limits(timeout=300, thorough=False)

PATHS = """
spinlock page_lock(address / PAGE_SIZE);
protocol proto "p" {
    callback flush_tlb(start, end) atomic;
    flush_tlb(start, end) { call flush_tlb(start, end); }
}
device dev "hardware that fills by itself" {
    cache iotlb of pages from page_table;
    on flush_tlb(start, end) { drop iotlb [start, end); }
}
device walker "it caches tables, too" {
    cache psc of tables from page_table;
    cache iotlb of pages from page_table;
    on flush_tlb(start, end) { drop psc [start, end); drop iotlb [start, end); }
}
""" + BARE + """path fault_unlocked(addr: page) in "a.c" {
    let new = alloc_page() else return;
    if (pmd_linked(addr) && pte_none(addr)) { set_pte(addr, new, writable); } else { put_page(new); }
}
path zap_put_first(addr: page) in "a.c" {
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            put_page(f);
            flush_tlb(addr, addr + PAGE_SIZE);
        }
    }
}
path zap_short_flush(addr: page) in "a.c" {
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            flush_tlb(addr, addr + PAGE_SIZE - 1);
            put_page(f);
        }
    }
}
path zap_looked_before(addr: page) in "a.c" requires pmd_linked(addr) requires pte_present(addr) {
    let f = pte_frame(addr);
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) {
            clear_pte(addr);
            flush_tlb(addr, addr + PAGE_SIZE);
            put_page(f);
        }
    }
}
path zap_without_lock(addr: page) in "a.c" requires pmd_linked(addr) {
    let f = pte_frame(addr);
    if (f == pte_frame(addr)) {
        clear_pte(addr);
        flush_tlb(addr, addr + PAGE_SIZE);
        put_page(f);
    }
}
path zap_early_unlock(addr: page) in "a.c" {
    lock ptl(addr);
    if (!pmd_linked(addr) || !pte_present(addr)) { unlock ptl(addr); return; }
    let f = pte_frame(addr);
    clear_pte(addr);
    unlock ptl(addr);
    flush_tlb(addr, addr + PAGE_SIZE);
    put_page(f);
}
path copy(addr: page) in "a.c" {
    let new = alloc_page() else return;
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) {
            let old = pte_frame(addr);
            clear_pte(addr);
            flush_tlb(addr, addr + PAGE_SIZE);
            set_pte(addr, new, writable);
            put_page(old);
        } else { put_page(new); }
    }
}
path copy_early_unlock(addr: page) in "a.c" {
    let new = alloc_page() else return;
    lock ptl(addr);
    if (!pmd_linked(addr) || !pte_present(addr)) { unlock ptl(addr); put_page(new); return; }
    let old = pte_frame(addr);
    clear_pte(addr);
    flush_tlb(addr, addr + PAGE_SIZE);
    unlock ptl(addr);
    set_pte(addr, new, writable);
    put_page(old);
}
path sweep(start: page, end: page) in "a.c" requires start < end {
    for p in [start, end) step PAGE_SIZE {
        with ptl(p) {
            if (pmd_linked(p) && pte_present(p)) {
                let f = pte_frame(p);
                clear_pte(p);
                flush_tlb(p, p + PAGE_SIZE);
                put_page(f);
            }
        }
    }
}
path sweep_late_flush(start: page, end: page) in "a.c" requires start < end {
    for p in [start, end) step PAGE_SIZE {
        with ptl(p) {
            if (pmd_linked(p) && pte_present(p)) {
                let f = pte_frame(p);
                clear_pte(p);
                put_page(f);
            }
        }
    }
    flush_tlb(start, end);
}
macro take(p: page) in "a.c" {
    if (pmd_linked(p) && pte_present(p)) {
        let f = pte_frame(p);
        clear_pte(p);
        flush_tlb(p, p + PAGE_SIZE);
        put_page(f);
    }
}
path cluster(start: page, end: page) in "a.c" requires start < end requires start / PAGE_SIZE == (end - 1) / PAGE_SIZE {
    with page_lock(start) {
        for p in [start, end) step PAGE_SIZE {
            if (nondet()) { take(p); }
        }
    }
}
path cluster_across(start: page, end: page) in "a.c" requires start < end {
    with page_lock(start) {
        for p in [start, end) step PAGE_SIZE {
            if (nondet()) { take(p); }
        }
    }
}
path truths(start: page, end: page) in "a.c" requires start < end requires (start < end) == (end < start + 2 * PAGE_SIZE) {
    for p in [start, end) step PAGE_SIZE { with ptl(p) { take(p); } }
}
path gather(start: page, end: page) in "a.c" requires start < end {
    tlb_gather(start, end);
    for p in [start, end) step PAGE_SIZE {
        with ptl(p) {
            if (pmd_linked(p) && pte_present(p)) {
                let f = pte_frame(p);
                clear_pte(p);
                tlb_queue(f);
            }
        }
    }
    flush_tlb(start, end);
    tlb_free_pages();
}
path gather_free_first(start: page, end: page) in "a.c" requires start < end {
    tlb_gather(start, end);
    for p in [start, end) step PAGE_SIZE {
        with ptl(p) {
            if (pmd_linked(p) && pte_present(p)) {
                let f = pte_frame(p);
                clear_pte(p);
                tlb_queue(f);
            }
        }
    }
    tlb_free_pages();
    flush_tlb(start, end);
}
path protect(addr: page) in "a.c" {
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) { wrprotect_pte(addr); flush_tlb(addr, addr + PAGE_SIZE); }
    }
}
path protect_unflushed(addr: page) in "a.c" {
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) { wrprotect_pte(addr); }
    }
}
path free_table(addr: page) in "a.c" {
    with write mmap_sem {
        if (pmd_linked(addr)) {
            let t = table_at(addr);
            clear_pmd(addr);
            flush_tlb(addr & ~(PMD_SIZE - 1), (addr & ~(PMD_SIZE - 1)) + PMD_SIZE);
            put_table(t);
        }
    }
}
path free_table_put_first(addr: page) in "a.c" {
    with write mmap_sem {
        if (pmd_linked(addr)) {
            let t = table_at(addr);
            clear_pmd(addr);
            put_table(t);
            flush_tlb(addr & ~(PMD_SIZE - 1), (addr & ~(PMD_SIZE - 1)) + PMD_SIZE);
        }
    }
}
path link_table(addr: page) in "a.c" {
    let t = alloc_table() else return;
    with write mmap_sem {
        if (pmd_none(addr)) { populate_pmd(addr, t); } else { put_table(t); }
    }
}
path zap_by_page(addr: page) in "a.c" {
    with page_lock(addr) {
        if (pmd_linked(addr) && pte_present(addr)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            flush_tlb(addr, addr + PAGE_SIZE);
            put_page(f);
        }
    }
}
path zap_if_flagged(addr: page, flag: page) in "a.c" requires addr != flag {
    with page_lock(addr) { with page_lock(flag) {
        if (pmd_linked(addr) && pte_present(addr) && pte_present(flag)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            if (pte_present(flag)) { flush_tlb(addr, addr + PAGE_SIZE); }
            put_page(f);
        }
    } }
}
path zap_if_flagged_unlocked(addr: page, flag: page) in "a.c" requires addr != flag {
    with page_lock(addr) {
        if (pmd_linked(addr) && pte_present(addr) && pte_present(flag)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            if (pte_present(flag)) { flush_tlb(addr, addr + PAGE_SIZE); }
            put_page(f);
        }
    }
}
path zap_if_none(addr: page, flag: page) in "a.c" requires addr != flag {
    with page_lock(addr) { with page_lock(flag) {
        if (pmd_linked(addr) && pte_present(addr) && pmd_linked(flag) && pte_none(flag)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            if (pte_none(flag)) { flush_tlb(addr, addr + PAGE_SIZE); }
            put_page(f);
        }
    } }
}
path relink(flag: page) in "a.c" {
    with write mmap_sem {
        if (pmd_linked(flag) && pte_none(flag)) {
            let t = table_at(flag);
            clear_pmd(flag);
            set_pte_marker(flag);
            populate_pmd(flag, t);
        }
    }
}
path release(addr: page, kept: page) in "a.c" requires addr != kept {
    with write mmap_sem {
        if (pmd_linked(addr) && pmd_linked(kept) && pte_present(addr) && pte_none(kept)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            set_pte(kept, f, readonly);
        }
    }
}
path zap_under_sem(addr: page) in "a.c" {
    with write mmap_sem {
        if (pmd_linked(addr) && pte_present(addr)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            flush_tlb(addr, addr + PAGE_SIZE);
            put_page(f);
        }
    }
}
path move(addr: page, kept: page) in "a.c" requires addr != kept {
    with write mmap_sem {
        if (pmd_linked(addr) && pmd_linked(kept) && pte_present(addr) && pte_none(kept)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            flush_tlb(addr, addr + PAGE_SIZE);
            set_pte(kept, f, readonly);
        }
    }
}
path twice() in "a.c" {
    with write mmap_sem {
        let new = alloc_page() else return;
        put_page(new);
        put_page(new);
    }
}
path map(addr: page) in "a.c" requires pmd_linked(addr) {
    let new = alloc_page() else return;
    with write mmap_sem {
        if (pmd_linked(addr) && pte_none(addr)) { set_pte(addr, new, writable); } else { put_page(new); }
    }
}
"""

CASES = {
    "zap": ("fault, zap", "no_freed_page, no_stale_translation", True),
    "put_first": ("fault, zap_put_first", "no_freed_page", False),
    "short_flush": ("fault, zap_short_flush", "no_freed_page", False),
    "looked_before": ("fault, zap_looked_before", "no_freed_page", False),
    "without_lock": ("zap_without_lock", "no_freed_page", False),
    "unlocked_fault": ("fault_unlocked, zap", "no_stale_translation", False),
    "early_unlock_frees_late": ("fault, zap_early_unlock", "no_freed_page", True),
    "early_unlock_is_stale": ("fault, zap_early_unlock", "no_stale_translation", False),
    "copy": ("copy", "no_freed_page, no_stale_translation", True),
    "copy_early_unlock": ("copy_early_unlock, fault", "no_stale_translation", False),
    "sweep": ("fault, sweep", "no_freed_page", True),
    "sweep_late_flush": ("fault, sweep_late_flush", "no_freed_page", False),
    "gather": ("fault, gather", "no_freed_page", True),
    "gather_free_first": ("fault, gather_free_first", "no_freed_page", False),
    "cluster": ("zap_by_page, cluster", "no_freed_page", True),
    "cluster_across": ("zap_by_page, cluster_across", "no_freed_page", False),
    "truths": ("fault, truths", "no_freed_page", True),
    "protect": ("protect", "no_stale_write", True),
    "protect_unflushed": ("protect_unflushed", "no_stale_write", False),
    "free_table": ("free_table, link_table", "no_freed_table", True),
    "free_table_put_first": ("free_table_put_first, link_table", "no_freed_table", False),
    "flagged": ("zap_if_flagged, zap_by_page", "no_freed_page", True),
    "flagged_unlocked": ("zap_if_flagged_unlocked, zap_by_page", "no_freed_page", False),
    "relinked": ("zap_if_none, relink", "no_freed_page", False),
    "move": ("move, zap_under_sem", "no_freed_page, no_stale_translation", True),
    "move_unflushed": ("release, zap_under_sem", "no_freed_page", False),
    "twice": ("twice, map", "no_freed_page", False),
}
"""Paths, properties, and whether they hold."""


def text_of(paths: str, properties: str, device: str = "", verb: str = "proves") -> str:
    device = device or ("walker" if "table" in properties else "dev")
    declared = "".join(f'property {p} "{p}" {{ {PROPERTIES[p]}; }}\n' for p in properties.split(", "))
    spec = f'spec p "p" {{ check c: loop {{ choose {paths} }} on {device} under proto {verb} {properties}; }}\n'
    return PRELUDE + declared + PATHS + spec


@pytest.fixture
def system(tmp_path: Path) -> Callable[..., tuple[System, list[PropertyDecl]]]:
    def made(paths: str, properties: str, device: str = "") -> tuple[System, list[PropertyDecl]]:
        (tmp_path / "p.mmu").write_text(text_of(paths, properties, device))
        library = load([tmp_path / "p.mmu"])
        check(library)
        builder = Builder(library)
        ((subject, group),) = subjects(obligations(library, library.specs.values())).items()
        return builder.system(subject), builder.properties(subject, [o.property for o in group])

    return made


Made = Callable[..., tuple[System, list[PropertyDecl]]]


def proved(system: System, properties: Sequence[PropertyDecl], limits: Limits = LIMITS) -> set[str]:
    session = CrowdSession(system, list(properties), limits)
    return {p.name for p in properties if session.decide(p).verdict == "proved"}


@pytest.mark.parametrize("name", CASES)
def test_verdict(system: Made, name: str) -> None:
    paths, wanted, holds = CASES[name]
    assert proved(*system(paths, wanted)) == (set(wanted.split(", ")) if holds else set())


@pytest.mark.parametrize("name", CASES)
def test_the_small_world_agrees(system: Made, name: str) -> None:
    paths, wanted, holds = CASES[name]
    asked = system(paths, wanted)
    broken = Oracle(*asked, widest=1).run() or Oracle(*asked, widest=2).run()
    assert broken == (set() if holds else set(wanted.split(", ")))


@pytest.mark.parametrize("name", ["put_first", "early_unlock_is_stale", "unlocked_fault"])
def test_what_two_runs_break_is_refuted(system: Made, name: str) -> None:
    paths, wanted, _ = CASES[name]
    asked, properties = system(paths, wanted)
    decision = ThreadsSession(asked, properties, LIMITS).decide(properties[0])
    assert decision.verdict == "refuted"
    assert decision.violation is not None


# ---- what makes it a proof


def explored(asked: tuple[System, list[PropertyDecl]]) -> crowd.Exploration:
    system, properties = asked
    found = crowd.Exploration(system, [c for p in properties for c in claims(p)], LIMITS, 0.0)
    found.run()
    return found


def test_the_cells_cover_all_numbers_and_each_is_needed(system: Made) -> None:
    """One script for each path and each segment of it: no numbers lie outside its cells; without any one of them some do. Of numbers as the
    sweep requires them to be one cell is enough before its loop."""
    exploration = explored(system("copy, twice, sweep", "no_stale_translation"))
    assert exploration.outcome.reason
    exploration = explored(system("zap, sweep", "no_freed_page"))
    found = exploration.outcome
    assert not found.reason
    assert not found.alarms
    assert [decide_script(text, Limits()) for text, _ in exploration.evidence()] == ["unsat"] * 3
    places = [(member, segment) for member in found.members for segment in member.world.segments]
    assert [len(member.of(segment)) > 1 for member, segment in places] == [True, False, True]
    for place, (member, segment) in enumerate(places):
        cells = list(member.cells)
        for left_out in member.of(segment):
            member.cells[:] = [c for i, c in enumerate(cells) if i != left_out]
            assert decide_script(exploration.evidence()[place][0], Limits()) == "sat"
            member.cells[:] = cells


def test_what_is_not_a_threads_own_depends_on_no_number(system: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A situation stands for all numbers: where one is asked about, nothing is said."""
    asked, properties = system("zap, fault", "no_freed_page")
    assert proved(asked, properties)
    monkeypatch.setattr(Surroundings, "told", lambda around, *_, **__: surroundings._no_number(around.scope.terms.true))
    decision = CrowdSession(asked, properties, LIMITS).decide(properties[0])
    assert (decision.verdict, decision.reason.partition(",")[0]) == ("inconclusive", "what is seen between two runs depends on a number")


@pytest.mark.parametrize("limits", [Limits(timeout=0.01, thorough=False), Limits(rlimit=100, thorough=False)])
def test_a_limit_is_never_a_proof(system: Made, limits: Limits) -> None:
    assert proved(*system("fault, zap", "no_freed_page"), limits) == set()


def test_too_many_states_are_never_a_proof(system: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "MAX_STATES", 300)
    assert proved(*system("fault, zap", "no_freed_page")) == set()


def test_a_certificate_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.mmu").write_text(text_of("zap", "no_freed_page"))
    monkeypatch.chdir(tmp_path)
    assert main(["certify", "p.mmu", "-o", "certificates"]) == 0
    assert main(["verify-certificate", "certificates", "--solver", "cvc5"]) == 0
    assert "1 of 1 certificates confirmed by cvc5" in capsys.readouterr().out
    (home,) = (tmp_path / "certificates").iterdir()
    record = json.loads((home / "certificate.json").read_text())
    record["cells"][0].pop()
    (home / "certificate.json").write_text(json.dumps(record))
    assert main(["verify-certificate", "certificates"]) == 1
    assert "REJECTED" in capsys.readouterr().out


def test_the_cells_are_the_same_whatever_the_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "p.mmu").write_text(text_of("zap, protect", "no_freed_page"))
    found = []
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "mmucheck", "certify", "p.mmu", "-o", seed]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        found.append({file.name: file.read_text() for file in (tmp_path / seed).rglob("*") if file.is_file()})
    assert found[0] == found[1]
    assert found[0]


# ---- broken on purpose: without any part of the argument some wrong program is proved


MAPPED = choices.Choices.mapped


def never_the_witness(chosen: Any) -> int:
    """What an entry at another address, or an argument, is: any frame but the witness."""
    return next(v for v in (MAPPED(chosen), choices.VAGUE) if v != choices.WITNESS)


def once(joins: Any, world: Any, segment: int, cells: Any) -> Any:
    """Numbers for one cell of a segment, and no more."""
    return None if list(cells) else OUTSIDE(joins, world, segment, [])


OUTSIDE = Joins.outside
STAYS = MemberMoves._stays


def as_long_as_it_is_linked(moves: Any, run: Any, node: int, what: str, key: Any) -> bool:
    """Whether a page is kept, as if its table stayed linked for ever."""
    if what == "region":
        return STAYS(moves, run, node, what, key)
    held = moves._covering(run, node, key, 1 << moves._scope.system.page_bits)
    return bool(moves._writes.covered(written_in("page", True), held))


BROKEN: dict[str, tuple[Any, str, Any, str, str]] = {
    "nobody else writes what is looked at": (Writes, "covered", lambda *_: True, "flagged_unlocked", "proved"),
    "what was taken for granted is not asked at last": (
        crowd.Exploration, "_taken_for_granted", lambda *_: None, "flagged_unlocked", "proved"),
    "no deed is seen by the other": (relation.Deeds, "publish", lambda *_: None, "early_unlock_is_stale", "proved"),
    "an entry elsewhere maps another frame": (choices.Choices, "mapped", never_the_witness, "move_unflushed", "proved"),
    "nobody is ever idle": (Surroundings, "_quiet", lambda *_: False, "protect_unflushed", "proved"),
    "no run goes round a loop": (crowd.Exploration, "_may_join", lambda *_: False, "sweep_late_flush", "vacuous"),
    "one cell is all": (Joins, "outside", once, "short_flush", "proved"),
    "more is required of numbers than the path does": (
        MemberWorld, "_required", lambda world: [world.terms.false], "sweep_late_flush", "vacuous"),
    "of what is chosen only the first way is gone": (Recording, "not_taken", lambda _: iter(()), "put_first", "vacuous"),
    "no numbers go on as others": (Joins, "may_join", lambda *_: False, "sweep_late_flush", "vacuous"),
    "whatever a step does, the situation stays": (MemberWorld, "changes_nothing", lambda *_: True, "put_first", "vacuous"),
    "what is written into a table that is not linked concerns nobody": (
        MemberMoves, "_stays", as_long_as_it_is_linked, "relinked", "proved"),
    "no run begins": (crowd.Exploration, "_enter", lambda *_: None, "put_first", "vacuous"),
}  # fmt: skip
"""What is replaced, by what, the wrong program of which it makes another verdict, and which."""


@pytest.mark.parametrize("name", BROKEN)
def test_each_part_is_needed(system: Made, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    owner, attribute, instead, case, verdict = BROKEN[name]
    paths, wanted, holds = CASES[case]
    assert not holds
    monkeypatch.setattr(owner, attribute, instead)
    asked, properties = system(paths, wanted)
    assert {CrowdSession(asked, properties, LIMITS).decide(p).verdict for p in properties} == {verdict}


@pytest.mark.parametrize("case", ["zap", "free_table", "sweep"])
def test_a_set_of_states_steps_as_each_of_them_does(system: Made, case: str) -> None:
    """What is worked out for many situations at once is what comes out one by one."""
    asked = system(*CASES[case][:2])
    found = explored(asked).outcome
    for member in found.members:
        for cell in member.cells:
            for local, of in cell.seen.items():
                one_by_one: dict[Any, int] = {}
                for number in situations.each(of):
                    for step, some in member.world.steps(local, 1 << number, cell.truth).items():
                        assert some == 1 << number
                        one_by_one[step] = one_by_one.get(step, 0) | some
                assert member.world.steps(local, of, cell.truth) == one_by_one


def test_a_situation_that_has_settled_stays_as_it_is(system: Made) -> None:
    for case in ("zap", "sweep_late_flush"):
        around = explored(system(*CASES[case][:2])).outcome.surroundings
        assert around is not None
        assert all(around._settled(list(around.situations.all[n])) == n for n in range(len(around.situations.all)))


def test_a_state_agrees_with_itself(system: Made) -> None:
    """What follows from what is local is what the situation says."""
    for case in ("move", "sweep"):
        for member in explored(system(*CASES[case][:2])).outcome.members:
            places = member.world.surroundings.situations.places
            for cell in member.cells:
                for local, of in cell.seen.items():
                    (frames, tables), modes = member.world.standing(local, cell.truth)
                    for number in situations.each(of):
                        situation = member.world.surroundings.situations.all[number]
                        assert (situation[places["own.elsewhere.frames"]], situation[places["own.elsewhere.tables"]]) == (frames, tables)
                        assert tuple(situation[places[f"own.lock.{k.name}"]] for k in member.world.surroundings.locks) == modes


@given(st.sets(st.integers(0, 300)))
def test_sets_of_numbers(numbers: set[int]) -> None:
    bits = situations.bits_of(sorted(numbers))
    assert bits == sum(1 << n for n in numbers)
    assert list(situations.each(bits)) == sorted(numbers)
    assert not numbers or situations.first(bits) == min(numbers)


def test_what_is_remembered_of_joins_is_what_the_solver_says(system: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what earlier questions have told the same states are seen."""
    asked = system("sweep, twice", "no_freed_page")
    found = explored(asked).outcome
    recall = Joins.may_join

    def anew(joins: Any, *what: Any) -> bool:
        joins._passages.clear()
        return recall(joins, *what)

    monkeypatch.setattr(Joins, "may_join", anew)
    monkeypatch.setattr(Joins, "_guess", lambda *_: {})
    again = explored(asked).outcome
    assert (found.states, found.cells, found.reason, found.alarms) == (again.states, again.cells, again.reason, again.alarms)


@pytest.mark.parametrize("case", ["zap", "put_first", "early_unlock_is_stale", "protect_unflushed"])
def test_unknown_holders_may_as_well_let_go_late(system: Made, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """With every moment at which they can, the same claims are in doubt."""
    late = explored(system(*CASES[case][:2])).outcome
    others = Moves.others

    def soon(moves: Any, run: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moves._machine.looks, "slot_freed", lambda *_: True)
            return others(moves, run)

    monkeypatch.setattr(Moves, "others", soon)
    early = explored(system(*CASES[case][:2])).outcome
    assert late.states < early.states or case != "zap"  # what is in doubt ends the others before that
    assert (set(late.alarms), late.says) == (set(early.alarms), early.says)


@pytest.mark.parametrize("case", ["move", "move_unflushed", "free_table", "free_table_put_first"])
@pytest.mark.parametrize("reduction", [(MemberMoves, "_counts", lambda *_: True), (scope, "unlinks", lambda _: False)])
def test_what_is_forgotten_makes_no_difference(system: Made, monkeypatch: pytest.MonkeyPatch, case: str, reduction: Any) -> None:
    """With entries that nobody looks at any more, or where it is kept whether a table was unlinked, the same claims are in doubt."""
    few = explored(system(*CASES[case][:2])).outcome
    monkeypatch.setattr(*reduction)
    many = explored(system(*CASES[case][:2])).outcome
    assert few.states <= many.states or many.alarms  # what is in doubt ends the others before that
    assert (set(few.alarms), few.says) == (set(many.alarms), many.says)


def test_a_limit_without_a_reason_is_no_proof(system: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(*_: Any) -> None:
        raise Exhausted("")

    monkeypatch.setattr(Joins, "outside", gives_up)
    assert proved(*system("fault, zap", "no_freed_page")) == set()


def test_references_dropped_twice_are_noticed(system: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """By either of two questions: without both, a program is proved in which two threads drop one reference twice."""
    monkeypatch.setattr(crowd.Exploration, "_must_own", lambda *_: None)
    monkeypatch.setattr(Surroundings, "_trouble", lambda *_: "")
    paths, wanted, _ = CASES["without_lock"]
    assert proved(*system(paths, wanted)) == {wanted}


# ---- random programs


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.mmu")), ids=lambda p: p.stem)
def test_former_hole(path: Path) -> None:
    found = compare(path, LIMITS)
    assert found.broken
    assert not found.holes


NEVER = sorted((KEPT.parent / "never_proved").glob("*.mmu"))


@pytest.mark.parametrize("path", NEVER, ids=lambda p: p.stem)
def test_what_two_threads_break_is_never_proved(path: Path) -> None:
    library = load([path])
    check(library)
    builder = Builder(library)
    for subject, group in subjects(obligations(library, library.specs.values())).items():
        wanted = builder.properties(subject, [o.property for o in group])
        system = builder.system(subject)
        session = CrowdSession(system, wanted, LIMITS)
        assert wanted
        assert [session.decide(p).verdict for p in wanted] == ["inconclusive"] * len(wanted)
        if not system.crowd and len(system.threads) == 2:
            pair = PairSession(system, wanted, LIMITS)
            assert {pair.decide(p).verdict for p in wanted} <= {"refuted", "bounded"}
