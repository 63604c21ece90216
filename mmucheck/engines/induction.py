from __future__ import annotations
from dataclasses import dataclass
@dataclass(frozen=True)
class Proof:
    invariant: tuple[str, ...] | None
    reason: str = ""
    exhausted: bool = False
def prove_by_induction(lowering, prop, limits):
    return Proof(None, "no invariant", True)
