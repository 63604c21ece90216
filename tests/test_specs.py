"""Every shipped check has the verdict that its spec states."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "specs").rglob("*.mmu"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The JSON report of one run over all of specs/, nothing cached, every proof decided by a second solver."""
    out = tmp_path_factory.mktemp("specs") / "results.json"
    command = [sys.executable, "-m", "mmucheck", "check", "specs/", "--no-cache", "--timeout", "600", "--confirm", "cvc5"]
    done = subprocess.run([*command, "--format", "json", "-o", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.exists(), done.stderr
    return {"code": done.returncode, **json.loads(out.read_text())}


@pytest.mark.parametrize("file", FILES)
def test_verdicts_are_as_stated(report: dict, file: str) -> None:
    results = [r for r in report["results"] if r["file"] == file]
    assert results, "no verdict at all"
    wrong = [(r["check"], r["devices"], r["property"], r["verdict"], r["expected"]) for r in results if not r["as_expected"]]
    assert wrong == []


def test_exit_code_says_so(report: dict) -> None:
    assert report["code"] == 0


def test_every_proof_is_confirmed_by_a_second_solver(report: dict) -> None:
    proofs = [r for r in report["results"] if r["verdict"] == "proved"]
    assert proofs
    assert [(r["file"], r["check"], r["property"]) for r in proofs if r["confirmed_by"] != "cvc5"] == []


def test_no_success_is_hollow(report: dict) -> None:
    """Every proof says what it exercises, and no statement of a shipped path is dead."""
    proofs = [r for r in report["results"] if r["verdict"] == "proved"]
    assert all(r["exercised"] and r["exercised"]["reached"] for r in proofs)
    assert {(m["file"], m["line"]) for r in proofs for m in r["exercised"]["missing"] if m["dead"]} == set()


def test_every_path_is_decided_for_the_cpu(report: dict) -> None:
    """The CPU's TLB validates the path models: each path of the library has a check on ``cpu``."""
    from mmucheck.names.loading import load

    library = load(sorted((ROOT / "models").rglob("*.mmu")))
    on_cpu = {p for r in report["results"] if "cpu" in r["devices"] for p in r["paths"]}
    shipped = {f"{v.declaration.name}@{v.version}" for v in library.paths()}
    assert shipped - on_cpu == set()
