"""The same obligations again with other seeds of the solvers: a verdict that moves was luck, or the tool is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmucheck.analyses.run import Result
from mmucheck.engines.verdicts import BOUNDED, INCONCLUSIVE

_MOVES = "the verdict moves: "


def moved(result: Result) -> bool:
    """Whether ``compared`` found it to."""
    return (result.error or (result.decision.reason if result.decision else "")).startswith(_MOVES)


def compared(first: Sequence[Result], again: Sequence[Sequence[Result]]) -> list[Result]:
    """The first results, changed where another seed found something else: an error (so: no verdict) if two seeds decide differently,
    the weaker verdict if one seed does not decide. ``again``: for seed 1, 2, ... the results of the same obligations in the same order."""
    return [_compared(result, [other[i] for other in again]) for i, result in enumerate(first)]


def _compared(result: Result, others: Sequence[Result]) -> Result:
    if result.error or result.decision is None:
        return result
    seeds: dict[str, list[int]] = {result.decision.verdict: [0]}
    weakest = result
    for seed, other in enumerate(others, 1):
        if other.error or other.decision is None:
            return replace(other, error=f"with seed {seed}: {other.error}")
        seeds.setdefault(other.decision.verdict, []).append(seed)
        if _rank(other) < _rank(weakest):
            weakest = other
    if len(seeds) == 1:
        return result
    said = ", ".join(f"{verdict} with seed{'s' * (len(which) > 1)} {' '.join(map(str, which))}" for verdict, which in seeds.items())
    if len([v for v in seeds if v not in (BOUNDED, INCONCLUSIVE)]) > 1:
        return replace(result, decision=None, trace=None, error=f"{_MOVES}{said}")
    assert weakest.decision is not None
    return replace(weakest, decision=replace(weakest.decision, reason=f"{_MOVES}{said}; {weakest.decision.reason}"))


def _rank(result: Result) -> int:
    """How much a verdict says."""
    verdict = result.decision.verdict if result.decision is not None else ""
    return {INCONCLUSIVE: 0, BOUNDED: 1}.get(verdict, 2)
