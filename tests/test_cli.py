"""The command line: exit codes, targets, output files, JSON, and what is printed, kept in `golden/`.

MMUCHECK_PROMOTE=1 writes what is printed now over the golden files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from mmucheck.analyses.run import Result
from mmucheck.analyses.subjects import Obligation, Subject
from mmucheck.cli import common, inputs
from mmucheck.cli.main import main
from mmucheck.engines.verdicts import Decision

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
HEAD = "use <v3.17/all.mmu>;\nuse <devices/ats.mmu>;\nuse <devices/cpu.mmu>;\nuse <devices/kvm.mmu>;\n"
GOOD = """/// Nothing is sent between the clear and the new entry.
spec small "Small" {
    check stale: do_wp_page on ats before roedel_2014 refutes no_stale_translation;
    check fixed: do_wp_page on ats after roedel_2014 proves no_stale_translation;
}
"""
FLIPPED = GOOD.replace(" refutes ", " @ ").replace(" proves ", " refutes ").replace(" @ ", " proves ")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with two specs in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.mmu").write_text(HEAD + GOOD)
    (tmp_path / "flipped.mmu").write_text(HEAD + FLIPPED)
    return tmp_path


def result(verdict: str | None, expected: str = "", error: str = "") -> Result:
    subject = Subject((("p", ""),), ("d",), "v")
    decision = Decision(verdict, "by hand") if verdict else None
    return Result(Obligation(subject, "q", expected), decision, "everything", error=error)


PROVED, REFUTED = result("proved", "proved"), result("refuted", "refuted")
SURPRISE, BOUNDED, UNKNOWN = result("refuted", "proved"), result("bounded", "proved"), result("inconclusive", "refuted")
ERROR = result(None, "proved", "the refutation does not replay")


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 0),
        ([PROVED, REFUTED], 0),
        ([result("vacuous", "vacuous")], 0),
        ([result("vacuous", "proved")], 1),
        ([result("refuted")], 0),
        ([result("bounded")], 3),
        ([PROVED, SURPRISE], 1),
        ([PROVED, BOUNDED], 3),
        ([UNKNOWN], 3),
        ([SURPRISE, BOUNDED, UNKNOWN], 1),
        ([SURPRISE, ERROR, BOUNDED], 4),
        ([result("proved", "proved", "the proof does not check")], 4),
    ],
)
def test_exit_code_of_results(results: list[Result], code: int) -> None:
    assert common.exit_code(results) == code


@pytest.mark.parametrize(
    ("codes", "code"),
    [((0, 3), 3), ((3, 1), 1), ((1, 2), 2), ((2, 4), 4), ((4, 130), 130), ((0, 1, 2, 3, 4), 4), ((), 0)],
)
def test_priority(codes: tuple[int, ...], code: int) -> None:
    assert common.worst(codes) == code


# ---- exit codes of runs


def test_all_as_expected(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "good.mmu"]) == 0
    assert "2 of 2 as expected" in capsys.readouterr().out


def test_unexpected(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected refutation and an unexpected proof are both explained, on one screen each."""
    assert main(["check", "flipped.mmu"]) == 1
    out = capsys.readouterr().out
    assert "expected proved, found refuted" in out
    assert "expected refuted, found proved" in out
    assert "clear_pte" in out
    assert max(map(len, out.split("\n"))) <= 130


def test_inconclusive(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "good.mmu::small::fixed", "--rlimit", "1", "--no-cache"]) == 3
    assert "inconclusive" in capsys.readouterr().out


