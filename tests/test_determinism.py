"""The same input gives the same bytes; a limit of resources gives the same verdict whatever the load; other seeds give the same verdict."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from mmucheck.analyses import run as running
from mmucheck.analyses.plan import Builder
from mmucheck.analyses.run import Result, run
from mmucheck.analyses.seeds import compared, moved
from mmucheck.analyses.subjects import Obligation, Subject
from mmucheck.cli import common, inputs
from mmucheck.cli.main import main
from mmucheck.engines.decide import decide
from mmucheck.engines.search import Budget, Search
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import Decision, OutOfBudget
from mmucheck.machine.domain import BOOL
from mmucheck.machine.terms import Terms

ROOT = Path(__file__).parent.parent
LOOP = """use <v3.17/all.mmu>;
use <devices/ats.mmu>;
use <devices/cpu.mmu>;
spec loops { check a: change_protection on cpu under v3_17 proves no_stale_write, no_freed_page; }
"""
STRAIGHT = """use <v3.17/all.mmu>;
use <devices/ats.mmu>;
spec straight {
    check b: do_wp_page on ats before roedel_2014 refutes no_stale_translation, no_freed_page;
    check c: do_wp_page on ats after roedel_2014 proves no_freed_page;
}
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a spec that needs an invariant and one that is refuted, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMUCHECK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "loops.mmu").write_text(LOOP)
    (tmp_path / "straight.mmu").write_text(STRAIGHT)
    return tmp_path


def printed(seed: str, *arguments: str) -> str:
    """What a process of its own prints, times left out."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mmucheck", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return re.sub(r" *[0-9]+\.[0-9]+s\b", " _s", re.sub(r'"seconds": [0-9.]+', '"seconds": 0', done.stdout))


def test_same_bytes(work: Path) -> None:
    """Whatever the hash seed, the number of processes, the order of files, and whether the cache is off, empty or full. Results come in
    the order of the files' names and then of their text, however the files are named on the command line."""
    files, turned = ("loops.mmu", "straight.mmu"), ("straight.mmu", "loops.mmu")
    as_json = ("--format", "json")
    reports = [
        printed("1", "check", *files, *as_json, "-j", "1", "--no-cache"),
        printed("2", "check", *turned, *as_json, "-j", "2"),
        printed("3", "check", ".", *as_json),
    ]
    assert [r["spec"] for r in json.loads(reports[0])["results"]] == [
        "loops", "loops", "straight", "straight", "straight",
    ]  # fmt: skip
    assert "invariant" in reports[0]
    assert "trace" in reports[0]
    assert len(set(reports)) == 1
    texts = {printed(s, "check", *f, "-v") for s, f in (("4", files), ("5", turned))}
    assert len(texts) == 1


def obligations_of(file: str) -> tuple[Builder, list[Obligation]]:
    parsed = inputs.parse_target(file)
    library = inputs.load_files(inputs.files_of(parsed))
    return Builder(library), inputs.select(library, [parsed])


def found(results: list[Result]) -> list[tuple[str, str, str]]:
    """What was found, and of an undecided one why."""
    return [(r.obligation.property, r.decision.verdict, r.decision.reason) for r in results if r.decision is not None]


