"""Where the time goes, as ratios in one run. No test asserts any of this.

    python tests/bench/bench.py               start-up ratios, one check, and all of specs/ split into phases
    python tests/bench/bench.py --quick       without all of specs/
    python tests/bench/bench.py --matrix      matrix --all, cold and again (--folder DIR: may be interrupted and continued)
    python tests/bench/bench.py --every 100   one in a hundred subjects of matrix --all split into phases
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONE = "specs/cow.mmu::cow::after"


ROUNDS = 9
"""Of which the fastest counts: whatever else the machine does only adds."""


def wall(command: list[str], env: dict[str, str] | None = None) -> float:
    """Wall time of a command in seconds."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    return time.perf_counter() - started


def startup() -> None:
    python = [sys.executable]
    tool = [str(Path(sys.executable).with_name("mmucheck"))]
    with tempfile.TemporaryDirectory() as folder:
        kept = {**os.environ, "MMUCHECK_CACHE": folder}
        check = [*tool, "check", ONE, "-j", "1"]
        commands: dict[str, tuple[list[str], dict[str, str] | None]] = {
            "import z3 and one trivial check": ([*python, "-c", "import z3; z3.Solver().check()"], None),
            f"check {ONE}, nothing known at all": (check, {**os.environ, "MMUCHECK_CACHE": ""}),
            f"check {ONE}, cold: models parsed before": (check, kept),
            f"check {ONE}, nothing changed": (check, kept),
            "import click": ([*python, "-c", "import click"], None),
            "mmucheck --help": ([*tool, "--help"], None),
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name, (command, env) in commands.items():
                if "cold" in name:
                    for verdicts in ("verdicts", "runs"):
                        shutil.rmtree(Path(folder) / verdicts, ignore_errors=True)
                seconds = wall(command, env)
                if turn:  # the first round writes what the others find
                    taken[name].append(seconds)
    best = {name: min(times) for name, times in taken.items()}
    for name in list(commands)[:4]:
        print(f"{name:64} {best[name]:7.3f} s  {best[name] / best['import z3 and one trivial check']:6.1f} x z3")
    print(f"{'mmucheck --help':64} {best['mmucheck --help']:7.3f} s  {best['mmucheck --help'] / best['import click']:6.1f} x import click")


PHASES = (
    ("solve (z3)", "mmucheck.engines.solver", "Solver.check"),
    ("hand formulas to z3", "mmucheck.engines.solver", "Solver.__init__"),
    ("search for invariants (SAT)", "mmucheck.engines.search", "Search.satisfiable"),
    ("make clauses for that", "mmucheck.engines.search", "Search.__init__"),
    ("unroll", "mmucheck.lower.unroll", "Lowering.unroll"),
    ("cut at loops", "mmucheck.lower.cuts", "CutSystem.__init__"),
    ("replay", "mmucheck.replay.explore", "search"),
    ("known starts", "mmucheck.engines.known", "KnownStarts.also"),
    ("simplest start", "mmucheck.engines.concretise", "simplest_model"),
    ("expand", "mmucheck.analyses.plan", "Builder.system"),
    ("leave out names, digest", "mmucheck.analyses.subjects", "Nameless.form"),
)
"""What is timed, and where it is. What one calls of another is counted with the other."""


def timed(spent: dict[str, float]) -> None:
    """From now on the phases' processor time is added up in ``spent``."""
    for phase, module, name in PHASES:
        owner: object = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, _timed(getattr(owner, last), phase, spent))


def _timed(inner: Callable[..., object], phase: str, spent: dict[str, float]) -> Callable[..., object]:
    def outer(*args: object, **kwargs: object) -> object:
        started, within = time.process_time(), sum(spent.values())
        try:
            return inner(*args, **kwargs)
        finally:
            called = sum(spent.values()) - within
            spent[phase] = spent.get(phase, 0.0) + time.process_time() - started - called

    return outer


def phases(every: int) -> None:
    """Decide all of specs/ in this process, or one in ``every`` subjects of the survey: processor time by phase."""
    os.environ["MMUCHECK_CACHE"] = ""
    os.chdir(ROOT)
    from mmucheck.analyses.plan import Builder, obligations
    from mmucheck.analyses.run import run
    from mmucheck.analyses.subjects import subjects
    from mmucheck.analyses.survey import frames, questions
    from mmucheck.engines.solver import Limits
    from mmucheck.names.declarations import check
    from mmucheck.names.loading import load

    spent: dict[str, float] = {}
    timed(spent)
    started = time.process_time()
    library = load(sorted((ROOT / ("models" if every else "specs")).rglob("*.mmu")))
    check(library)
    spent["parse and check"] = time.process_time() - started
    builder = Builder(library)
    if every:
        asked, _ = questions(builder, frames(library), sorted(library.devices), tuple(library.properties))
        chosen = set(list(subjects(asked))[::every])
        wanted = [o for o in asked if o.subject in chosen]
        spent.pop("expand")
        builder = Builder(library)
    else:
        wanted = obligations(library, library.specs.values())
    before = time.process_time()
    results = run(builder, wanted, Limits(timeout=600), verdicts_only=bool(every), traces=False)
    total = time.process_time() - before + spent["parse and check"]
    spent["the rest"] = total - sum(spent.values())
    what = f"one in {every} subjects of matrix --all" if every else "specs/"
    print(f"\n{what}: {len(results)} verdicts on {len(subjects(wanted))} subjects, {total:.1f} s of processor time in one process")
    for phase, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {phase:32} {seconds:8.2f} s  {100 * seconds / total:5.1f} %")


def survey(place: str) -> None:
    """Everything against everything, from cold, and again with nothing changed; time and peak memory of the largest process.
    ``place``: a folder that stays, so that what was interrupted goes on (and is then not from cold), "" for one that does not."""
    with contextlib.nullcontext(Path(place).resolve()) if place else tempfile.TemporaryDirectory() as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mmucheck", "matrix", "--all", "--timeout", "120", "-o", str(Path(folder) / "matrix.txt")]
        for what in ("cold", "verdicts kept", "nothing changed"):
            if what == "verdicts kept":
                shutil.rmtree(Path(folder) / "cache" / "runs", ignore_errors=True)
            started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, "MMUCHECK_CACHE": f"{folder}/cache"}, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(f"matrix --all, {what}: {time.perf_counter() - started:.1f} s, {seconds:.1f} s of processor time, "
                  f"{after.ru_maxrss / 1024:.0f} MiB, exit {done.returncode}", flush=True)  # fmt: skip


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="only the start-up ratios")
    arguments.add_argument("--matrix", action="store_true", help="only matrix --all")
    arguments.add_argument("--folder", default="", metavar="DIR", help="with --matrix: keep the verdicts there, and go on from them")
    arguments.add_argument("--every", type=int, default=0, metavar="N", help="only the phases of one in N subjects of matrix --all")
    chosen = arguments.parse_args()
    if chosen.matrix:
        survey(chosen.folder)
    elif chosen.every:
        phases(chosen.every)
    else:
        startup()
        if not chosen.quick:
            phases(0)
