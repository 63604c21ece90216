"""A second solver has a say in every proof: what it refutes is a fault of the tool, what it leaves open is not proved.

That it confirms every shipped proof is in test_specs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmucheck.cli import common
from mmucheck.cli.main import main
from mmucheck.engines import second

ROOT = Path(__file__).resolve().parents[1]
LOOP_FREE = "specs/cow.mmu::cow::without_hunk"
LOOP = "specs/thread_2014.mmu::thread_2014::a_sub_range_is_enough"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def check(target: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict]]:
    code = main(["check", target, "--confirm", "cvc5", "--no-cache", "-j", "1", "--format", "json"])
    return code, json.loads(capsys.readouterr().out)["results"]


@pytest.mark.parametrize("target", [LOOP_FREE, LOOP])
def test_proofs_are_confirmed_and_refutations_are_not_asked(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, results = check(target, capsys)
    assert code == 0
    assert {(r["verdict"], r["confirmed_by"]) for r in results} <= {("proved", "cvc5"), ("refuted", None)}
    assert any(r["confirmed_by"] for r in results)


@pytest.mark.parametrize("target", [LOOP_FREE, LOOP])
def test_another_answer_is_an_internal_error(
    target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(second, "decide_text", lambda text, solver, limits: "sat")
    code, results = check(target, capsys)
    assert code == common.INTERNAL
    assert {r["verdict"] for r in results} <= {None, "refuted"}
    assert any("does not confirm" in (r["error"] or "") for r in results)


@pytest.mark.parametrize("target", [LOOP_FREE, LOOP])
def test_no_answer_is_no_proof(target: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(second, "decide_text", lambda text, solver, limits: "unknown")
    code, results = check(target, capsys)
    assert code == common.UNDECIDED
    assert {r["verdict"] for r in results} <= {"inconclusive", "refuted"}


def test_a_solver_that_is_not_there_is_said_before_anything_is_decided(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["check", LOOP_FREE, "--confirm", "cvc5", "--no-cache"]) == common.BAD_INPUT
    assert "pip install 'mmucheck[cvc5]'" in capsys.readouterr().err
