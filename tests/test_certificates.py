"""Certificates: written, confirmed by two solvers, and rejected when anything in them is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmucheck.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a loop-free path and of one with a loop."""
    home = tmp_path_factory.mktemp("certificates")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert main(["certify", "specs/cow.mmu::cow::harmless_before", "-o", str(home)]) == 0
        assert main(["certify", "specs/thread_2014.mmu::thread_2014::a_sub_range_is_enough", "-o", str(home)]) == 0
    return home


def only(folder: Path, part: str) -> Path:
    return next(p for p in sorted(folder.iterdir()) if part in p.name)


@pytest.mark.parametrize("solver", ["z3", "cvc5"])
def test_confirmed(folder: Path, solver: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["verify-certificate", str(folder), "--solver", solver]) == 0
    assert f"3 of 3 certificates confirmed by {solver}" in capsys.readouterr().out


def test_an_invariant_is_in_the_words_of_the_model(folder: Path) -> None:
    record = json.loads((only(folder, "a_sub_range") / "certificate.json").read_text())
    assert record["method"] == "induction"
    clauses = record["invariant"][0]["clauses"]
    assert clauses
    assert any("ats.iotlb" in atom for clause in clauses for atom, _ in clause)


def rejected(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.chdir(ROOT)
    assert main(["verify-certificate", str(home)]) == 1
    return capsys.readouterr().out


def copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_text(file.read_text())
    return target


def test_one_literal_edited_in_the_formula(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = copy(only(folder, "no_stale_write"), tmp_path / "edited")
    text = (home / "unrolled.smt2").read_text()
    (home / "unrolled.smt2").write_text(text.replace("(not ", "(and ", 1))
    assert "not what the model gives" in rejected(home, monkeypatch, capsys)


@pytest.mark.parametrize("edit", ["flip", "drop"])
def test_one_literal_edited_in_the_invariant(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], edit: str
) -> None:
    home = copy(only(folder, "a_sub_range"), tmp_path / edit)
    record = json.loads((home / "certificate.json").read_text())
    clause = record["invariant"][0]["clauses"][0]
    if edit == "flip":
        clause[0][1] = not clause[0][1]
    else:
        clause.pop(0)
    (home / "certificate.json").write_text(json.dumps(record))
    assert "REJECTED" in rejected(home, monkeypatch, capsys)


def test_a_certificate_for_another_property(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = copy(only(folder, "no_stale_write"), tmp_path / "other")
    record = json.loads((home / "certificate.json").read_text())
    record["property"] = "no_freed_table"
    (home / "certificate.json").write_text(json.dumps(record))
    assert "not what the model gives" in rejected(home, monkeypatch, capsys)


def test_what_cannot_be_read_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "certificate.json").write_text("{")
    assert "cannot be read" in rejected(tmp_path, monkeypatch, capsys)


def test_a_certificate_for_another_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = copy(only(folder, "no_stale_write"), tmp_path / "model")
    record = json.loads((home / "certificate.json").read_text())
    record["lowered"] = "0" * 64
    (home / "certificate.json").write_text(json.dumps(record))
    assert "the lowered form of the model is another one" in rejected(home, monkeypatch, capsys)
