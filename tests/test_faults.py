"""Bad conditions, each made to happen: signals, dead workers, no memory, no disk, changed and hostile files, limits too small.

A test waits for a sign (a kept verdict, a child process, a pipe being opened) before it does harm, never for a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from mmucheck.cli import common, inputs
from mmucheck.cli.main import main

ROOT = Path(__file__).parent.parent
PATIENCE = 120.0
"""Seconds after which a sign that does not come fails the test."""
HEAD = "use <protocols/v3_17.mmu>;\nuse <properties.mmu>;\nuse <devices/cpu.mmu>;\n"
EASY = "path {0}(p: page) {{ clear_pte(p); }}\n"
HARD = """path {0}(p: page, a: address, b: address) {{
    let x = (a ^ (a >> 31)) * b;
    let y = (x ^ (x >> 33)) * a;
    let z = (y ^ (y >> 29)) * b;
    assume(z == 0xfedcba9876543211 && (x ^ (y >> 17)) * z == 0x123456789abcdef1);
    clear_pte(p);
}}
"""
"""Nobody finds out in time whether its end can be reached."""


def spec(easy: int, hard: int, extra: str = "") -> str:
    """So many checks that are decided at once, then so many that never are."""
    names = [f"easy{i}" for i in range(easy)] + [f"hard{i}" for i in range(hard)]
    paths = "".join((EASY if n.startswith("easy") else HARD).format(n) for n in names)
    checks = "".join(f"    check {n}: {n} on cpu under v3_17 proves no_freed_page;\n" for n in names)
    return f"{HEAD}{paths}{extra}spec s {{\n{checks}}}\n"


def one(body: str) -> str:
    """A spec with one check of path p."""
    return f"{HEAD}{body}\nspec s {{ check c: p on cpu under v3_17 proves no_freed_page; }}\n"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMUCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The tool as a process of its own, in a session of its own; nothing is left of it afterwards."""
    command = [sys.executable, "-m", "mmucheck", *arguments]

    def heed_signals() -> None:
        """Tests that run in the background are told to ignore SIGINT, and would hand that on."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_signals
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(sign: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not sign():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the sign did not come"
        time.sleep(0.02)


def verdicts(work: Path) -> int:
    return len(list(work.glob("cache/verdicts/*.pickle")))


def parents() -> dict[int, int]:
    """pid -> parent of every living process."""
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if state not in "ZX":
                found[int(stat.parent.name)] = int(parent)
    return found


def children(pid: int) -> list[int]:
    return [child for child, parent in parents().items() if parent == pid]


def workers(pid: int) -> list[int]:
    found = []
    for child in children(pid):
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not set(pids) & set(parents())


def in_solver(pid: int) -> Callable[[], bool]:
    """Whether the process has been inside the solver for a while: a second thread watches for signals there, and only there."""
    seen = 0

    def sign() -> bool:
        nonlocal seen
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        seen = seen + 1 if threads > 1 else 0
        return seen > 10

    return sign


def schema() -> dict[str, object]:
    return json.loads(resources.files("mmucheck.report").joinpath("results.schema.json").read_text(encoding="utf-8"))


# ---- signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_inside_the_solver(number: signal.Signals, code: int, work: Path) -> None:
    """What is decided so far is written, marked incomplete; the solver is not waited for."""
    (work / "x.mmu").write_text(spec(2, 1))
    with started("check", "x.mmu", "-j", "1", "--timeout", "0", "--format", "json", "-o", "r.json") as process:
        until(lambda: verdicts(work) == 2, process)
        until(in_solver(process.pid), process)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert (out, err) == ("", "mmucheck: interrupted: 2 of 3 decided\n")
    report = json.loads((work / "r.json").read_text())
    jsonschema.validate(report, schema())
    assert report["incomplete"] is True
    assert [(r["check"], r["verdict"]) for r in report["results"]] == [("easy0", "proved"), ("easy1", "proved")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_with_workers(number: signal.Signals, code: int, work: Path) -> None:
    """As on a terminal, where Ctrl-C comes to the workers too: they neither complain nor outlive the run."""
    (work / "x.mmu").write_text(spec(2, 2))
    with started("check", "x.mmu", "-j", "2", "--timeout", "0") as process:
        until(lambda: verdicts(work) == 2 and len(workers(process.pid)) == 2, process)
        family = children(process.pid)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert out.endswith("interrupted: 2 of 4 decided\n")
    assert err == "mmucheck: interrupted: 2 of 4 decided\n"
    until(gone(family))


def test_signal_in_a_matrix(work: Path) -> None:
    """Cells that were not come to are open, not missing."""
    (work / "x.mmu").write_text(spec(1, 1))
    with started("matrix", "x.mmu", "--device", "cpu", "-j", "1", "--timeout", "0", "--format", "json") as process:
        until(lambda: verdicts(work) == 1, process)
        until(in_solver(process.pid), process)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    report = json.loads(out)
    assert report["incomplete"] is True
    assert [(report["cells"][path]["cpu"]) for path in ("easy0", "hard0")] == ["proved", "open"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_loading(number: signal.Signals, code: int, work: Path) -> None:
    os.mkfifo(work / "x.mmu")
    with started("check", "x.mmu", "-o", "r.txt") as process:
        writer = os.open(work / "x.mmu", os.O_WRONLY)  # waits until it is being read
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        os.close(writer)
    assert process.returncode == code
    assert out == ""
    assert err.strip() == "mmucheck: interrupted"
    assert not (work / "r.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_at_any_moment(number: signal.Signals, work: Path) -> None:
    """From the first instruction on: it ends, with the signal's code (or by the signal, before there is a tool), and leaves nothing."""
    (work / "x.mmu").write_text(spec(3, 2))
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6):
        with started("check", "x.mmu", "-j", "2", "--timeout", "0", "--no-cache", "-o", "r.txt") as process:
            time.sleep(delay)
            family = children(process.pid)
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE)
        before_the_tool = process.returncode == 1 and "KeyboardInterrupt" in err and "mmucheck" not in err  # Python's own start-up
        assert before_the_tool or process.returncode in (128 + number, -number)
        assert "internal error" not in err
        assert not list(work.glob(".r.txt*"))
        if (work / "r.txt").exists():
            assert (work / "r.txt").read_text().endswith("of 5 decided\n")
            (work / "r.txt").unlink()
        until(gone(family))


