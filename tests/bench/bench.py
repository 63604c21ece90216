"""Where the time goes, as ratios in one run. No test asserts any of this.

    python tests/bench/bench.py            start-up ratios, one check, and all of specs/ split into phases
    python tests/bench/bench.py --quick    without all of specs/
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
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


def phases() -> None:
    """All of specs/ in this process: parse, lower, solve, replay."""
    os.environ["MMUCHECK_CACHE"] = ""
    os.chdir(ROOT)
    from mmucheck.analyses.plan import Builder, obligations
    from mmucheck.analyses.run import run
    from mmucheck.analyses.subjects import subjects
    from mmucheck.engines import decide, induction, solver
    from mmucheck.engines.solver import Limits
    from mmucheck.names.declarations import check
    from mmucheck.names.loading import load

    spent: dict[str, float] = {}

    def timed(phase: str, owner: object, name: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: object, **kwargs: object) -> object:
            started = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent[phase] = spent.get(phase, 0.0) + time.perf_counter() - started

        setattr(owner, name, outer)

    started = time.perf_counter()
    library = load(sorted((ROOT / "specs").rglob("*.mmu")))
    check(library)
    spent["parse and check"] = time.perf_counter() - started
    timed("solve (z3)", solver.Solver, "check")
    timed("search for invariants (SAT)", induction.Search, "satisfiable")
    timed("replay", decide, "search")
    timed("simplest start", decide, "simplest_model")
    wanted = obligations(library, library.specs.values())
    builder = Builder(library)
    before = time.perf_counter()
    for subject in subjects(wanted):
        builder.system(subject)
    spent["expand"] = time.perf_counter() - before
    before = time.perf_counter()
    results = run(builder, wanted, Limits(timeout=120))
    total = time.perf_counter() - before
    spent["lower and the rest"] = total - sum(v for k, v in spent.items() if k not in ("parse and check", "expand"))
    print(f"\nspecs/: {len(results)} verdicts on {len(subjects(wanted))} subjects, {total:.1f} s in one process")
    for phase, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {phase:32} {seconds:8.2f} s  {100 * seconds / (total + spent['parse and check']):5.1f} %")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true")
    startup()
    if not arguments.parse_args().quick:
        phases()