def test_internal_error(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(common, "decide", broken)
    assert main(["check", "good.mmu"]) == 4
    err = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: oops" in err
    assert "Traceback" not in err


def test_interrupted(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "decide", interrupted)
    assert main(["check", "good.mmu"]) == 130


def test_too_deep_to_load(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(inputs, "load_files", deep)
    assert main(["check", "good.mmu"]) == 2
    assert "E004" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "Missing argument"),
        (["chek"], "No such command"),
        (["check", "good.mmu", "--nonsense"], "No such option"),
        (["check", "good.mmu", "--format", "xml"], "xml"),
        (["check", "good.mmu", "--timeout", "-1"], "-1"),
        (["check", "good.mmu", "-j", "0"], "0"),
        (["check", "none.mmu"], "there is no such file"),
        (["check", "good.mmu::smal"], "did you mean `small`?"),
        (["check", "good.mmu::small::stal"], "did you mean `stale`?"),
        (["check", "good.mmu::small::stale::x"], "a target is"),
        (["check", "good.mmu::"], "a target is"),
        (["check", ".::small"], "is a directory"),
        (["check", "good.mmu", "-k", "zebra"], "nothing selected"),
        (["check", "good.mmu", "-o", "no/such/dir.json"], "there is no directory"),
        (["check", "good.mmu", "-o", "."], "it is a directory"),
        (["explain", "good.mmu::small", "-p", "no_stale_translatio"], "did you mean `no_stale_translation`?"),
        (["matrix", "--protocol", "v9"], "there is no protocol `v9`"),
        (["matrix", "--change", "roedel_2015"], "did you mean `roedel_2014`?"),
        (["matrix", "--change", "roedel_2014", "--protocol", "v3_17"], "not both"),
        (["matrix", "--side", "after"], "--side needs --change"),
        (["matrix", "--property", "no_fred_page"], "did you mean `no_freed_page`?"),
        (["matrix", "--path", "do_wp_pag"], "did you mean `do_wp_page`?"),
        (["matrix", "--device", "kvn"], "did you mean `kvm`?"),
        (["matrix", "--kernel", "v1.0"], "nothing selected"),
    ],
)
def test_usage(arguments: list[str], said: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every misuse has a sentence and code 2."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "Traceback" not in err


# ---- selection


@pytest.mark.parametrize(
    ("arguments", "checks"),
    [
        (["good.mmu"], ["stale", "fixed"]),
        (["good.mmu::small"], ["stale", "fixed"]),
        (["good.mmu::small::fixed"], ["fixed"]),
        (["good.mmu::small::fixed", "good.mmu::small::stale"], ["stale", "fixed"]),
        (["good.mmu::small::fixed", "good.mmu::small::fixed"], ["fixed"]),
        (["good.mmu", "-k", "fix"], ["fixed"]),
        (["good.mmu", "-k", "small"], ["stale", "fixed"]),
    ],
)
def test_selection(arguments: list[str], checks: list[str], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments, "--format", "json"]) == 0
    assert [r["check"] for r in json.loads(capsys.readouterr().out)["results"]] == checks