def test_workers_end_with_their_parent(work: Path) -> None:
    (work / "x.mmu").write_text(spec(1, 2))
    with started("check", "x.mmu", "-j", "2", "--timeout", "0") as process:
        until(lambda: verdicts(work) == 1 and len(workers(process.pid)) == 2, process)
        family = children(process.pid)
        process.kill()
        process.wait()
        until(gone(family))


# ---- processes that die, memory that is not there


def test_worker_killed(work: Path) -> None:
    """It takes only what it was deciding with it; others go on."""
    (work / "x.mmu").write_text(spec(4, 2))
    killed: list[int] = []
    with started("check", "x.mmu", "-j", "2", "--timeout", "0", "--format", "json") as process:
        until(lambda: verdicts(work) == 4 and len(workers(process.pid)) == 2, process)
        killed = workers(process.pid)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert err == ""
    report = json.loads(out)
    jsonschema.validate(report, schema())
    assert report["incomplete"] is False
    assert [r["verdict"] for r in report["results"]] == ["proved"] * 4 + ["inconclusive"] * 2
    assert {r["reason"] for r in report["results"][4:]} == {"its process was ended by SIGKILL"}


def test_worker_killed_before_the_others_are_begun(work: Path) -> None:
    """A new one takes its place."""
    (work / "x.mmu").write_text(spec(0, 1) + spec(4, 0).removeprefix(HEAD).replace("spec s", "spec t"))
    with started("check", "x.mmu", "-j", "1", "--memory", "4096", "--timeout", "0", "--format", "json") as process:
        until(lambda: len(workers(process.pid)) == 1, process)
        (worker,) = workers(process.pid)
        os.kill(worker, signal.SIGKILL)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert [r["verdict"] for r in json.loads(out)["results"]] == ["inconclusive", *["proved"] * 4]


