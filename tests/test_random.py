"""Random programs: the prover and the explicit-state oracle must agree on them.

``python tests/test_random.py --count 500 --seed 1`` compares that many and prints what came out. A disagreement is made as small as
hypothesis can make it and kept in ``tests/disagreements/``, where it is compared again by every run of the tests.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from mmucheck.analyses.plan import EXPECTED, Builder, obligations
from mmucheck.engines.decide import Session
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import InternalError
from mmucheck.names.declarations import check
from mmucheck.names.loading import load
from mmucheck.replay.explore import Violation

sys.path.insert(0, str(Path(__file__).resolve().parent))
from oracle.search import Oracle
from oracle.state import OracleError
from random_programs import programs
from test_mutants import MUTANTS, mutated

KEPT = Path(__file__).resolve().parent / "disagreements"
LIMITS = Limits(timeout=8)
ENOUGH = Limits(timeout=300)
"""For programs of which the verdict is known."""
CAP = 30_000
"""States without caches beyond which the oracle gives up on a program."""
EXAMPLES = 45
"""Programs in a run of the tests."""
SLOW = 60
"""Seconds after which a campaign mentions a program."""
BREAKS = {"proved": False, "vacuous": False, "refuted": True}


@dataclass
class Comparison:
    """``verdicts`` of the prover; ``broken``: what the oracle found broken, ``elsewhere``: of that, what it found only on the pages of
    the prover's run; ``wrong``: where the two contradict each other."""

    verdicts: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    wrong: dict[str, str] = field(default_factory=dict)
    unanswered: str = ""
    prover_seconds: float = 0.0
    oracle_seconds: float = 0.0


def compare(path: Path, limits: Limits = LIMITS) -> Comparison:
    """Both answers for the first check of a file. Raises InputError if it is not well formed."""
    library = load([path])
    check(library)
    wanted = obligations(library, library.specs.values())
    builder, names = Builder(library), [o.property for o in wanted if o.subject == wanted[0].subject]
    system = builder.system(wanted[0].subject)
    properties = builder.properties(wanted[0].subject, names)
    found, started = Comparison(), time.perf_counter()
    session = Session(system, properties, limits)
    runs: dict[str, Violation] = {}
    for prop in properties:
        try:
            decision = session.decide(prop)
            found.verdicts[prop.name] = decision.verdict
            if decision.violation is not None:
                runs[prop.name] = decision.violation
        except InternalError as error:
            found.verdicts[prop.name] = "internal error"
            found.wrong[prop.name] = str(error).split(" from Scenario")[0]
    found.prover_seconds = time.perf_counter() - started
    started = time.perf_counter()
    oracle = Oracle(system, properties, CAP)
    try:
        found.broken = set(oracle.run())
        for name in sorted(runs.keys() - found.broken):
            prop = next(p for p in properties if p.name == name)
            if Oracle(system, [prop], CAP).run(worlds_of(runs[name])):
                found.broken.add(name)
                found.elsewhere.add(name)
    except OracleError as error:
        found.unanswered = str(error)
        found.broken = set(oracle.broken)
    found.oracle_seconds = time.perf_counter() - started
    for name, verdict in found.verdicts.items():
        breaks = BREAKS.get(verdict)
        if (breaks is False and name in found.broken) or (breaks and name not in found.broken and not found.unanswered):
            found.wrong[name] = f"{verdict}, but the oracle finds {'a violation' if name in found.broken else 'none'}"
    return found


def worlds_of(run: Violation) -> list[tuple[int, int]]:
    """Pairs of pages of a replayed run: the one the property is asked at with every other, and with the first of every other region."""
    home = run.scenario.page_of(run.scenario.witness)
    regions = {key for key, _ in run.scenario.regions} - {run.scenario.region_of(home)}
    others = (regions | {key for key, _ in run.scenario.pages}) - {home} or {home + 4096}
    return [(min(home, other), max(home, other)) for other in sorted(others)]


def compare_text(text: str) -> Comparison:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.mmu"
        path.write_text(text)
        return compare(path)


def keep(text: str, found: Comparison) -> Path:
    """The text of a disagreement as a file of its own, which states what the oracle says."""
    names = {"refutes": [p for p in found.verdicts if p in found.broken], "proves": [p for p in found.verdicts if p not in found.broken]}
    stated = " ".join(f"{verb} {', '.join(props)}" for verb, props in names.items() if props)
    text = re.sub(r" proves [^;]*; }\n$", f" {stated}; }}\n", text)
    path = KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.mmu"
    KEPT.mkdir(exist_ok=True)
    path.write_text("".join(f"// {name}: {what}\n" for name, what in found.wrong.items()) + text)
    return path


