"""Whether proofs need their devices' drops, asked after the verdict: verdicts kept from earlier runs stay what they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mmucheck.analyses.run import Result
from mmucheck.analyses.subjects import Systems
from mmucheck.engines.decide import needs_flush
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import PROVED


def with_flush(systems: Systems, results: Iterable[Result], limits: Limits) -> list[Result]:
    """The results, each proof with ``needs_flush`` where it can be decided within the limits."""
    found: list[Result] = []
    for result in results:
        decision, o = result.decision, result.obligation
        if decision is not None and decision.verdict == PROVED and decision.needs_flush is None:
            (prop,) = systems.properties(o.subject, [o.property])
            decision = replace(decision, needs_flush=needs_flush(systems.system(o.subject), prop, limits))
        found.append(replace(result, decision=decision))
    return found