def test_out_of_memory(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that needs too much is inconclusive; the others are decided."""
    large = "path large(p: page) {" + "clear_pte(p);" * 800 + "}\n"
    checks = "spec t { check large: large on cpu under v3_17 proves no_freed_page; }\n"
    (work / "x.mmu").write_text(spec(2, 0, large) + checks)
    assert main(["check", "x.mmu", "--memory", "210", "--timeout", "0", "--format", "json"]) == 3
    found = {r["check"]: (r["verdict"], r["reason"]) for r in json.loads(capsys.readouterr().out)["results"]}
    assert found == {"easy0": ("proved", ""), "easy1": ("proved", ""), "large": ("inconclusive", "out of memory")}


def test_hardly_any_memory(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even enough to begin: never a verdict, and an end."""
    (work / "x.mmu").write_text(spec(2, 0))
    assert main(["check", "x.mmu", "--memory", "20", "-j", "2"]) == 3
    assert "0 proved" in capsys.readouterr().out


def test_fault_of_the_tool_is_the_subjects_own(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mmucheck.engines import decide

    deciding = decide.Session.decide

    def broken(self: decide.Session, prop: object, *spent: float) -> object:
        if self.system.threads[0].name == "easy1":
            raise ZeroDivisionError("oops")
        return deciding(self, prop, *spent)  # type: ignore[arg-type]

    monkeypatch.setattr(decide.Session, "decide", broken)
    (work / "x.mmu").write_text(spec(3, 0))
    assert main(["check", "x.mmu", "-j", "1"]) == 4
    out, err = capsys.readouterr()
    assert "2 proved" in out
    assert "internal error: ZeroDivisionError: oops" in out
    assert "Traceback" not in err


# ---- disk


def limited_run(limit: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The tool, allowed to write no file longer than the limit."""

    def allow_little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-B", "-m", "mmucheck", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=allow_little)


def test_disk_full_while_writing_the_report(work: Path) -> None:
    """Nothing of the old report is lost, nothing of the new one is left."""
    (work / "x.mmu").write_text(spec(2, 0))
    (work / "r.json").write_text("old\n")
    run = limited_run(500, "check", "x.mmu", "--no-cache", "--format", "json", "-o", "r.json")
    assert run.returncode == 2
    assert run.stderr.startswith("mmucheck: error: cannot write r.json: ")
    assert (work / "r.json").read_text() == "old\n"
    assert sorted(p.name for p in work.iterdir() if p.is_file()) == ["r.json", "x.mmu"]


def test_disk_full_while_keeping_verdicts(work: Path) -> None:
    """The verdicts are told all the same, and half an entry is not left behind."""
    (work / "x.mmu").write_text(spec(1, 0))
    run = limited_run(20, "check", "x.mmu")
    assert run.returncode == 0
    assert "1 of 1 as expected" in run.stdout
    assert "warning: the cache cannot be written" in run.stderr
    kept = [p for p in (work / "cache").rglob("*") if p.is_file() and p.suffix != ".tables"]
    assert kept == []


@pytest.mark.parametrize("kind", ["a file", "nowhere", "open to others"])
def test_cache_folder_that_cannot_be_used(kind: str, work: Path, capsys: pytest.CaptureFixture[str],
                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """A warning, and no cache. What others may write to is not unpickled."""
    (work / "x.mmu").write_text(spec(1, 0))
    place = work / "place"
    if kind == "a file":
        place.write_text("")
    elif kind == "nowhere":
        place = Path("/proc/nowhere")
    else:
        place.mkdir()
        place.chmod(0o777)
    monkeypatch.setenv("MMUCHECK_CACHE", str(place))
    assert main(["check", "x.mmu"]) == 0
    assert "warning: the cache folder cannot be used" in capsys.readouterr().err
    assert not place.is_dir() or not list(place.iterdir())


def test_cache_folder_is_the_users_own(work: Path) -> None:
    (work / "x.mmu").write_text(spec(1, 0))
    assert main(["check", "x.mmu"]) == 0
    assert (work / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None])
def test_corrupt_cache_entries(damage: bytes | None, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warned of, decided again, replaced. None: one byte of each is turned."""
    (work / "x.mmu").write_text(spec(1, 0))
    assert main(["check", "x.mmu"]) == 0
    first = [p.relative_to(work) for p in work.glob("cache/**/*.pickle")]
    for path in first:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data) if damage is None else damage)
    capsys.readouterr()
    assert main(["check", "x.mmu"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 1 as expected" in out
    assert "warning: a damaged cache entry is ignored" in err
    assert main(["check", "x.mmu"]) == 0
    assert "damaged" not in capsys.readouterr().err


# ---- files and streams


def test_unreadable_file(capsys: pytest.CaptureFixture[str], work: Path) -> None:
    assert main(["check", "/proc/self/mem"]) == 2
    assert "mmucheck: error: /proc/self/mem: " in capsys.readouterr().err


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_file_changed_during_the_run(change: str, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read at the start is what is decided."""
    (work / "x.mmu").write_text(spec(1, 0))
    deciding = common.decide

    def late(*arguments: object) -> object:
        (work / "x.mmu").unlink() if change == "removed" else (work / "x.mmu").write_text("nonsense")
        return deciding(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(common, "decide", late)
    assert main(["check", "x.mmu", "--no-cache"]) == 0
    assert "1 of 1 as expected" in capsys.readouterr().out
    monkeypatch.setattr(common, "decide", deciding)
    assert main(["check", "x.mmu"]) == 2


def test_file_that_goes_before_its_diagnostic_is_shown(work: Path, capsys: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (work / "x.mmu").write_text(one("path p(a: page) { clear_pt(a); }"))
    loading = inputs.load_files

    def late(*arguments: object) -> object:
        try:
            return loading(*arguments)  # type: ignore[arg-type]
        finally:
            (work / "x.mmu").unlink()

    monkeypatch.setattr(inputs, "load_files", late)
    assert main(["check", "x.mmu"]) == 2
    assert "`clear_pt` is not defined" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed: str, work: Path) -> None:
    """Who closes them wants only the code."""
    (work / "x.mmu").write_text(spec(1, 0))
    run = subprocess.run(["bash", "-c", f"{sys.executable} -m mmucheck check x.mmu {closed}"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


# ---- size and limits


def test_two_thousand_checks(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = "".join(EASY.format(f"p{i}") for i in range(40))
    checks = "".join(f"    check c{i}: p{i % 40} on cpu under v3_17 proves no_freed_page;\n" for i in range(2000))
    (work / "x.mmu").write_text(f"{HEAD}{paths}spec s {{\n{checks}}}\n")
    assert main(["check", "x.mmu", "-j", "1", "-q"]) == 0
    assert "2000 of 2000 as expected" in capsys.readouterr().out


@pytest.mark.parametrize("limit", [["--timeout", "0.001"], ["--rlimit", "1"], ["--rlimit", "50000"]])
def test_what_cannot_be_decided(limit: list[str], work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inconclusive with the reason, code 3; and not kept for the next run."""
    (work / "x.mmu").write_text(spec(0, 1))
    for _ in range(2):
        assert main(["check", "x.mmu", "--format", "json", *limit]) == 3
        (result,) = json.loads(capsys.readouterr().out)["results"]
        assert result["verdict"] == "inconclusive"
        assert any(word in result["reason"] for word in ("timeout", "limit"))


def test_what_cannot_be_decided_with_loops(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "x.mmu").write_text(
        "use <v3.17/all.mmu>;\nuse <devices/kvm.mmu>;\n"
        "spec s { check c: change_protection on kvm under v3_17 proves no_stale_write; }\n"
    )
    for limit in (["--timeout", "0.001"], ["--rlimit", "1"], ["--rlimit", "30000"]):
        assert main(["check", "x.mmu", "--format", "json", *limit]) == 3
        (result,) = json.loads(capsys.readouterr().out)["results"]
        assert result["verdict"] == "inconclusive"


def test_long_path_heeds_the_timeout(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Formulas are made before anything is asked: that is on the clock too."""
    (work / "x.mmu").write_text(one("path p(a: page) {" + "clear_pte(a);" * 4_000 + "}"))
    assert main(["check", "x.mmu", "--timeout", "0.2", "--no-cache"]) == 3
    assert "timeout, before anything was asked" in capsys.readouterr().out


# ---- hostile files

SECRET = "root:x:secret-of-another-file"


@pytest.mark.parametrize(
    "target",
    ['"../secret.mmu"', '"../../../../../../etc/passwd"', '"/etc/passwd"', '"link.mmu"', '"linked/secret.mmu"', "<../secret.mmu>",
     "<../../../../../etc/passwd.mmu>", "</etc/passwd.mmu>", '"sub/../../secret.mmu"'],
)  # fmt: skip
def test_use_stays_inside(target: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No path and no link leads out of the folder of the file being checked, or of the library; and nothing is told of what is there."""
    (work / "secret.mmu").write_text(SECRET)
    inside = work / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "link.mmu").symlink_to(work / "secret.mmu")
    (inside / "linked").symlink_to(work)
    (inside / "x.mmu").write_text(f"use {target};\n" + spec(1, 0))
    assert main(["check", "inside/x.mmu"]) == 2
    out, err = capsys.readouterr()
    assert "E103" in err
    assert "secret-of" not in out + err
    assert "root:" not in out + err


def test_a_folder_does_not_lead_elsewhere(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to a file outside, found by searching a folder, is refused: a diagnostic would show its lines."""
    (work / "secret").write_text(SECRET)
    (work / "specs").mkdir()
    (work / "specs" / "a.mmu").write_text(spec(1, 0))
    (work / "specs" / "b.mmu").symlink_to(work / "secret")
    assert main(["check", "specs"]) == 2
    out, err = capsys.readouterr()
    assert "leaves specs" in err
    assert "secret-of" not in out + err


def test_pipe_is_not_waited_for(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(work / "pipe.mmu")
    (work / "x.mmu").write_text('use "pipe.mmu";\n' + spec(1, 0))
    assert main(["check", "x.mmu"]) == 2
    assert "this is no regular file" in capsys.readouterr().err


def doubling(first: str, form: str, levels: int = 60) -> str:
    return first + "".join(form.format(i, i - 1) for i in range(1, levels))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (doubling("macro m0(a: page) { clear_pte(a); }\n", "macro m{0}(a: page) {{ m{1}(a); m{1}(a); }}\n", 30)
         + "path p(a: page) { m29(a); }", "E311"),
        (doubling("macro m0(a: page) { }\n", "macro m{0}(a: page) {{ m{1}(a); m{1}(a); }}\n", 30)
         + "path p(a: page) { m29(a); clear_pte(a); }", "E311"),
        (doubling("macro f0(a: address) = a + 1;\n", "macro f{0}(a: address) = f{1}(a) + f{1}(a);\n")
         + "path p(a: page) { assume(f59(a) == 7); clear_pte(a); }", "E311"),
        (doubling("macro m0(a: address) { assume(a == 7); }\n", "macro m{0}(a: address) {{ m{1}(a + a); }}\n", 35)
         + "path p(a: page) { m34(a); clear_pte(a); }", "E311"),
        ("const A = B;\nconst B = A;\npath p(a: page) { assume(a == A); clear_pte(a); }", "E310"),
        ("macro f(a: address) = g(a);\nmacro g(a: address) = f(a);\npath p(a: page) { assume(f(a) == 7); clear_pte(a); }", "E310"),
        ("path p(a: page) { assume(a == 0x10000000000000000); clear_pte(a); }", "E018"),
        ("path p(a: page) { assume(a == 18446744073709551616); clear_pte(a); }", "E018"),
        ("path p(a: page) { assume(a == 16777216T); clear_pte(a); }", "E018"),
        ("path p(a: page) { assume(a == " + "9" * 100_000 + "); clear_pte(a); }", "E018"),
        ("path p(a: page) { assume(a == " + "1 + " * 3_000 + "a); clear_pte(a); }", "E004"),
        ("path p(a: page) { assume(" + "!" * 3_000 + "(a == 1)); clear_pte(a); }", "E004"),
        ("path p(a: page) { " + "if (nondet()) { clear_pte(a); } else " * 3_000 + "{ clear_pte(a); } }", "E004"),
        ("/// \x1b]0;owned\x07\npath p(a: page) { clear_pte(a); }", "E017"),
        ("path p(a: page) { clear_pte(a); } // \u202e reversed", "E017"),
    ],
)  # fmt: skip
def test_hostile_text(body: str, said: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused in words, code 2, whatever it would grow to; no character of it moves the cursor."""
    (work / "x.mmu").write_text(one(body))
    assert main(["check", "x.mmu", "--no-cache"]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert not {"\x1b", "\x07", "\u202e"} & set(err)


@pytest.mark.parametrize(
    "body",
    [
        doubling("const C0 = 1;\n", "const C{0} = C{1} + C{1};\n") + "path p(a: page) { assume(a != C59); clear_pte(a); }",
        "path p(a: page) { assume(a != 0xffffffffffffffff && a != 18446744073709551615 && a != 16777215T); clear_pte(a); }",
        "path p(a: page) { assume(a != " + "1 + " * 100 + "0); clear_pte(a); }",
    ],
)
def test_large_but_harmless(body: str, work: Path) -> None:
    (work / "x.mmu").write_text(one(body))
    assert main(["check", "x.mmu", "--no-cache"]) == 0


def test_signals_are_let_go_of(work: Path) -> None:
    """After a run in this process its handlers are as they were, and none of its threads is left."""
    (work / "x.mmu").write_text(spec(1, 0))
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    threads = threading.active_count()
    assert main(["check", "x.mmu"]) == 0
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert threading.active_count() == threads
