"""What makes the tool start fast must not change what it says: records, and runs that are found finished."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mmucheck.analyses import verdict_cache
from mmucheck.analyses.finished import FinishedRun
from mmucheck.cli.main import main
from mmucheck.engines import decide
from mmucheck.names import cache, loading, places
from mmucheck.names.cache import Parsed
from mmucheck.names.loading import load
from mmucheck.names.packing import pack
from mmucheck.names.places import models_root
from mmucheck.records import record
from mmucheck.syntax import parser
from mmucheck.syntax.diagnostics import InputError
from mmucheck.syntax.parser import parse

SPEC = """use <devices/ats.mmu>;
use <properties.mmu>;
use <protocols/v3_17.mmu>;
use "path.mmu";

spec s "A page that nobody frees" {
    check holds: keep on ats under v3_17 proves no_freed_page;
}
"""
PATH = "path keep(addr: address) { %s }\n"


@record
class Point:
    x: int
    y: int = 2


@record
class Named(Point):
    name: str = ""


@record
class Other:
    x: int
    y: int = 2


def test_a_record_is_a_frozen_dataclass() -> None:
    point = Point(1)
    assert is_dataclass(point)
    assert [f.name for f in fields(Named)] == ["x", "y", "name"]
    assert replace(point, y=3) == Point(1, 3) == Point(y=3, x=1)
    assert hash(Point(1)) == hash(point)
    assert Point(1) != Other(1)
    assert Point(1) != Named(1)
    assert repr(Named(1, name="a")) == "Named(x=1, y=2, name='a')"
    assert pickle.loads(pickle.dumps(point)) == point
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x


def test_a_record_knows_its_fields_before_anybody_asks() -> None:
    """They are worked out twice: at once for making one, by dataclasses when somebody asks."""

    @record
    class Base:
        x: int
        y: list[int] = field(default_factory=list)

    @record
    class Derived(Base):
        z: int = 3
        x: int = 4

    made = Derived(y=[5])
    assert repr(made).endswith("Derived(x=4, y=[5], z=3)")
    assert Derived().y == []
    assert Derived().y is not Derived().y
    match made:
        case Derived(x, y, z):
            assert (x, y, z) == (4, [5], 3)
    assert "__dataclass_params__" not in Derived.__dict__
    assert [f.name for f in fields(Derived)] == ["x", "y", "z"]
    assert is_dataclass(Base)
    assert replace(made, z=6) == Derived(4, [5], 6)


@pytest.mark.parametrize("wrong", [lambda: Point(), lambda: Point(1, 2, 3), lambda: Point(1, x=1), lambda: Point(1, z=1)])
def test_a_record_refuses_wrong_arguments(wrong) -> None:
    with pytest.raises(TypeError):
        wrong()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "s.mmu").write_text(SPEC)
    (tmp_path / "path.mmu").write_text(PATH % "let old = frame_at(addr); get_page(old); put_page(old);")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMUCHECK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def finished(project: Path) -> list[Path]:
    return sorted((project / "cache" / "runs").glob("*"))


def test_a_finished_run_is_found_and_says_the_same(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "s.mmu"]) == 0
    first = capsys.readouterr().out
    assert len(finished(project)) == 1
    assert main(["check", "s.mmu"]) == 0
    assert capsys.readouterr().out == first


def test_a_finished_run_is_forgotten_when_a_used_file_changes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "s.mmu"]) == 0
    (project / "path.mmu").write_text(PATH % "get_page(nobody);")
    assert main(["check", "s.mmu"]) == 2
    assert "path.mmu:1" in capsys.readouterr().err


def test_a_run_that_has_something_to_report_is_not_kept(project: Path) -> None:
    (project / "s.mmu").write_text(SPEC.replace("proves", "refutes"))
    assert main(["check", "s.mmu"]) == 1
    assert finished(project) == []


def test_a_damaged_finished_run_is_no_run(project: Path) -> None:
    assert main(["check", "s.mmu"]) == 0
    (entry,) = finished(project)
    entry.write_bytes(entry.read_bytes()[:-1] + b"x")
    assert FinishedRun(project / "cache", project, []).found() is None
    assert main(["check", "s.mmu"]) == 0


def test_a_finished_run_is_of_one_library(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tool with other models, a checkout's instead of the installed ones, has to decide anew."""
    assert main(["check", "s.mmu"]) == 0
    other = project / "models"
    shutil.copytree(models_root(), other)
    ats = (other / "devices" / "ats.mmu").read_text()
    (other / "devices" / "ats.mmu").write_text(ats.replace("device ats ", "device ats_gone "))
    monkeypatch.setattr(places, "models_root", lambda: other)
    monkeypatch.setattr(loading, "models_root", lambda: other)
    assert main(["check", "s.mmu"]) == 2
    assert len(finished(project)) == 1


