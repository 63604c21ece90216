"""Every malformed input has its own diagnostic: code, line and column; and nothing ends in a traceback.

A file in `bad/` says in its first line what is expected: `// expect: CODE LINE:COLUMN, ...`, with the file's name before the line
where the finding is in another file.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from mmucheck.analyses.plan import Builder
from mmucheck.analyses.subjects import subjects
from mmucheck.cli import inputs
from mmucheck.cli.main import main
from mmucheck.report.diagnostics import render
from mmucheck.report.style import Style
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span, UsageError

BAD = Path(__file__).parent / "bad"
CASES = sorted(p.name for p in BAD.glob("*.mmu"))


def findings(name: str) -> list[Diagnostic]:
    """Everything wrong with a file of `bad/`, up to what shows only when its checks are put together."""
    try:
        library = inputs.load_files([Path(name)])
        builder = Builder(library)
        for subject in subjects(inputs.select(library, [inputs.Target(Path(name))])):
            builder.system(subject)
    except InputError as error:
        return list(error.diagnostics)
    except UsageError as error:
        pytest.fail(f"accepted: {error}")
    return []


@pytest.mark.parametrize("name", CASES)
def test_expected_diagnostic(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagnostics are those the file names, no more and no fewer."""
    monkeypatch.chdir(BAD)
    first = Path(name).read_text(encoding="utf-8").split("\n", 1)[0]
    expected = first.removeprefix("// expect: ").split(", ")
    found = [f"{d.code} {d.span}".replace(f" {name}:", " ") for d in findings(name)]
    assert found == expected


@pytest.mark.parametrize("name", CASES)
def test_message_is_for_users(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No parser words, no empty sentence, no machine's path."""
    monkeypatch.chdir(BAD)
    for diagnostic in findings(name):
        said = f"{diagnostic.message} {diagnostic.hint}"
        assert diagnostic.message
        assert not re.search(r"\b(Token|__ANON|SEMICOLON|LBRACE|RPAR|None|lark)\b|\$END|/tmp/|/home/", said), said


def test_enough_cases() -> None:
    assert len(CASES) >= 45


def test_exit_code_and_output(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Place, code, line with carets, hint and count go to stderr; the code is 2."""
    monkeypatch.chdir(BAD)
    assert main(["check", "unknown_step.mmu"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split("\n") == [
        "unknown_step.mmu:3:5: error[E106]: `clear_pt` is not defined",
        "  3 |     clear_pt(a);",
        "    |     ^^^^^^^^^^^^",
        "  help: did you mean `clear_pte`?",
        "1 error",
        "",
    ]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run and expect a plain refusal."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "internal error" not in err
    assert err.strip()
    return err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "E005"),
        (b"\n\n  \n", "E005"),
        (b"// nothing\n", "E005"),
        (bytes(range(256)) * 64, "E002"),
        (b"path p(a: page) {\x00}\n", "E002"),
        (b"\x7fELF\x02\x01\x01" + bytes(64), "E002"),
        (random.Random(1).randbytes(10 << 20), "E003"),
        (b"garbage " * (10 << 17), "E003"),
        (b"x" * 1_000_000, "E010"),
        (b'"' * 10_000, "error["),
        (b"{" * 5_000, "E004"),
        (b"path p(a: page) { if (" + b"(" * 5_000 + b"a", "E004"),
        (b"path p(a: page) { assume(" + b"!" * 200_000 + b"a); }", "error["),
        (b"path p(a: page) { assume(a == " + b"1 + " * 100_000 + b"1); }", "error["),
        (b"path p(a: page) {\r\n    clear_pt(a);\r\n}\r\n", "E106"),
    ],
)  # fmt: skip
def test_no_model_at_all(content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Empty, binary, huge and hostile files are refused in words."""
    file = tmp_path / "x.mmu"
    file.write_bytes(content)
    assert said in refused(["check", str(file)], capsys)


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no such file" in refused(["check", str(tmp_path / "none.mmu")], capsys)


def test_empty_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no .mmu file" in refused(["check", str(tmp_path)], capsys)


def test_directory_without_specs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.mmu").write_text("const X = 1;\n")
    assert "there is no spec" in refused(["check", str(tmp_path)], capsys)


def test_unreadable_directory_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dir.mmu").mkdir()
    (tmp_path / "x.mmu").write_text('use "dir.mmu";\n')
    assert "this is a directory" in refused(["check", str(tmp_path / "x.mmu")], capsys)


def nested(depth: int) -> str:
    return "path p(a: page) " + "{\n" * depth + "clear_pte(a);\n" + "}\n" * depth


@pytest.mark.parametrize("depth", [50, 99, 100, 101, 1_000, 100_000])
def test_nesting(depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nested blocks are accepted (then there is no spec) or refused, never crashed on."""
    file = tmp_path / "x.mmu"
    file.write_text(nested(depth))
    assert ("there is no spec" if depth < 100 else "E004") in refused(["check", str(file)], capsys)


def test_control_characters_do_not_reach_the_terminal() -> None:
    found = Diagnostic("E011", "`\x1b` has no meaning here", Span("x.mmu", 1, 3, 1, 4))
    text = render([found], lambda _: "a \x1b[31m b\n", Style())
    assert "\x1b" not in text


def test_long_lines_are_cut_around_the_place() -> None:
    found = Diagnostic("E106", "unknown", Span("x.mmu", 1, 5001, 1, 5004))
    text = render([found], lambda _: "x" * 5000 + "bad" + "y" * 5000, Style())
    lines = text.split("\n")
    assert max(map(len, lines)) < 140
    start = lines[2].index("^")
    assert lines[1][start : start + 3] == "bad"


def test_tabs_keep_the_caret_in_place() -> None:
    found = Diagnostic("E106", "unknown", Span("x.mmu", 1, 3, 1, 6))
    lines = render([found], lambda _: "\t\tbad\n", Style()).split("\n")
    assert lines[2].split("| ")[1] == "\t\t^^^"


def test_several_are_sorted_and_counted() -> None:
    spans = [Span("b.mmu", 1, 1, 1, 2), Span("a.mmu", 9, 1, 9, 2), Span("a.mmu", 2, 1, 2, 2)]
    text = render([Diagnostic("E106", "unknown", s) for s in spans], lambda _: None, Style())
    assert [line.split(": ")[0] for line in text.split("\n")[:3]] == ["a.mmu:2:1", "a.mmu:9:1", "b.mmu:1:1"]
    assert text.endswith("3 errors in 2 files\n")


def test_duplicates_are_shown_once() -> None:
    one = Diagnostic("E106", "unknown", Span("a.mmu", 1, 1, 1, 2))
    assert render([one, one], lambda _: None, Style()).endswith("1 error\n")
