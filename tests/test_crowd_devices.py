"""Devices with handlers and counting hooks beside two threads that run paths any number of times: what is proved, and what it rests on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.analyses.subjects import subjects
from mmucheck.engines.solver import Limits
from mmucheck.engines.threads import CrowdSession
from mmucheck.engines.verdicts import Decision
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.lower import one_run, tallies
from mmucheck.machine.domain import NUMBER
from mmucheck.names.declarations import check
from mmucheck.names.loading import load

sys.path.insert(0, str(Path(__file__).resolve().parent))
from oracle.search import Oracle
from random_crowds import SECTIONS
from random_programs import PRELUDE, PROPERTIES
from small_paths import BARE

LIMITS = Limits(timeout=300, thorough=False)

DEVICE = """
device retry "filled by a handler that looks, and tries again if a section is open or has come by" {
    cache tlb of pages;
    var count = 0;
    var seq = 0;
    spinlock guard;
    handler fault_in(addr: page) {
        let s = seq;
        let f, w = get_user_page(addr) else return;
        with guard { if (count == 0 && s == seq) { fill tlb addr -> f, w; } }
        put_page(f);
    }
    on enter(start, end) { with guard { count += 1; drop tlb [start, end); } }
    on leave(start, end) { with guard { seq += 1; count -= 1; } }
    on flush_tlb(start, end) { with guard { seq += 1; drop tlb [start, end); } }
}
"""

PATHS = BARE + """
macro take_page(addr: page) in "a.c" {
    lock ptl(addr);
    if (pmd_linked(addr) && pte_present(addr)) {
        let f = pte_frame(addr);
        clear_pte(addr);
        unlock ptl(addr);
        put_page(f);
    } else { unlock ptl(addr); }
}
path zap_in_section(addr: page) in "a.c" {
    enter(addr, addr + PAGE_SIZE);
    take_page(addr);
    leave(addr, addr + PAGE_SIZE);
}
path zap_outside(addr: page) in "a.c" {
    enter(addr, addr + PAGE_SIZE);
    leave(addr, addr + PAGE_SIZE);
    with ptl(addr) {
        if (pmd_linked(addr) && pte_present(addr)) {
            let f = pte_frame(addr);
            clear_pte(addr);
            put_page(f);
        }
    }
}
path protect_in_section(addr: page) in "a.c" {
    enter(addr, addr + PAGE_SIZE);
    with ptl(addr) { if (pmd_linked(addr) && pte_present(addr)) { wrprotect_pte(addr); } }
    leave(addr, addr + PAGE_SIZE);
}
path section_left_open(addr: page) in "a.c" { with write mmap_sem { enter(addr, addr + PAGE_SIZE); } }
path two_sections_left_open(addr: page) in "a.c" {
    with write mmap_sem { enter(addr, addr + PAGE_SIZE); enter(addr, addr + PAGE_SIZE); }
}
path section_borrowed(addr: page) in "a.c" {
    with write mmap_sem {
        enter(addr, addr + PAGE_SIZE);
        leave(addr, addr + PAGE_SIZE);
        take_page(addr);
        enter(addr, addr + PAGE_SIZE);
    }
}
path two_sections_borrowed(addr: page) in "a.c" {
    with write mmap_sem {
        enter(addr, addr + PAGE_SIZE);
        leave(addr, addr + PAGE_SIZE);
        take_page(addr);
        enter(addr, addr + PAGE_SIZE);
        enter(addr, addr + PAGE_SIZE);
    }
}
"""

NUMBERED = ("count += 1; drop", "seq += 1; count += 1; drop")
BORROWING_ONE = NUMBERED, ("count -= 1", "count -= 2")
BORROWING_TWO = NUMBERED, ("count -= 1", "count -= 3")
"""Who leaves a section takes more from the count than it has added."""

CHANGES: dict[str, tuple[tuple[tuple[str, str], ...], str, str, bool]] = {
    "flush": ((), "fault, zap", "no_freed_page, no_stale_translation", True),
    "section": ((), "fault, zap_in_section", "no_freed_page, no_stale_translation", True),
    "permission": ((), "protect_in_section", "no_stale_write", True),
    "section_closed_first": ((), "fault, zap_outside", "no_freed_page", False),
    "no_count": ((("count == 0 && ", ""),), "fault, zap_in_section", "no_freed_page", False),
    "no_seq": (((" && s == seq", ""),), "fault, zap_in_section", "no_freed_page", False),
    "no_seq_in_flush": ((("{ seq += 1; drop", "{ drop"),), "fault, zap", "no_freed_page", False),
    "no_drop": ((("count += 1; drop tlb [start, end);", "count += 1;"),), "fault, zap_in_section", "no_freed_page", False),
    "flag": ((("count += 1", "count = 1"), ("count -= 1", "count = 0")), "zap_in_section", "no_freed_page", False),
    "two_steps": ((("seq += 1; count -= 1; }", "count -= 1; } seq += 1;"),), "fault, zap_in_section", "no_freed_page", False),
    "looked_first": (
        (("let s = seq;\n", ""), ("else return;", "else return; let s = seq;")), "fault, zap_in_section", "no_freed_page", False),
    "asked_in_vain": ((("s == seq)", "(s == seq || count == 0))"),), "fault, zap_in_section", "no_freed_page", False),
    "no_lock": ((("with guard { if (count == 0 && s == seq) { fill tlb addr -> f, w; } }",
                  "if (count == 0 && s == seq) { fill tlb addr -> f, w; }"),), "fault, zap_in_section", "no_freed_page", False),
    "put_first": ((("        put_page(f);\n", ""), ("with guard { if", "put_page(f); with guard { if")),
                  "fault, zap_in_section", "no_freed_page, no_stale_translation", True),
    "left_open": ((), "fault, section_left_open, zap_in_section", "no_freed_page, no_stale_translation", True),
    "borrowed_alone": (BORROWING_ONE, "section_borrowed", "no_freed_page", True),
    "two_borrowed_alone": (BORROWING_TWO, "two_sections_borrowed", "no_freed_page", True),
    "borrowed": (BORROWING_ONE, "section_left_open, section_borrowed", "no_freed_page", False),
    "two_borrowed": (BORROWING_TWO, "two_sections_left_open, two_sections_borrowed", "no_freed_page", False),
}  # fmt: skip
"""What is changed in the device, the paths, the properties, and whether they hold."""

Asked = tuple[System, list[PropertyDecl]]
Made = Callable[..., Asked]


@pytest.fixture
def asked(tmp_path: Path) -> Made:
    def made(changes: tuple[tuple[str, str], ...], paths: str, properties: str) -> Asked:
        device = DEVICE
        for old, new in changes:
            assert device.count(old) == 1, old
            device = device.replace(old, new)
        declared = "".join(f'property {p} "{p}" {{ {PROPERTIES[p]}; }}\n' for p in properties.split(", "))
        spec = f'spec p "p" {{ check c: loop {{ choose {paths} }} on retry under proto proves {properties}; }}\n'
        (tmp_path / "p.mmu").write_text(PRELUDE + declared + SECTIONS + device + PATHS + spec)
        library = load([tmp_path / "p.mmu"])
        check(library)
        builder = Builder(library)
        ((subject, group),) = subjects(obligations(library, library.specs.values())).items()
        return builder.system(subject), builder.properties(subject, [o.property for o in group])

    return made


def decisions(system: System, properties: list[PropertyDecl], limits: Limits = LIMITS) -> list[Decision]:
    session = CrowdSession(system, properties, limits)
    return [session.decide(p) for p in properties]


@pytest.mark.parametrize("name", CHANGES)
def test_verdict(asked: Made, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(one_run, "EXAMPLES", 0)  # nothing rests on those
    changes, paths, properties, holds = CHANGES[name]
    assert {d.verdict for d in decisions(*asked(changes, paths, properties))} == {"proved" if holds else "inconclusive"}


@pytest.mark.parametrize("name", [n for n, (_, _, _, holds) in CHANGES.items() if not holds])
def test_the_small_world_agrees(asked: Made, name: str) -> None:
    """The last path beside one of them, each run once, shows what is wrong."""
    changes, paths, properties, _ = CHANGES[name]
    system, wanted = asked(changes, paths, properties)
    last = system.threads[-1]
    pairs = [replace(system, threads=(one, last), crowd=False) for one in system.threads]
    assert any(Oracle(pair, wanted, widest=1).run() for pair in pairs)


def test_both_sides_of_what_the_handler_asks_are_seen(asked: Made) -> None:
    """Runs that come too late are not followed, but that there are some is said."""
    changes = ("count == 0 && ", ""), ("count += 1; drop", "seq += 1; count += 1; drop")
    (decision,) = decisions(*asked(changes, "fault, zap", "no_freed_page"))
    assert decision.verdict == "proved"
    assert decision.exercised is not None
    assert not decision.exercised.missing


OBSTACLES = {
    "sets a variable": (("        put_page(f);\n", "        put_page(f); tries = 1;\n"), ("var seq = 0;", "var seq = 0; var tries = 0;")),
    "neither a constant": (("seq += 1; drop tlb", "last = start; drop tlb"), ("var seq = 0;", "var seq = 0; var last = 0;")),
    "grows without end": (("s == seq", "s == seq && seq < 7"),),
    "does not stand for all": (("let s = seq;", "wait (!has(tlb, addr)); let s = seq;"),),
    "one for reading": (
        ("let f, w = get_user_page(addr) else return;",
         "lock read mmap_sem; let f, w = get_user_page(addr) else { unlock read mmap_sem; return; }"),
        ("with guard { if", "unlock read mmap_sem; with guard { if")),
    "one run": (("        put_page(f);\n", "        put_page(f); put_page(f);\n"),),
    "other pages than its own": (("fill tlb addr -> f, w;", "fill tlb addr + PAGE_SIZE -> f, w;"),),
}
"""Why nothing is said of a device changed so."""


@pytest.mark.parametrize("why", OBSTACLES)
def test_what_is_out_of_reach_is_said(asked: Made, why: str) -> None:
    (decision,) = decisions(*asked(OBSTACLES[why], "zap", "no_freed_page"))
    assert decision.verdict == "inconclusive"
    assert why in decision.reason


def test_a_section_left_open_is_out_of_reach_where_its_number_is_asked_for(asked: Made) -> None:
    (decision,) = decisions(*asked((("count == 0", "count < 1"),), "section_left_open, zap_in_section", "no_freed_page"))
    assert decision.verdict == "inconclusive"
    assert "counter" in decision.reason


def _closed(kept: Any, values: list[Any]) -> None:
    for c in kept._counters:
        values[c.place], values[c.own] = kept._terms.const(values[c.place].value - values[c.own], NUMBER), 0


BROKEN: dict[str, tuple[Any, str, Any, str, str]] = {
    "who has opened how many sections": (tallies.Tallies, "sides", lambda *_: ((), ()), "section", "inconclusive"),
    "what is left open stays so": (tallies.Tallies, "leave", _closed, "borrowed", "proved"),
    "who closes what another left open": (tallies.Tallies, "ambiguous", lambda *_: False, "two_borrowed", "proved"),
    "a snapshot that is asked in vain guards nothing": (one_run, "_guards", lambda *_: True, "asked_in_vain", "proved"),
}
"""What is replaced, by what, the case of which it makes another verdict, and which."""


@pytest.mark.parametrize("name", BROKEN)
def test_each_part_is_needed(asked: Made, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(one_run, "EXAMPLES", 0)  # runs that nothing rests on may show what is wrong, too
    owner, attribute, instead, case, verdict = BROKEN[name]
    changes, paths, properties, _ = CHANGES[case]
    system, wanted = asked(changes, paths, properties)
    assert verdict not in {d.verdict for d in decisions(system, wanted)}
    monkeypatch.setattr(owner, attribute, instead)
    limits = replace(LIMITS, timeout=30) if verdict == "inconclusive" else LIMITS  # a counter that nobody keeps grows without end
    assert {d.verdict for d in decisions(system, wanted, limits)} == {verdict}
