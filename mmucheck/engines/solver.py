"""The solver behind one narrow interface. The only module that imports z3, and only when something is to be decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmucheck.lower.smtlib import script
from mmucheck.machine.terms import Term


@dataclass(frozen=True)
class Limits:
    """Per query: wall time in seconds (0: none), z3 resource units (0: none; a run within them is the same on every machine)."""

    timeout: float = 0.0
    rlimit: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """``status`` is sat, unsat or unknown; ``model`` by variable name when sat, ``core`` of assumptions when unsat, ``reason``
    when unknown."""

    status: str
    model: dict[str, int] = field(default_factory=dict)
    core: tuple[str, ...] = ()
    reason: str = ""


class Solver:
    """An incremental solver over one set of assertions; queries are sets of named assumptions."""

    def __init__(self, assertions: Iterable[Term], named: Sequence[tuple[str, Term]], limits: Limits) -> None:
        import z3

        self._z3: Any = z3
        self._context = z3.Context()
        self._solver = z3.Solver(ctx=self._context)
        self._solver.set("random_seed", limits.seed)
        if limits.timeout:
            self._solver.set("timeout", max(1, int(limits.timeout * 1000)))
        if limits.rlimit:
            self._solver.set("rlimit", limits.rlimit)
        self._solver.from_string(script(assertions, named))

    def check(self, assumptions: Iterable[str] = (), negated: Iterable[str] = ()) -> Answer:
        """Decide the assertions under the assumptions. Raises KeyboardInterrupt if Ctrl-C came while solving."""
        bools = [self._z3.Bool(n, self._context) for n in assumptions]
        bools += [self._z3.Not(self._z3.Bool(n, self._context)) for n in negated]
        result = self._solver.check(*bools)
        if result == self._z3.sat:
            return Answer("sat", model=self._model())
        if result == self._z3.unsat:
            return Answer("unsat", core=tuple(sorted(str(c) for c in self._solver.unsat_core())))
        reason = self._solver.reason_unknown()
        if "interrupted" in reason:
            raise KeyboardInterrupt
        return Answer("unknown", reason=_reason(reason))

    def _model(self) -> dict[str, int]:
        model = self._solver.model()
        found: dict[str, int] = {}
        for declaration in model.decls():
            value = model[declaration]
            if self._z3.is_bool(value):
                found[declaration.name()] = int(self._z3.is_true(value))
            elif self._z3.is_bv_value(value):
                found[declaration.name()] = value.as_long()
        return found


def _reason(reason: str) -> str:
    return {"timeout": "timeout", "canceled": "resource limit", "max. resource limit exceeded": "resource limit"}.get(reason, reason)


def version() -> str:
    """The solver's version, without loading it."""
    from importlib import metadata

    return metadata.version("z3-solver")
