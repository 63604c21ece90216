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


class OutOfBudget(Exception):
    """What a limit allows is used up. The text says which: timeout, resource limit."""


@record
class Missing:
    """A step, side of a branch, call or device action that no run takes. ``why``: how that is known. ``dead``: it is proved of a
    statement in the body of the path itself."""

    file: str
    line: int
    what: str
    why: str
    dead: bool = False


@record
class Exercised:
    """How much of the path and of its devices the runs take. Statements are counted as written, each side of a branch by itself."""

    reached: int
    total: int
    missing: tuple[Missing, ...] = ()


@record
class Decision:
    """``method``: how it was decided; ``reason``: why it is bounded, inconclusive or vacuous; ``invariant``: for an inductive
    proof, its clauses as text; ``violation`` is set exactly for refuted. ``exercised``: set for a proof, and for what is
    vacuous because nothing runs. ``needs_flush``: whether a proof would fail if the devices dropped nothing; None where that was
    not asked or not decided. ``confirmed``: the second solver that has decided all of a proof, too."""

    verdict: str
    method: str
    reason: str = ""
    violation: Violation | None = None
    invariant: tuple[str, ...] = ()
    seconds: float = 0.0
    exercised: Exercised | None = None
    needs_flush: bool | None = None
    confirmed: str = ""
