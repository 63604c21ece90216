"""A domain for exploring state by state under rigid numbers: what is finite is a Python value, a number is a term.

Everything is put off until it matters (``Later``): so a run reads no more of the state, and compares no more numbers, than its result
depends on. The truth of a comparison of numbers is asked of an oracle (a model of the rigid variables): the answers asked for say for
which other numbers everything would have gone the same way.
"""

from __future__ import annotations

from typing import Protocol

from mmucheck.machine.domain import BOOL, NUMBER, fold
from mmucheck.machine.terms import Term, Terms

ANY = -1
"""What an entry that maps nothing holds beside its kind: any value, decided each time that somebody makes something of it."""
VAGUE = -2
"""A frame or table that is neither the zero page nor the witness: whether two of them are the same is open each time. Where it matters
identities are numbered instead, from FIRST_OTHER."""
WITNESS, FIRST_OTHER = 1, 2


class Later:
    """A value not worked out yet. ``op``: read (``name`` of the state), term, any, not, and, or, ite, =, <, or an operation on numbers.
    ``reads``: working it out looks at the state; ``value``: what came of it, once it is worked out."""

    __slots__ = ("args", "name", "op", "reads", "value")

    def __init__(self, op: str, args: tuple[Value, ...] = (), name: str = "") -> None:
        self.op, self.args, self.name = op, args, name
        self.reads: bool = op == "read" or any(isinstance(a, Later) and a.reads for a in args)
        self.value: int | Term | None = None


Value = int | Term | Later


class Oracle(Protocol):
    """Decides what the values leave open."""

    def truth(self, term: Term) -> bool: ...
    def choose(self, options: int) -> int:
        """One of ``options`` ways, counted from 0."""
        ...

    def now(self, name: str) -> int | Term:
        """What a variable of the state holds before the run at hand."""
        ...


