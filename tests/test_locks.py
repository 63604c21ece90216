"""Weaken one lock of a path at a time: some pair notices it, or tests/locks.json says in words why none does.

The recorded partner is only where to look: the weakened path is derived from the model and decided anew, as is the path as it is.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mmucheck.analyses.plan import Builder
from mmucheck.engines.solver import Limits
from mmucheck.ir.program import Program

sys.path.insert(0, str(Path(__file__).resolve().parent))
from weak_pairs import Row, decide, library, paths, system, weak
from weaken_locks import REMOVED, sites, weakened

KERNELS = ("v3.17", *os.environ.get("MMUCHECK_LOCKS", "").split())
"""Further kernels whose paths are to be decided, too: MMUCHECK_LOCKS="v4.15 v6.6" takes some five minutes more. That every section has a
row is asked of all of them."""
TABLE = json.loads((Path(__file__).resolve().parent / "locks.json").read_text())
ROWS = {kernel: [Row(**row) for row in rows] for kernel, rows in TABLE["kernels"].items()}
LIMITS = Limits(timeout=300)
NOT_REFUTED = {"proved", "bounded", "vacuous"}


@pytest.fixture(scope="module")
def builder() -> Builder:
    return library()


def program(builder: Builder, kernel: str, path: str) -> Program:
    return system(builder, kernel or KERNELS[0], path, "itself", "cpu")[1].threads[0]


@pytest.mark.parametrize("kernel", ROWS)
def test_every_section_has_a_row(builder: Builder, kernel: str) -> None:
    there = [(path, site.name) for path in paths(builder, kernel) for site in sites(program(builder, kernel, path))]
    assert sorted((row.path, row.lock) for row in ROWS[kernel]) == sorted(there)


@pytest.mark.parametrize("kernel", ROWS)
def test_what_nothing_notices_has_a_reason_and_what_something_does_has_none(kernel: str) -> None:
    for row in ROWS[kernel]:
        assert bool(row.partner and row.device and row.property and row.place) != bool(row.unnoticed), row
        assert not row.unnoticed or len(TABLE["reasons"][row.unnoticed].split()) > 5, row


def test_no_reason_is_left_over() -> None:
    assert {row.unnoticed for rows in ROWS.values() for row in rows} - {""} == set(TABLE["reasons"])


@pytest.mark.parametrize(
    ("kernel", "row"),
    [(kernel, row) for kernel in KERNELS for row in ROWS[kernel] if row.partner],
    ids=lambda value: value if isinstance(value, str) else f"{value.path} {value.lock}",
)
def test_a_weaker_lock_is_noticed(builder: Builder, kernel: str, row: Row) -> None:
    subject, whole = system(builder, kernel, row.path, row.partner, row.device)
    broken = weak(whole, row.lock, row.early, row.partner == "itself")
    assert broken is not None
    assert decide(builder, subject, broken, [row.property], row.place, LIMITS)[row.property].verdict == "refuted"
    assert decide(builder, subject, whole, [row.property], row.place, LIMITS)[row.property].verdict in NOT_REFUTED


def test_a_lock_is_given_up_before_the_last_visible_step(builder: Builder) -> None:
    """The second section of do_wp_page ends with the put of the old page, or of the new one if somebody was faster."""
    path = program(builder, "v3.17", "do_wp_page")
    section = next(s for s in sites(path) if s.name == "ptl 2")
    shorter = weakened(path, section, 1)
    assert shorter is not None
    behind = [shorter.nodes[s].step for n in shorter.nodes if n.step.op == "unlock" for s in n.successors]
    assert {step.origin.text for step in behind if step.op == "put_page"} == {"put_page(old);", "put_page(new);"}
    assert [s.name for s in sites(shorter)] == [s.name for s in sites(path)]


def test_who_waits_for_a_lock_goes_with_it(builder: Builder) -> None:
    """Who shares a hugetlb table page drops it when the i_mmap lock is free: no later than the weakened path gives it up."""
    path = program(builder, "v3.17", "change_protection_hugetlb")
    section = next(s for s in sites(path) if s.name == "i_mmap_mutex 1")
    shorter = weakened(path, section, 1)
    assert shorter is not None
    (freed,) = [n for n in shorter.nodes if n.step.op == "tlb_free_tables"]
    (before,) = [n for n in shorter.nodes if freed in [shorter.nodes[s] for s in n.successors]]
    assert before.step.op == "unlock"
    assert before.step.names[0] == "i_mmap_mutex"
    assert [shorter.nodes[s].step.op for s in freed.successors] == ["drop"]


def test_a_lock_left_out_is_no_section(builder: Builder) -> None:
    path = program(builder, "v3.17", "do_wp_page")
    section = next(s for s in sites(path) if s.name == "mmap_sem 1")
    without = weakened(path, section, REMOVED)
    assert without is not None
    assert len(without.nodes) == len(path.nodes)
    assert {s.name for s in sites(without)} == {"ptl 1", "ptl 2"}


def test_a_section_keeps_its_first_visible_step(builder: Builder) -> None:
    """fault looks at the entry under the lock, and writes it: the lock can go before the write, not before the look."""
    path = program(builder, "", "fault")
    (section,) = sites(path)
    assert [early for early in range(1, 5) if weakened(path, section, early) is not None] == [1]