def test_directory(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every .mmu below it, in sorted order; a spec that is only used is not checked."""
    (work / "flipped.mmu").unlink()
    (work / "sub").mkdir()
    (work / "sub" / "a.mmu").write_text(HEAD + GOOD.replace("small", "other"))
    assert main(["check", ".", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [(r["file"], r["spec"]) for r in found] == [("good.mmu", "small")] * 2 + [("sub/a.mmu", "other")] * 2
    assert main(["check", "sub", "--format", "json"]) == 0
    assert {r["spec"] for r in json.loads(capsys.readouterr().out)["results"]} == {"other"}


def test_versions_side_by_side(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A spec means the same alone and beside one of another kernel version."""
    (work / "flipped.mmu").unlink()
    check = "check cpu: replace_page on cpu under v4_15 proves no_freed_page;"
    (work / "newer.mmu").write_text(f"use <v4.15/all.mmu>;\nuse <devices/cpu.mmu>;\nspec newer {{\n    {check}\n}}\n")
    (work / "good.mmu").write_text(HEAD + GOOD.replace("do_wp_page", "replace_page"))
    assert main(["check", ".", "--format", "json", "-j", "1"]) == 0
    paths = [r["paths"] for r in json.loads(capsys.readouterr().out)["results"]]
    assert paths == [["replace_page@v3.17"], ["replace_page@v3.17"], ["replace_page@v4.15"]]


# ---- output


def schema() -> dict[str, object]:
    return json.loads(resources.files("mmucheck.report").joinpath("results.schema.json").read_text(encoding="utf-8"))


def test_json_is_as_its_schema_says(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "flipped.mmu", "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(document, schema())
    first, second = document["results"]
    assert (first["verdict"], first["expected"], first["as_expected"]) == ("refuted", "proved", False)
    assert (second["verdict"], second["expected"], second["as_expected"]) == ("proved", "refuted", False)
    assert (first["file"], first["line"], first["side"], first["protocol"]) == ("flipped.mmu", 7, "before", "v3_17")
    assert any(c["what"].startswith("ats.iotlb") for s in first["trace"] for c in s["changes"])
    assert document["summary"]["unexpected"] == 2


def test_json_of_errors_is_as_its_schema_says() -> None:
    from mmucheck.report import json as report

    results = [PROVED, SURPRISE, BOUNDED, UNKNOWN, ERROR, result("vacuous")]
    results[1] = PROVED
    jsonschema.validate(json.loads(report.render(results, "0" * 64)), schema())


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_same_bytes_each_time(jobs: str, work: Path) -> None:
    for name in ("a.json", "b.json"):
        assert main(["check", "good.mmu", "--format", "json", "-o", name, "-j", jobs]) == 0
    a, b = (re.sub(r'"seconds": [0-9.]+', "", Path(n).read_text()) for n in ("a.json", "b.json"))
    assert a == b


def test_output_replaces_as_a_whole(work: Path) -> None:
    old = work / "report.txt"
    old.write_text("old\n")
    old.chmod(0o640)
    assert main(["check", "good.mmu", "-o", "report.txt"]) == 0
    assert "2 of 2 as expected" in old.read_text()
    assert old.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in work.iterdir()) == ["flipped.mmu", "good.mmu", "report.txt"]


def test_output_survives_a_full_disk(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the old file is lost and nothing of the new one is left."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (work / "report.txt").write_text("old\n")
    monkeypatch.setattr(os, "fsync", full)
    assert main(["check", "good.mmu", "-o", "report.txt"]) == 2
    assert "cannot write report.txt: no space left on device" in capsys.readouterr().err
    assert (work / "report.txt").read_text() == "old\n"
    assert sorted(p.name for p in work.iterdir()) == ["flipped.mmu", "good.mmu", "report.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("to_file", [True, False])
def test_full_device(to_file: bool, work: Path) -> None:
    command = [sys.executable, "-m", "mmucheck", "check", str(work / "good.mmu")]
    with open("/dev/full", "w") as full:
        command += ["-o", "/dev/full"] if to_file else []
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert run.returncode == 2
    assert "no space left" in run.stderr
    assert "Traceback" not in run.stderr


def test_closed_pipe(work: Path) -> None:
    """A reader that goes away changes neither the code nor stderr."""
    command = f"{sys.executable} -m mmucheck check {work}/good.mmu; echo $? >&2"
    run = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.stderr == "0\n"


@pytest.mark.parametrize(
    ("color", "environment", "terminal", "coloured"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_colour(color: str, environment: dict[str, str], terminal: bool, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert common.style(color, terminal).colour is coloured


def test_colour_in_the_report(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "good.mmu::small::fixed", "--color", "always"])
    assert "\x1b[" in capsys.readouterr().out
    main(["check", "good.mmu::small::fixed"])
    assert "\x1b[" not in capsys.readouterr().out


def test_quiet(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "good.mmu", "-q"]) == 0
    assert len(capsys.readouterr().out.strip().split("\n")) == 1


# ---- start-up


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["matrix", "--help"], ["explain", "--help"], ["--version"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        "import sys; from mmucheck.cli.main import main; code = main(sys.argv[1:]); "
        "print(sorted({'z3', 'lark', 'rich'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0
    assert run.stderr.strip() == "[]"
    assert run.stdout.strip()


# ---- what is printed


def golden(name: str, text: str) -> None:
    """Compare with the golden file, times left out."""
    text = re.sub(r"[0-9]+\.[0-9]+s\b", "_s", re.sub(r" +([0-9]+\.[0-9]+s)", r" \1", text))
    file = GOLDEN / name
    if os.environ.get("MMUCHECK_PROMOTE"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"{name} differs; MMUCHECK_PROMOTE=1 accepts what is printed now"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("check.txt", ["check", "good.mmu"]),
        ("check_verbose.txt", ["check", "good.mmu", "-v"]),
        ("check_unexpected.txt", ["check", "flipped.mmu", "-q"]),
        ("explain_refuted.txt", ["explain", "good.mmu::small::stale"]),
        ("explain_proved.txt", ["explain", "good.mmu::small::fixed"]),
        ("matrix.txt", ["matrix", "--path", "do_wp_page", "--path", "replace_page", "--device", "ats", "--device", "kvm"]),
        ("matrix_after.txt", ["matrix", "--change", "roedel_2014", "--path", "do_wp_page", "--device", "ats"]),
    ],
)
def test_printed(name: str, arguments: list[str], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*arguments, "-j", "1"])
    golden(name, capsys.readouterr().out)


def test_matrix_json(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--path", "do_wp_page", "--device", "ats", "--device", "cpu", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "mmucheck.matrix/1"
    assert document["cells"] == {"do_wp_page": {"ats": "refuted", "cpu": "proved"}}
    for each in document["results"]:
        jsonschema.validate(each, {**schema(), "$ref": "#/$defs/result", "required": [], "properties": {}, "additionalProperties": True})


def test_matrix_of_own_files(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of one's own without a kernel version have paths too."""
    uses = "use <protocols/v3_17.mmu>;\nuse <properties.mmu>;\nuse <devices/cpu.mmu>;\n"
    (work / "own.mmu").write_text(uses + "path own(a: page) {\n    clear_pte(a);\n}\n")
    assert main(["matrix", "own.mmu"]) == 0
    assert "own" in capsys.readouterr().out