@pytest.fixture
def namesake(project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two files of the same path, one below the working directory, one below the library's parent, both used by the spec."""
    installed = tmp_path_factory.mktemp("installed") / "models"
    shutil.copytree(models_root(), installed)
    monkeypatch.setattr(places, "models_root", lambda: installed)
    monkeypatch.setattr(loading, "models_root", lambda: installed)
    own, shipped = project / "models" / "both.mmu", installed / "both.mmu"
    own.parent.mkdir()
    own.write_text("const OF_MINE = 1;\n")
    shipped.write_text("const OF_THE_LIBRARY = 1;\n")
    (project / "s.mmu").write_text('use "models/both.mmu";\nuse <both.mmu>;\n' + SPEC)
    return own, shipped


@pytest.mark.parametrize("which", [0, 1])
def test_a_change_is_noticed_in_either_of_two_files_of_one_name(
    namesake: tuple[Path, Path], which: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "s.mmu"]) == 0
    namesake[which].write_text("const CHANGED = nobody;\n")
    assert main(["check", "s.mmu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(("./models/both.mmu:1:", "models/both.mmu:1:")[which])
    assert "const CHANGED = nobody;" in said


def test_no_two_files_have_one_name(namesake: tuple[Path, Path], tmp_path: Path) -> None:
    own, shipped = namesake
    beside = shipped.parent.parent / "s.mmu"  # beside the library, and called as a file of the working directory
    beside.write_text("")
    outside = tmp_path.parent / f"{tmp_path.name}.mmu"
    outside.write_text("")
    link = own.with_name("link.mmu")
    link.symlink_to(outside)
    (shipped.parent / "link.mmu").write_text("")
    files = [own, shipped, beside, tmp_path / "s.mmu", Path("models/link.mmu"), shipped.parent / "link.mmu", tmp_path / "path.mmu"]
    names = {loading.shown_name(f) for f in files}
    assert len(names) == len(files)
    assert {"models/both.mmu", "./models/both.mmu", "models/link.mmu", "./models/link.mmu", "s.mmu"} <= names


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_finished_matrix_is_found_until_a_path_changes(project: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["matrix", "s.mmu", "--all", "--format", form]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert len(finished(project)) == 1
    assert main(command) == 0
    assert capsys.readouterr().out == first
    (project / "path.mmu").write_text(PATH % "let old = frame_at(addr); clear_pte(addr); put_page(old);")
    assert main(command) == 0
    assert capsys.readouterr().out != first


def test_no_cache_reads_and_keeps_nothing(project: Path) -> None:
    assert main(["check", "s.mmu", "--no-cache"]) == 0
    assert not (project / "cache").exists()


@pytest.mark.parametrize("arguments", [[], ["--no-cache"], ["--rlimit", "100000000"]])
def test_two_checks_of_one_subject_are_decided_together(project: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its verdict, whether or not keys are made of the subject."""
    asked = SPEC.replace("}", "    check again: keep on ats under v3_17 proves no_stale_write, no_freed_page;\n}")
    (project / "s.mmu").write_text(asked)
    decided = []
    whole = decide.decide
    monkeypatch.setattr(
        decide, "decide", lambda system, properties, *rest: decided.append(list(properties)) or whole(system, decided[-1], *rest)
    )
    assert main(["check", "s.mmu", "--format", "json", "-o", "out.json", *arguments]) == 0
    found = [(r["check"], r["property"], r["verdict"]) for r in json.loads(Path("out.json").read_text())["results"]]
    assert found == [("holds", "no_freed_page", "proved"), ("again", "no_stale_write", "proved"), ("again", "no_freed_page", "proved")]
    assert [[p.name for p in properties] for properties in decided] == [["no_freed_page", "no_stale_write"]]


def test_the_tool_s_digest_is_of_every_source_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a.py", "inner/b.py", "inner/c.lark", "inner/d.mmu"):
        (tmp_path / name).write_text(name)
    found = dict(verdict_cache._sources(str(tmp_path), ""))
    assert found == {name: name.encode() for name in ("a.py", "inner/b.py", "inner/c.lark")}
    package = Path(verdict_cache.__file__).parents[1]
    whole = {p.relative_to(package).as_posix() for p in package.rglob("*.py")}
    assert set(dict(verdict_cache._sources(str(package), ""))) == whole | {"syntax/grammar.lark"}


def test_help_does_not_load_the_solver() -> None:
    code = "import sys; from mmucheck.cli.main import main; main(['--help']); sys.exit('z3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ, check=False)
    assert done.returncode == 0


def parsed_anew(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are parsed from now on."""
    seen: list[str] = []

    def counted(text: str, path: str, tables: Any = None) -> Any:
        seen.append(path)
        return parse(text, path, tables)

    monkeypatch.setattr(parser, "parse", counted)
    return seen


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library that came parsed with the tool, and no cache of the user's."""
    models = tmp_path / "models"
    (models / "mm").mkdir(parents=True)
    (models / "all.mmu").write_text('// Pages.\nuse "mm/keep.mmu";\nuse "mm/lose.mmu";\n')
    for name in ("keep", "lose"):
        (models / "mm" / f"{name}.mmu").write_text(PATH.replace("keep", name) % f"get_page(frame_at(addr)); /* {name} */")
    pack(models, tmp_path / "parsed")
    monkeypatch.setattr(loading, "parsed_root", lambda: tmp_path / "parsed")
    monkeypatch.setenv("MMUCHECK_CACHE", "")
    return models


@pytest.mark.parametrize("cwd", ["", "models", "models/mm"])
def test_what_is_shipped_parsed_is_not_parsed_again(packed: Path, cwd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed.parent / cwd)
    files = sorted(packed.rglob("*.mmu"))
    there = {str(p): p.read_bytes() for p in (packed.parent / "parsed").rglob("*.pickle")}
    anew = parsed_anew(monkeypatch)
    library = load(files, packed)
    assert anew == []
    assert sorted(library.files) == ["models/all.mmu", "models/mm/keep.mmu", "models/mm/lose.mmu"]
    monkeypatch.setattr(loading, "parsed_root", lambda: None)
    assert load(files, packed).files == library.files
    assert sorted(anew) == sorted(library.files)
    assert {str(p): p.read_bytes() for p in (packed.parent / "parsed").rglob("*.pickle")} == there


def test_an_edited_file_of_the_library_is_parsed(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited = packed / "mm" / "keep.mmu"
    edited.write_text(edited.read_text().replace("keep(", "other("))
    anew = parsed_anew(monkeypatch)
    library = load(sorted(packed.rglob("*.mmu")), packed)
    assert [v.declaration.name for v in library.paths()] == ["lose", "other"]
    assert anew == ["models/mm/keep.mmu"]
    edited.write_text(edited.read_text() + "path")
    with pytest.raises(InputError):
        load([edited], packed)


@pytest.mark.parametrize("harm", ["damage", "another file's", "another parser"])
def test_a_shipped_tree_that_is_not_this_file_s_is_ignored(packed: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = sorted((packed.parent / "parsed" / "ast").glob("*"))
    first, second = (p.read_bytes() for p in trees[:2])
    if harm == "damage":
        trees[0].write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    elif harm == "another file's":
        trees[0].write_bytes(second)
    else:
        monkeypatch.setattr(cache, "_parser_digest", lambda: b"another")
    anew = parsed_anew(monkeypatch)
    load(sorted(packed.rglob("*.mmu")), packed)
    assert len(anew) == (3 if harm == "another parser" else 1)


def test_the_shipped_tables_parse_the_same(packed: Path) -> None:
    """In a process of its own, which does not load lark for a text without errors, nor read the grammar for one with."""
    parsed = Parsed(packed.parent / "parsed", None)
    code = (
        "import sys; from pathlib import Path; from unittest.mock import patch\n"
        "from mmucheck.names.cache import Parsed; from mmucheck.syntax.diagnostics import InputError\n"
        "from mmucheck.syntax.parser import parse\n"
        "kept = Parsed(Path(sys.argv[1]), None)\n"
        "file = parse(Path(sys.argv[2]).read_text(), 'p', kept)\n"
        "assert 'lark' not in sys.modules\n"
        "from lark import Lark\n"
        "def said(*kept):\n"
        "    try: parse(file.text + 'path', 'p', *kept)\n"
        "    except InputError as error: return error.diagnostics\n"
        "with patch.object(Lark, '__init__', None): quick = said(kept)\n"
        "assert quick and quick == said()\n"
        "sys.exit(file != parse(file.text, 'p'))"
    )
    assert parsed.shipped is not None
    argv = [sys.executable, "-c", code, str(parsed.shipped), str(models_root() / "properties.mmu")]
    done = subprocess.run(argv, capture_output=True, env=os.environ, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
