"""Which pairs of paths are kept apart by a lock is found in the paths, and what is kept apart is not decided but said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmucheck.cli.main import main

TEXT = """
use <v3.17/all.mmu>;
use <properties.mmu>;
use <devices/cpu.mmu>;
path reading(addr: page) in "mm/x.c" requires mapped(addr) { with read mmap_sem { let f = frame_at(addr); get_page(f); put_page(f); } }
path writing(addr: page) in "mm/x.c" requires mapped(addr) { with write mmap_sem { let f = frame_at(addr); get_page(f); put_page(f); } }
path leaving(addr: page) in "mm/x.c" requires mapped(addr) {
    lock write mmap_sem;
    let f = frame_at(addr);
    get_page(f);
    unlock write mmap_sem;
    put_page(f);
}
path by_address(addr: page) in "mm/x.c" requires mapped(addr) { with ptl(addr) { let f = frame_at(addr); get_page(f); put_page(f); } }
"""
NAMES = ["reading", "writing", "leaving", "by_address"]
APART = {("reading", "writing"), ("writing", "writing")}
"""A path that leaves its lock early can meet any other; a lock by address keeps nobody out of other addresses."""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "x.mmu").write_text(TEXT)
    named = [part for name in NAMES for part in ("--path", name)]
    return ["matrix", str(tmp_path / "x.mmu"), "--pairs", "--device", "cpu", *named, "--no-cache", "-j", "1"]


def test_locks_keep_paths_apart(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--format", "json"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert len(pairs) == len(NAMES) * (len(NAMES) + 1) // 2
    apart = {tuple(p["paths"]) for p in pairs if p["excluded_by"]}
    assert apart == APART
    assert {p["excluded_by"] for p in pairs if p["excluded_by"]} == {"mmap_sem"}
    assert {p["verdict"] for p in pairs if not p["excluded_by"]} == {"proved"}


def test_the_triangle_says_who_is_kept_apart(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "writing (both hold mmap_sem throughout): writing" in text
    assert [line.split()[2:] for line in text.splitlines() if line[:2] in ("1 ", "2 ", "3 ", "4 ")] == [
        ["+", "x", "+", "+"], ["x", "+", "+"], ["+", "+"], ["+"],
    ]  # fmt: skip


def test_pairs_are_on_one_device(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--device", "ats"]) == 2
    assert "name it with --device" in capsys.readouterr().err


def test_paths_of_different_levels_are_no_pair_of_the_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No world of two levels has both as they are. Put together by hand, one is taken at the other's levels, and that is said."""
    body = "requires mapped(addr) { let f = frame_at(addr); get_page(f); put_page(f); }"
    upper = f'path upper(addr: huge_page) in "mm/x.c" levels PMD, PUD {body}'
    check = 'spec s "s" { check both: upper || by_address on cpu under v3_17 proves no_freed_page; }'
    (tmp_path / "x.mmu").write_text(f"{TEXT}{upper}\n{check}\n")
    matrix = ["matrix", str(tmp_path / "x.mmu"), "--pairs", "--device", "cpu", "--path", "upper", "--path", "by_address", "--no-cache"]
    assert main([*matrix, "-j", "1"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[-2:] == ["Not asked, since they work on different levels of the page table:", "  upper: by_address"]
    assert main([*matrix, "-j", "1", "--format", "json"]) == 0
    pairs = {tuple(p["paths"]): p["excluded_by"] for p in json.loads(capsys.readouterr().out)["pairs"]}
    assert pairs == {("upper", "upper"): None, ("upper", "by_address"): "levels", ("by_address", "by_address"): None}
    assert main(["check", str(tmp_path / "x.mmu"), "--no-cache", "-j", "1", "-v"]) == 0
    assert "by_address is taken at PMD, PUD, the levels of another path" in capsys.readouterr().out
