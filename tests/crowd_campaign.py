"""Random crowds: the thread-modular engine and the explicit-state oracle must not contradict each other.

``python tests/crowd_campaign.py --count 100 --seed 1`` compares that many and prints what came out; a disagreement is kept in
``tests/disagreements/crowd/``, where tests/test_crowd.py compares it again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from mmucheck.analyses.plan import Builder, obligations
from mmucheck.engines.cells import Exhausted
from mmucheck.engines.pairs import PairSession
from mmucheck.engines.solver import Limits
from mmucheck.engines.threads import CrowdSession
from mmucheck.engines.verdicts import PROVED, REFUTED
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.names.declarations import check
from mmucheck.names.loading import load
from mmucheck.syntax.diagnostics import InputError

sys.path.insert(0, str(Path(__file__).resolve().parent))
from oracle.search import Oracle
from oracle.state import OracleError
from random_crowds import crowds

KEPT = Path(__file__).resolve().parent / "disagreements" / "crowd"
LIMITS = Limits(timeout=25, thorough=False)
CAP = 5_000


@dataclass
class Compared:
    """``verdicts`` and ``reasons`` of the engine; ``broken``: what the oracle found; ``unanswered``: why it did not look at all of it."""

    verdicts: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    unanswered: str = ""
    engine_seconds: float = 0.0
    oracle_seconds: float = 0.0

    @property
    def holes(self) -> list[str]:
        """Proved, and broken."""
        return [p for p, v in self.verdicts.items() if v in (PROVED, "vacuous") and p in self.broken]


def system_of(path: Path) -> tuple[System, list[PropertyDecl]]:
    """The first check of a file. Raises InputError if it is not well formed."""
    library = load([path])
    check(library)
    wanted = obligations(library, library.specs.values())
    builder, names = Builder(library), [o.property for o in wanted if o.subject == wanted[0].subject]
    return builder.system(wanted[0].subject), builder.properties(wanted[0].subject, names)


def compare(path: Path, limits: Limits = LIMITS, cap: int = CAP, widest: int = 2, only_if_broken: bool = False) -> Compared:
    """Both answers for the first check of a file. ``only_if_broken``: the engine is asked only if it could be wrong."""
    system, properties = system_of(path)
    found, started = Compared(), time.process_time()
    oracle = Oracle(system, properties, cap, widest=widest)
    try:
        oracle.run()
    except OracleError as error:
        found.unanswered = str(error).split(" at ")[0]
    found.broken = set(oracle.broken)
    found.oracle_seconds = time.process_time() - started
    if only_if_broken and not found.broken:
        return found
    started = time.process_time()
    session = CrowdSession(system, properties, limits)
    for prop in properties:
        decision = session.decide(prop)
        found.verdicts[prop.name], found.reasons[prop.name] = decision.verdict, decision.reason
    found.engine_seconds = time.process_time() - started
    return found


def compare_with_pairs(path: Path, limits: Limits = LIMITS) -> Compared:
    """As ``compare``, with two paths of the crowd run once side by side in the place of the oracle."""
    system, properties = system_of(path)
    found, session = Compared(), CrowdSession(system, properties, limits)
    for prop in properties:
        decision = session.decide(prop)
        found.verdicts[prop.name], found.reasons[prop.name] = decision.verdict, decision.reason
        for one, other in combinations_with_replacement(system.threads, 2) if decision.verdict == PROVED else ():
            pair = PairSession(replace(system, threads=(one, other), crowd=False), [prop], limits)
            verdict = pair.decide(prop).verdict
            if verdict == REFUTED:
                found.broken.add(prop.name)
            elif verdict not in (PROVED, "vacuous"):
                found.unanswered = f"pair {verdict}"
    return found


def compare_text(text: str, only_if_broken: bool = False, pairs: bool = False) -> Compared:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.mmu"
        path.write_text(text)
        return compare_with_pairs(path) if pairs else compare(path, only_if_broken=only_if_broken)


def campaign(count: int, number: int | None, each: Callable[[str], None], careful: int = 88) -> None:
    """Always the same texts for the same seed (None: those of the tests)."""
    test = settings(max_examples=count, derandomize=number is None, deadline=None, database=None, phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck))(given(crowds(careful))(each))  # fmt: skip
    (test if number is None else seeded(number)(test))()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the thread-modular engine and the oracle on random crowds.")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="no new program after that")
    parser.add_argument("--careful", type=int, default=88, help="percentage of what is needed that is there")
    parser.add_argument("--sample", type=int, default=4, help="ask the engine about one in so many programs that the oracle found right")
    parser.add_argument("--pairs", action="store_true", help="compare with two paths run once side by side, not with the oracle")
    wanted = parser.parse_args()
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    started, seen, holes, right = time.monotonic(), 0, 0, 0
    seconds = [0.0, 0.0]

    def each(text: str) -> None:
        nonlocal seen, holes, right
        if time.monotonic() - started > wanted.seconds:
            return
        seen += 1
        try:
            right += 1
            found = compare_text(text, only_if_broken=bool(right % wanted.sample), pairs=wanted.pairs)
        except InputError as error:
            outcomes[f"not well formed {error.diagnostics[0].code}"] += 1
            return
        except (Exhausted, AssertionError, KeyError, ValueError, IndexError) as error:
            outcomes[f"error {error!r}"[:60]] += 1
            (Path(tempfile.gettempdir()) / "crowd_errors.txt").open("a").write(text + "\n====\n")
            return
        seconds[0] += found.engine_seconds
        seconds[1] += found.oracle_seconds
        outcomes["oracle gave up"] += bool(found.unanswered)
        for name in {*found.verdicts, *found.broken}:
            oracle = "broken" if name in found.broken else "unanswered" if found.unanswered else "holds"
            outcomes[f"engine {found.verdicts[name]}, oracle {oracle}"] += 1
            if found.verdicts[name] not in (PROVED, "vacuous") and oracle != "broken":
                reasons[f"{oracle}: {found.reasons[name][:70]}"] += 1
        if found.holes:
            holes += 1
            KEPT.mkdir(parents=True, exist_ok=True)
            kept = KEPT / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.mmu"
            kept.write_text(f"// proved, but the oracle breaks {', '.join(found.holes)}\n" + text)
            print(f"HOLE {kept.name}: {found.holes}", flush=True)
        if seen % 20 == 0:
            print(f"{seen} programs, {time.monotonic() - started:.0f} s, {dict(outcomes)}", flush=True)

    campaign(wanted.count, wanted.seed, each, wanted.careful)
    print(f"{seen} programs, {holes} holes, engine {seconds[0]:.0f} s, oracle {seconds[1]:.0f} s")
    for what, count in [*outcomes.most_common(), *reasons.most_common(25)]:
        print(f"  {count:5} {what}")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
