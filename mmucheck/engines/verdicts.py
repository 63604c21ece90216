"""What a decision can be. A bound, a timeout and `unknown` have verdicts of their own and never become `proved`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmucheck.records import record

if TYPE_CHECKING:
    from mmucheck.replay.explore import Violation

PROVED, REFUTED, BOUNDED, INCONCLUSIVE, VACUOUS = "proved", "refuted", "bounded", "inconclusive", "vacuous"
VERDICTS = (PROVED, REFUTED, BOUNDED, INCONCLUSIVE, VACUOUS)


class InternalError(Exception):
    """The tool contradicts itself: a refutation that does not replay, a proof that fails its check. Never a verdict."""


@record
class Decision:
    """``method``: how it was decided; ``reason``: why it is bounded, inconclusive or vacuous; ``invariant``: for an inductive
    proof, its clauses as text; ``violation`` is set exactly for refuted."""

    verdict: str
    method: str
    reason: str = ""
    violation: Violation | None = None
    invariant: tuple[str, ...] = ()
    seconds: float = 0.0
