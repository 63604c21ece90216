"""Where the time goes, as ratios in one run. No test asserts any of this.

    python tests/bench/bench.py            start-up ratios, one check, and all of specs/ split into phases
    python tests/bench/bench.py --quick    without all of specs/
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONE = "specs/cow.mmu::cow::after"


def wall(command: list[str], times: int, env: dict[str, str] | None = None) -> float:
    """Median wall time of a command in seconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def startup() -> None:
    python = [sys.executable]
    tool = [str(Path(sys.executable).with_name("mmucheck"))]
    bare = {**os.environ, "MMUCHECK_CACHE": ""}
    floor = wall([*python, "-c", "import z3; z3.Solver().check()"], 9)
    click = wall([*python, "-c", "import click"], 9)
    rows = [
        ("import z3 and one trivial check", floor, "1.0"),
        (f"check {ONE}, nothing cached", wall([*tool, "check", ONE, "-j", "1"], 5, bare), ""),
        (f"check {ONE} --no-cache, models parsed before", wall([*tool, "check", ONE, "-j", "1", "--no-cache"], 5), ""),
        (f"check {ONE}, nothing changed", wall([*tool, "check", ONE, "-j", "1"], 5), ""),
    ]
    for name, seconds, _ in rows:
        print(f"{name:64} {seconds:7.3f} s  {seconds / floor:6.1f} x z3")
    helped = wall([*tool, "--help"], 9)
    print(f"{'mmucheck --help':64} {helped:7.3f} s  {helped / click:6.1f} x import click")


def phases() -> None:
    """All of specs/ in this process: parse, lower, solve, replay."""
    os.environ["MMUCHECK_CACHE"] = ""
    os.chdir(ROOT)
    from mmucheck.analyses.plan import Builder, obligations, subjects
    from mmucheck.analyses.run import run
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
    results = run(library, wanted, Limits(timeout=120))
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