@pytest.mark.parametrize("rlimit", [20_000, 300_000, 20_000_000])
def test_resource_limit_knows_no_clock(rlimit: int, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that runs a thousand seconds ahead at every look, as on a machine that does nothing else, the same is found; also by
    the search for an invariant. One limit is too small, one is large enough."""
    systems, wanted = obligations_of("loops.mmu")
    usual = found(run(systems, wanted, Limits(rlimit=rlimit)))
    clock = count(0, 1000)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    assert found(run(systems, wanted, Limits(rlimit=rlimit))) == usual
    verdicts = {verdict for _, verdict, _ in usual}
    if rlimit == 20_000:
        assert verdicts == {"inconclusive"}
        assert {reason.split(",")[0] for _, _, reason in usual} == {"resource limit"}
    if rlimit == 20_000_000:
        assert verdicts == {"proved"}


def test_timeout_is_off_under_a_resource_limit() -> None:
    def settings(timeout: float | None, rlimit: int) -> common.Settings:
        plain = {"form": "text", "output": None, "no_cache": False, "strict": False, "verbose": False, "color": "auto"}
        unset = {"jobs": None, "memory": None, "confirm": None}
        return common.Settings(timeout=timeout, rlimit=rlimit, **plain, **unset)  # type: ignore[arg-type]

    assert settings(None, 1000).limits(1).timeout == 0
    assert settings(5.0, 1000).limits(1).timeout == 5
    assert settings(None, 0).limits(1).timeout == common.TIMEOUT


def test_resource_limit_forgets_what_was_solved_before(work: Path) -> None:
    """What one subject costs does not depend on what the process has decided before it."""
    systems, wanted = obligations_of("straight.mmu")
    subject = wanted[-1].subject
    system, properties = systems.system(subject), systems.properties(subject, [wanted[-1].property])

    def least() -> int:
        """The smallest limit under which it is decided."""
        low, high = 10_000, 1_280_000
        while high - low > 500:
            middle = (low + high) // 2
            (decision,) = decide(system, properties, Limits(rlimit=middle)).values()
            low, high = (low, middle) if decision.verdict == "proved" else (middle, high)
        return high

    before = least()
    run(systems, wanted[:2], Limits())
    assert least() == before


def test_resource_limit_and_the_cache(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A verdict found without a limit, or under another, is no answer to whether this one suffices."""
    assert main(["check", "straight.mmu::straight::c"]) == 0
    assert main(["check", "straight.mmu::straight::c", "--rlimit", "20000"]) == 3
    assert main(["check", "straight.mmu::straight::c", "--rlimit", "20000000"]) == 0
    assert main(["check", "straight.mmu::straight::c", "--rlimit", "20000"]) == 3
    capsys.readouterr()


# ---- the search


def pigeons(seed: int = 0) -> Search:
    """Seven pigeons in six holes: no way, and a while until that is known."""
    terms = Terms()
    sits = [[terms.var(f"p{p}h{h}", BOOL) for h in range(6)] for p in range(7)]
    alone = [terms.not_(terms.and_(sits[p][h], sits[q][h])) for h in range(6) for p in range(7) for q in range(p)]
    return Search([*(terms.or_(*row) for row in sits), *alone], (), seed)


def test_search_heeds_its_budget() -> None:
    assert not pigeons().satisfiable([], Budget())
    with pytest.raises(OutOfBudget, match="resource limit"):
        pigeons().satisfiable([], Budget(propagations=50))
    with pytest.raises(OutOfBudget, match="timeout"):
        pigeons().satisfiable([], Budget(seconds=1e-9))


def test_search_counts_the_same_each_time() -> None:
    spent = []
    for _ in range(2):
        budget = Budget(propagations=10**9)
        pigeons().satisfiable([], budget)
        spent.append(budget.left)
    assert len(set(spent)) == 1


def test_seeds_change_the_order_of_search() -> None:
    spent = []
    for seed in (0, 1, 2, 3):
        budget = Budget(propagations=10**9)
        assert not pigeons(seed).satisfiable([], budget)
        spent.append(budget.left)
    assert len(set(spent)) > 1


# ---- seeds


def test_no_verdict_moves(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "straight.mmu", "--seeds", "2", "-j", "1"]) == 0
    assert capsys.readouterr().out.endswith("2 other seeds: no verdict moved\n")
    assert main(["matrix", "--path", "do_wp_page", "--device", "cpu", "--seeds", "1"]) == 0
    assert capsys.readouterr().out.endswith("1 other seed: no verdict moved\n")


def result(verdict: str, reason: str = "") -> Result:
    obligation = Obligation(Subject((("p", ""),), ("d",), "v"), "q", "proved")
    return Result(obligation, Decision(verdict, "by hand", reason), "everything")


@pytest.mark.parametrize(
    ("verdicts", "code", "verdict"),
    [
        (["proved", "proved", "proved"], 0, "proved"),
        (["proved", "proved", "refuted"], 4, None),
        (["refuted", "proved"], 4, None),
        (["proved", "vacuous"], 4, None),
        (["proved", "inconclusive", "refuted"], 4, None),
        (["proved", "inconclusive"], 3, "inconclusive"),
        (["inconclusive", "proved"], 3, "inconclusive"),
        (["proved", "bounded"], 3, "bounded"),
        (["bounded", "inconclusive"], 3, "inconclusive"),
    ],
)
def test_moved(verdicts: list[str], code: int, verdict: str | None) -> None:
    """Decided one way and another: the tool is wrong. Decided once: the weaker is what can be relied on."""
    first, *again = ([result(v)] for v in verdicts)
    (out,) = compared(first, again)
    assert common.code_of(out) == code
    assert (out.decision.verdict if out.decision is not None else None) == verdict
    assert moved(out) == (len(set(verdicts)) > 1)
    if moved(out):
        said = out.error or (out.decision.reason if out.decision else "")
        assert all(v in said for v in verdicts)


def test_a_moving_verdict_is_reported(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    deciding = running.run

    def fickle(systems: Builder, wanted: list[Obligation], limits: Limits, *rest: object) -> list[Result]:
        if not limits.seed:
            return deciding(systems, wanted, limits, *rest)  # type: ignore[arg-type]
        verdict = "refuted" if limits.seed == 2 else "proved"
        return [Result(o, Decision(verdict, "by hand"), "everything") for o in wanted]

    monkeypatch.setattr(running, "run", fickle)
    assert main(["check", "straight.mmu::straight::c", "--seeds", "2"]) == 4
    out = capsys.readouterr().out
    assert "the verdict moves: proved with seeds 0 1, refuted with seed 2" in out
    assert out.endswith("2 other seeds: 1 verdict moved\n")


def test_vacuity_that_is_not_decided_is_not_proved(work: Path) -> None:
    """A proof of which it is not known whether it says anything is no proof yet."""
    (work / "x.mmu").write_text(
        "use <protocols/v3_17.mmu>;\nuse <properties.mmu>;\nuse <devices/cpu.mmu>;\n"
        "path p(q: page, a: address, b: address) {\n    let x = (a ^ (a >> 31)) * b;\n    let y = (x ^ (x >> 33)) * a;\n"
        "    assume((x ^ (y >> 17)) * y == 0x123456789abcdef1 && y * a == 0xfedcba9876543211);\n    clear_pte(q);\n}\n"
        "spec s { check c: p on cpu under v3_17 proves no_freed_page; }\n"
    )
    systems, wanted = obligations_of("x.mmu")
    ((_, verdict, reason),) = found(run(systems, wanted, Limits(rlimit=50_000)))
    assert verdict == "inconclusive"
    assert "whether the property says anything" in reason
