"""The solver behind one narrow interface. The only module that imports z3, and only when something is to be decided."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from mmucheck.engines.interrupt import interruptible
from mmucheck.lower.smtlib import script
from mmucheck.machine.terms import Term
from mmucheck.records import record

Literal = tuple[str, bool]
"""A named boolean and its sign."""


@record
class Limits:
    """Per query: wall time in seconds (0: none), resource units (0: none; what is decided within them is the same on every machine:
    z3's own count, and propagations of the SAT solver). ``seed``: 0 is the usual order of search, others shuffle it. ``memory``:
    MiB of address space for each worker process (0: none). ``thorough``: of every proof it is also asked whether it would fail if the
    devices dropped nothing. ``confirm``: another solver, which decides every proof again ("": none)."""

    timeout: float = 0.0
    rlimit: int = 0
    seed: int = 0
    memory: int = 0
    thorough: bool = False
    confirm: str = ""


@record
class Answer:
    """``status`` is sat, unsat or unknown; ``model`` by variable name when sat, ``core`` of assumptions when unsat, ``reason``
    when unknown."""

    status: str
    model: dict[str, int] = field(default_factory=dict)
    core: tuple[Literal, ...] = ()
    reason: str = ""


STRATEGIES: Mapping[str, Callable[[Any, Any], Any]] = {
    "bit-vectors": lambda z3, context: z3.SolverFor("QF_BV", ctx=context),
    "few": lambda z3, context: z3.Solver(ctx=context),
    "plain": lambda z3, context: z3.SimpleSolver(ctx=context),
}
"""Ways of z3 to go about it: ``few`` answers a few questions at once each, without preparing for many; ``plain`` does not
preprocess."""

ATTEMPTS = (("plain", 1_500_000), ("few", 8_000_000), ("plain", 20_000_000))
"""Strategies with the units of resources each may spend before the next has its turn: what takes one of them half a minute is often
a matter of milliseconds for the other."""


def decide_once(assertions: Sequence[Term], limits: Limits) -> Answer:
    """Decide assertions of which nothing else will be asked: strategies in turn, then one with all that the limits allow."""
    for strategy, units in ATTEMPTS:
        less = replace(limits, rlimit=min(units, limits.rlimit or units))
        answer = Solver(assertions, (), less, strategy=strategy).check()
        if answer.status != "unknown":
            return answer
    return Solver(assertions, (), limits).check()


class Solver:
    """An incremental solver over one set of assertions; queries are sets of named assumptions.

    A name in ``named`` implies its term, one in ``defined`` is equivalent to it. ``strategy``: one of STRATEGIES. Each solver has a
    context of its own: what others in the process have seen changes neither its answers nor what they cost.
    """

    def __init__(self, assertions: Iterable[Term], named: Sequence[tuple[str, Term]], limits: Limits,
                 defined: Sequence[tuple[str, Term]] = (), strategy: str = "bit-vectors") -> None:  # fmt: skip
        import z3

        self._z3: Any = z3
        self._limits = limits
        self._context = z3.Context()
        self._solver = STRATEGIES[strategy](z3, self._context)
        self._solver.set("ctrl_c", False)  # z3 would take the signal for itself; see interruptible
        self._solver.set("random_seed", limits.seed)
        if limits.timeout:
            self._solver.set("timeout", max(1, int(limits.timeout * 1000)))
        if limits.rlimit:
            self._solver.set("rlimit", limits.rlimit)
        self._names: dict[str, Any] = {}
        self._declarations: dict[str, Any] = {}
        self._watched = False
        text = script(assertions, named, defined)
        self._call(lambda: self._solver.from_string(text))

    def _bool(self, name: str, sign: bool) -> Any:
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = self._z3.Bool(name, self._context)
        return found if sign else self._z3.Not(found)

    def check(self, assumptions: Iterable[Literal | str] = (), model: bool = True, timeout: float = 0.0) -> Answer:
        """Decide the assertions under the assumptions; ``model``: whether one is wanted; ``timeout``: seconds for this question, if
        other than the solver's.

        Raises MemoryError if the process may have no more, and what a signal's handler raises.
        """
        literals = [(a, True) if isinstance(a, str) else a for a in assumptions]
        bools = [self._bool(name, sign) for name, sign in literals]
        allowed = timeout or self._limits.timeout
        if timeout:
            self._solver.set("timeout", max(1, int(timeout * 1000)))
        started = time.monotonic()
        result = self._call(lambda: self._solver.check(*bools))
        if result == self._z3.sat:
            return Answer("sat", model=self._model() if model else {})
        if result == self._z3.unsat:
            core = {c.get_id() for c in self._solver.unsat_core()}
            kept = tuple(literal for literal, b in zip(literals, bools, strict=True) if b.get_id() in core)
            return Answer("unsat", core=kept)
        reason = self._solver.reason_unknown()
        if "memory" in reason or "memout" in reason:
            raise MemoryError
        if allowed and time.monotonic() - started >= 0.9 * allowed:
            return Answer("unknown", reason="timeout")
        return Answer("unknown", reason=_reason(reason, self._limits.rlimit > 0))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for signals once for all questions asked inside: short ones cost less than watching does."""
        with interruptible(self._context.interrupt):
            self._watched = True
            try:
                yield
            finally:
                self._watched = False

    def _call(self, call: Callable[[], Any]) -> Any:
        return _guarded(None if self._watched else self._context, call)

    def truth(self, names: Iterable[str]) -> list[bool]:
        """Values of named booleans in the model of the last check, which was sat."""
        model, context = self._solver.model(), self._context.ref()
        found: list[bool] = []
        for name in names:  # by z3's C functions: its Python objects of a model cost more than finding it
            declaration = self._declarations.get(name)
            if declaration is None:
                declaration = self._declarations[name] = self._bool(name, True).decl()
            value = self._z3.Z3_model_get_const_interp(context, model.model, declaration.ast)
            found.append(bool(value) and self._z3.Z3_get_bool_value(context, value) == self._z3.Z3_L_TRUE)
        return found

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


def _guarded(context: Any, call: Callable[[], Any]) -> Any:
    """What the call into z3 gives. Signals end it, if its context is given; running out of memory is a MemoryError."""
    import z3

    try:
        with interruptible(context.interrupt) if context is not None else contextlib.nullcontext():
            return call()
    except z3.Z3Exception as error:
        if "memory" in str(error):
            raise MemoryError from None
        raise


def _reason(reason: str, counted: bool) -> str:
    """In one of the tool's words where z3 has several, or dumps what it had not come to."""
    if "resource" in reason or counted:
        return "resource limit"
    return {"timeout": "timeout", "canceled": "timeout"}.get(reason, reason if len(reason) < 80 else "the solver gave up")


def to_cnf(assertions: Iterable[Term], defined: Sequence[tuple[str, Term]]) -> tuple[list[list[int]], dict[str, int]]:
    """The assertions and definitions as clauses, and the variable of every name (and of every bit, see ``smtlib.bit``)."""
    import z3

    context = z3.Context()
    goal = z3.Goal(ctx=context)
    goal.add(*z3.parse_smt2_string(script(assertions, (), defined, bits=True), ctx=context))
    steps = [z3.Tactic(name, ctx=context) for name in ("simplify", "bit-blast", "tseitin-cnf")]
    text = _guarded(context, lambda: z3.Then(*steps, ctx=context)(goal)[0].dimacs())
    clauses: list[list[int]] = []
    names: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("c "):
            _, number, name = line.split(" ", 2)
            names[name] = int(number)
        elif line and line[0] not in "pc":
            clauses.append([int(word) for word in line.split()[:-1]])
    return clauses, names


def decide_script(text: str, limits: Limits) -> str:
    """sat, unsat or unknown for the assertions of an SMT-LIB script, in a context of their own."""
    import z3

    context = z3.Context()
    solver = z3.SolverFor("QF_BV", ctx=context)
    if limits.timeout:
        solver.set("timeout", max(1, int(limits.timeout * 1000)))
    solver.from_string(text)
    solver.set("ctrl_c", False)
    return str(_guarded(context, solver.check))


def version() -> str:
    """The solver's version, without loading it."""
    from importlib import metadata

    return metadata.version("z3-solver")