class Concolic:
    """The domain. ``oracle`` must be set before anything is worked out."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.true, self.false = True, False
        self.oracle: Oracle | None = None

    # ---- working out

    def force(self, a: Value) -> int | Term:
        """The value; ANY stays what it is."""
        if not isinstance(a, Later):
            return a
        if a.value is None:
            a.value = self._work_out(a)
        return a.value

    def boolean(self, a: Value) -> bool:
        """The truth of a condition."""
        value = self.force(a)
        assert self.oracle is not None
        return bool(self.oracle.choose(2)) if value == ANY else bool(value)

    def _work_out(self, a: Later) -> int | Term:
        assert self.oracle is not None
        match a.op:
            case "read":
                return self.oracle.now(a.name)
            case "any":
                return bool(self.oracle.choose(2))
            case "not":
                return not self.boolean(a.args[0])
            case "and":
                within = self._within(a.args)
                return self._all(cheap_first(a.args)) if within is None else within
            case "or":
                return any(self.boolean(x) for x in cheap_first(a.args))
            case "ite":
                return self.force(a.args[1] if self.boolean(a.args[0]) else a.args[2])
        left, right = self.force(a.args[0]), self.force(a.args[1])
        match a.op:
            case "=":
                return self._same(left, right)
            case "<":
                return self._less(left, right)
        return self._number_of(a.op[2:], left, right)

    def _within(self, args: tuple[Value, ...]) -> bool | None:
        """Whether a number lies in an aligned block, asked as one comparison: on which side of it, nobody cares. None if that is not
        what is asked."""
        match args:
            case (Later(op="not", args=(Later(op="<", args=(x, low)),)), Later(op="<", args=(y, high))):
                a, b, start, end = self.force(x), self.force(y), self.force(low), self.force(high)
            case _:
                return None
        if not (isinstance(a, Term) and a is b and isinstance(start, Term) and isinstance(end, Term)):
            return None
        size = self.terms.binary("sub", end, start)
        if end.op == "bvadd" and end.args[0] is start:
            size = end.args[1]
        bits = size.value.bit_length() - 1
        if size.op != "const" or not size.value or size.value != 1 << bits or start.zeros < bits:
            return None
        last = self.terms.const(-size.value, NUMBER)  # the block whose end wraps to 0: nothing lies before that
        return self._truth(self.terms.eq(self.terms.aligned(a, bits), start)) and not self._truth(self.terms.eq(start, last))

    def _all(self, args: list[Value]) -> bool:
        """Whether all hold. Comparisons of numbers are asked as one: of those that do not hold nobody cares which."""
        compared = [a for a in args if isinstance(a, Later) and self._compares(a)]
        if len(compared) > 1 and not all(self.boolean(a) for a in args if a not in compared):
            return False
        if len(compared) > 1:
            return self._truth(self.terms.and_(*map(self._comparison, compared)))
        return all(self.boolean(x) for x in args)

    def _compares(self, a: Later) -> bool:
        """Whether it compares numbers, or denies that. Works out both sides."""
        if a.op == "not":
            return isinstance(a.args[0], Later) and self._compares(a.args[0])
        if a.op not in ("=", "<") or a.value is not None:
            return False
        left, right = map(self.force, a.args)
        return isinstance(left, Term) or isinstance(right, Term)

    def _comparison(self, a: Value) -> Term:
        assert isinstance(a, Later)
        if a.op == "not":
            return self.terms.not_(self._comparison(a.args[0]))
        left, right = (self._term(self.force(x)) for x in a.args)
        return self.terms.eq(left, right) if a.op == "=" else self.terms.ult(left, right)

    def _same(self, a: int | Term, b: int | Term) -> bool:
        assert self.oracle is not None
        if isinstance(a, Term) or isinstance(b, Term):
            return self._truth(self.terms.eq(self._term(a), self._term(b)))
        low, high = min(a, b), max(a, b)
        if low >= 0:
            return a == b
        if ANY in (high, low) or high == low or (high >= FIRST_OTHER and low == VAGUE):
            return bool(self.oracle.choose(2))
        return False

    def _less(self, a: int | Term, b: int | Term) -> bool:
        if isinstance(a, Term) or isinstance(b, Term):
            return self._truth(self.terms.ult(self._term(a), self._term(b)))
        return a < b

    def _number_of(self, op: str, a: int | Term, b: int | Term) -> int | Term:
        if isinstance(a, Term) or isinstance(b, Term):
            return self.terms.binary(op, self._term(a), self._term(b))
        return fold(op, a, b, NUMBER)

    def _truth(self, term: Term) -> bool:
        assert self.oracle is not None
        return bool(term.value) if term.op == "const" else self.oracle.truth(term)

    def _term(self, a: int | Term) -> Term:
        return a if isinstance(a, Term) else self.terms.const(a, NUMBER)

    # ---- the operations

    def const(self, value: int, sort: int) -> Value:
        if sort == NUMBER:
            return self.terms.const(value, NUMBER)
        return bool(value) if sort == BOOL else value & ((1 << sort) - 1)

    def not_(self, a: Value) -> Value:
        return Later("not", (a,)) if open_(a) else not a

    def and_(self, *args: Value) -> Value:
        left = [a for a in args if open_(a)]
        if any(not open_(a) and not a for a in args):
            return False
        return True if not left else left[0] if len(left) == 1 else Later("and", tuple(left))

    def or_(self, *args: Value) -> Value:
        left = [a for a in args if open_(a)]
        if any(not open_(a) and a for a in args):
            return True
        return False if not left else left[0] if len(left) == 1 else Later("or", tuple(left))

    def ite(self, c: Value, a: Value, b: Value) -> Value:
        if open_(c):
            return a if a is b else Later("ite", (c, a, b))
        return a if c else b

    def eq(self, a: Value, b: Value) -> Value:
        if isinstance(a, Later) or isinstance(b, Later) or isinstance(a, Term) or isinstance(b, Term):
            return self._put_off("=", a, b)
        return Later("=", (a, b)) if min(a, b) < 0 else a == b

    def ult(self, a: Value, b: Value) -> Value:
        return self._put_off("<", a, b)

    def _put_off(self, op: str, a: Value, b: Value) -> Value:
        if isinstance(a, Later) or isinstance(b, Later):
            return Later(op, (a, b))
        if isinstance(a, Term) and isinstance(b, Term):
            term = self.terms.eq(a, b) if op == "=" else self.terms.ult(a, b)
            return bool(term.value) if term.op == "const" else Later(op, (a, b))
        return Later(op, (a, b)) if isinstance(a, Term) or isinstance(b, Term) else a < b

    def ule(self, a: Value, b: Value) -> Value:
        return self.not_(self.ult(b, a))

    def binary(self, op: str, a: Value, b: Value) -> Value:
        if isinstance(a, Later) or isinstance(b, Later):
            return Later("bv" + op, (a, b))
        return self._number_of(op, a, b)

    def is_true(self, a: Value) -> bool:
        return self.boolean(a)

    def is_false(self, a: Value) -> bool:
        return not self.boolean(a)

    def term(self, a: Value) -> Term:
        """A condition on numbers alone, as a term. Raises ValueError if it is about something else."""
        if not isinstance(a, Later):
            return self.terms.const(int(bool(a)), BOOL)
        match a.op:
            case "=" | "<" if all(isinstance(x, Term) for x in a.args):
                x, y = map(self._term, map(self.force, a.args))
                return self.terms.eq(x, y) if a.op == "=" else self.terms.ult(x, y)
            case "not":
                return self.terms.not_(self.term(a.args[0]))
            case "and":
                return self.terms.and_(*map(self.term, a.args))
            case "or":
                return self.terms.or_(*map(self.term, a.args))
        raise ValueError("not a condition on numbers alone")


def open_(a: Value) -> bool:
    """Whether a condition is not known yet."""
    return isinstance(a, Later) or a == ANY


def cheap_first(args: tuple[Value, ...]) -> list[Value]:
    """What needs no look at the state before what does."""
    return sorted(args, key=lambda a: isinstance(a, Later) and a.reads)