@dataclass
class Tally:
    """What a campaign has seen."""

    programs: int = 0
    compared: int = 0
    elsewhere: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    prover_seconds: float = 0.0
    oracle_seconds: float = 0.0

    def add(self, found: Comparison) -> None:
        self.programs += 1
        self.compared += not found.unanswered
        self.verdicts.update(found.verdicts.values())
        self.elsewhere += len(found.elsewhere)
        self.unanswered.update([found.unanswered.split(" at ")[0]] if found.unanswered else [])
        self.prover_seconds += found.prover_seconds
        self.oracle_seconds += found.oracle_seconds

    def show(self, say: Callable[[str], None] = print) -> None:
        total = max(1, sum(self.verdicts.values()))
        say(f"{self.compared} programs compared, {total} verdicts")
        for verdict, count in self.verdicts.most_common():
            say(f"  {verdict:16} {count:6}  {100 * count / total:5.1f} %")
        say(f"  {self.elsewhere} of the refutations needed other pages than the oracle's usual two")
        for reason, count in self.unanswered.most_common():
            say(f"  not compared     {count:6}  {reason}")
        say(f"prover {self.prover_seconds:.0f} s, oracle {self.oracle_seconds:.0f} s")


class Disagreement(AssertionError):
    """Raised for hypothesis to shrink the program."""


def campaign(count: int, number: int | None, each: Callable[[str, Comparison], None], shrink: bool = True) -> Path | None:
    """Compare that many programs, always the same ones for the same seed (None: those of the tests). Stops at a disagreement, shrinks
    and keeps it; or, without ``shrink``, keeps every one as it comes and goes on."""
    last: list[tuple[str, Comparison]] = []

    def one(text: str) -> None:
        found = compare_text(text)
        each(text, found)
        if found.wrong:
            last.append((text, found))
            if shrink:
                raise Disagreement(found.wrong)
            keep(text, found)

    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    test = settings(max_examples=count, derandomize=number is None, deadline=None, database=None, phases=phases, print_blob=False,
                    report_multiple_bugs=False, suppress_health_check=list(HealthCheck))(given(programs())(one))  # fmt: skip
    try:
        (test if number is None else seed(number)(test))()
    except Disagreement:
        return keep(*last[-1])
    return keep(*last[-1]) if last else None


def test_prover_and_oracle_agree_on_random_programs() -> None:
    tally = Tally()
    kept = campaign(EXAMPLES, None, lambda text, found: tally.add(found))
    assert kept is None, f"kept as {kept}:\n{kept.read_text()}"
    shares = {v: n / sum(tally.verdicts.values()) for v, n in tally.verdicts.items()}
    assert tally.compared > 0.7 * EXAMPLES
    assert shares["proved"] > 0.2, "too few programs are right to tell anything of proofs"
    assert shares["refuted"] > 0.2, "too few programs are wrong to tell anything of refutations"


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.mmu")), ids=lambda p: p.stem)
def test_former_disagreement(path: Path) -> None:
    found = compare(path, ENOUGH)
    assert not found.wrong
    assert not found.unanswered
    library = load([path])
    stated = {p.name: v.verdict for c in library.specs["random"].checks for v in c.verdicts for p in v.properties}
    assert found.broken == {p for p, v in stated.items() if v == "refutes"}
    assert all(found.verdicts[p] in (EXPECTED[v], "bounded") for p, v in stated.items())


BROKEN = {name: MUTANTS[name] for name in ("clear_pte does nothing", "handlers never run")}


@pytest.mark.parametrize("mutant", BROKEN)
def test_random_programs_notice_a_broken_machine(mutant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules[__name__], "KEPT", tmp_path)
    with mutated(*BROKEN[mutant]), pytest.raises(Disagreement):
        first_disagreement(EXAMPLES)


def first_disagreement(count: int) -> None:
    """Raises Disagreement for the first of the tests' programs on which there is one."""
    noticed: list[Disagreement] = []

    def one(text: str) -> None:
        if not noticed and (found := compare_text(text)).wrong:
            noticed.append(Disagreement(found.wrong))

    settings(max_examples=count, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
             suppress_health_check=list(HealthCheck))(given(programs())(one))()  # fmt: skip
    if noticed:
        raise noticed[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare prover and oracle on random programs.")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-shrink", action="store_true", help="keep disagreements as they come and go on")
    parser.add_argument("--mutants", action="store_true", help="which random programs notice a broken machine")
    wanted = parser.parse_args()
    if wanted.mutants:
        return show_mutants(wanted.count)
    tally, started, bad = Tally(), time.perf_counter(), 0

    def each(text: str, found: Comparison) -> None:
        nonlocal bad
        tally.add(found)
        if tally.programs % 50 == 0:
            print(f"{tally.programs} programs, {time.perf_counter() - started:.0f} s", flush=True)
        if found.prover_seconds + found.oracle_seconds > SLOW:
            print(f"slow: prover {found.prover_seconds:.0f} s, oracle {found.oracle_seconds:.0f} s", flush=True)
        if found.wrong:
            bad += 1
            print(f"disagreement {bad}: {found.wrong}", flush=True)

    kept = campaign(wanted.count, wanted.seed, each, not wanted.no_shrink)
    tally.show()
    print(f"{time.perf_counter() - started:.0f} s in all; {bad} disagreements{f', the last kept as {kept.name}' if kept else ''}")
    return 1 if bad else 0


def show_mutants(count: int) -> int:
    for name, mutation in MUTANTS.items():
        with mutated(*mutation):
            try:
                first_disagreement(count)
                print(f"{name:36} SURVIVES {count} programs", flush=True)
            except Disagreement as found:
                print(f"{name:36} {str(found)[:90]}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
