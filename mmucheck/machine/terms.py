"""Hash-consed terms over booleans and bit-vectors, folded as they are built.

Building terms through the solver's Python layer costs more than solving here, so terms are plain Python objects, constants
never become terms, and an equal term is the same object. ``evaluate`` gives a term its value without a solver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmucheck.machine.domain import BOOL, fold

MAX_CASES = 24


class Term:
    """A node. ``zeros``: how many low bits are known to be zero. Compare with ``is``."""

    __slots__ = ("args", "index", "name", "op", "sort", "value", "zeros")

    def __init__(self, index: int, op: str, sort: int, args: tuple[Term, ...], value: int, name: str, zeros: int) -> None:
        self.index, self.op, self.sort, self.args = index, op, sort, args
        self.value, self.name, self.zeros = value, name, zeros

    def __repr__(self) -> str:
        if self.op == "const":
            return str(bool(self.value)) if self.sort == BOOL else hex(self.value)
        return self.name if self.op == "var" else f"({self.op} {' '.join(map(repr, self.args))})"


def _trailing_zeros(value: int, width: int) -> int:
    return width if value == 0 else (value & -value).bit_length() - 1


class Terms:
    """The domain of terms, and the table that makes equal terms identical."""

    def __init__(self) -> None:
        self._table: dict[tuple[object, ...], Term] = {}
        self._cases: dict[int, tuple[tuple[int, Term], ...]] = {}
        self.true = self.const(1, BOOL)
        self.false = self.const(0, BOOL)

    def __len__(self) -> int:
        return len(self._table)

    def _make(self, op: str, sort: int, args: tuple[Term, ...], value: int = 0, name: str = "", zeros: int = 0) -> Term:
        key = (op, sort, value, name, *[a.index for a in args])
        term = self._table.get(key)
        if term is None:
            term = self._table[key] = Term(len(self._table), op, sort, args, value, name, zeros)
        return term

    def const(self, value: int, sort: int) -> Term:
        value = int(bool(value)) if sort == BOOL else value & ((1 << sort) - 1)
        return self._make("const", sort, (), value, "", _trailing_zeros(value, sort))

    def var(self, name: str, sort: int) -> Term:
        return self._make("var", sort, (), 0, name)

    def aligned(self, a: Term, bits: int) -> Term:
        """``a`` with its low ``bits`` cleared."""
        return self.binary("and", a, self.const(-(1 << bits), a.sort)) if bits else a

    def cases(self, a: Term) -> tuple[tuple[int, Term], ...] | None:
        """(value, condition) for each constant a term can be, conditions exclusive and together true; None if not known."""
        if a.op == "const":
            return ((a.value, self.true),)
        return self._cases.get(a.index)

    def _from_cases(self, found: dict[int, list[Term]], sort: int) -> Term:
        """The term that has each value under its conditions."""
        joined = [(value, self.or_(*conditions)) for value, conditions in sorted(found.items())]
        live = tuple((value, condition) for value, condition in joined if condition is not self.false)
        term = self.const(live[-1][0], sort)
        for value, condition in reversed(live[:-1]):
            constant = self.const(value, sort)
            term = constant if condition is self.true else self._make("ite", sort, (condition, constant, term))
        if term.op != "const":
            self._cases.setdefault(term.index, live)
        return term

    def _combine(self, a: Term, b: Term, sort: int, op: str) -> Term | None:
        """``op`` on every pair of cases, if there are few."""
        left, right = self.cases(a), self.cases(b)
        if left is None or right is None or len(left) * len(right) > MAX_CASES:
            return None
        found: dict[int, list[Term]] = {}
        for x, when_x in left:
            for y, when_y in right:
                found.setdefault(fold(op, x, y, sort), []).append(self.and_(when_x, when_y))
        return self._from_cases(found, sort)

    def not_(self, a: Term) -> Term:
        if a.op == "const":
            return self.false if a.value else self.true
        if a.op == "not":
            return a.args[0]
        return self._make("not", BOOL, (a,))

    def and_(self, *args: Term) -> Term:
        return self._junction("and", self.true, self.false, args)

    def or_(self, *args: Term) -> Term:
        return self._junction("or", self.false, self.true, args)

    def _junction(self, op: str, unit: Term, zero: Term, args: Iterable[Term]) -> Term:
        kept: dict[int, Term] = {}
        for arg in args:
            for part in arg.args if arg.op == op else (arg,):
                if part is zero:
                    return zero
                if part is not unit:
                    kept[part.index] = part
        for part in kept.values():
            if part.op == "not" and part.args[0].index in kept:
                return zero
        if not kept:
            return unit
        if len(kept) == 1:
            return next(iter(kept.values()))
        return self._make(op, BOOL, tuple(kept.values()))

    def ite(self, c: Term, a: Term, b: Term) -> Term:
        if c.op == "const":
            return a if c.value else b
        if a is b:
            return a
        if c.op == "not":
            return self.ite(c.args[0], b, a)
        if a.op == "ite" and a.args[0] is c:
            a = a.args[1]
        if b.op == "ite" and b.args[0] is c:
            b = b.args[2]
        if a is b:
            return a
        if a.sort != BOOL:
            left, right = self.cases(a), self.cases(b)
            if left is not None and right is not None and len(left) + len(right) <= MAX_CASES:
                found: dict[int, list[Term]] = {}
                for value, when in left:
                    found.setdefault(value, []).append(self.and_(c, when))
                for value, when in right:
                    found.setdefault(value, []).append(self.and_(self.not_(c), when))
                return self._from_cases(found, a.sort)
        if a.sort == BOOL:
            if a is self.true:
                return self.or_(c, b)
            if a is self.false:
                return self.and_(self.not_(c), b)
            if b is self.true:
                return self.or_(self.not_(c), a)
            if b is self.false:
                return self.and_(c, a)
        return self._make("ite", a.sort, (c, a, b), zeros=min(a.zeros, b.zeros))

    def eq(self, a: Term, b: Term) -> Term:
        if a is b:
            return self.true
        if a.op == "const" and b.op == "const":
            return self.false
        if a.sort == BOOL:
            if b.op == "const":
                a, b = b, a
            if a.op == "const":
                return b if a.value else self.not_(b)
        if a.op == "const":
            a, b = b, a
        left, right = self.cases(a), self.cases(b)
        if left is not None and right is not None:
            return self.or_(*(self.and_(x, y) for v, x in left for w, y in right if v == w))
        if b.op == "const":
            if b.value & ((1 << a.zeros) - 1):
                return self.false
            if a.op == "ite" and (a.args[1].op == "const" or a.args[2].op == "const"):
                return self.ite(a.args[0], self.eq(a.args[1], b), self.eq(a.args[2], b))
        for x, y in ((a, b), (b, a)):
            if x.op == "ite" and (x.args[1] is y or x.args[2] is y):
                return self.ite(x.args[0], self.eq(x.args[1], y), self.eq(x.args[2], y))
        if a.index > b.index:
            a, b = b, a
        return self._make("=", BOOL, (a, b))

    def ult(self, a: Term, b: Term) -> Term:
        if a is b or (b.op == "const" and b.value == 0) or (b.op == "bvand" and b.args[0] is a):
            return self.false
        if a.op == "const" and b.op == "const":
            return self.const(a.value < b.value, BOOL)
        left, right = self.cases(a), self.cases(b)
        if left is not None and right is not None:
            return self.or_(*(self.and_(x, y) for v, x in left for w, y in right if v < w))
        return self._make("bvult", BOOL, (a, b))

    def ule(self, a: Term, b: Term) -> Term:
        return self.not_(self.ult(b, a))

    def binary(self, op: str, a: Term, b: Term) -> Term:
        width = a.sort
        if a.op == "const" and b.op == "const":
            return self.const(fold(op, a.value, b.value, width), width)
        if op in ("add", "mul", "and", "or", "xor") and a.op == "const":
            a, b = b, a
        if b.op == "const":
            if b.value == 0:
                if op in ("add", "sub", "or", "xor", "shl", "lshr"):
                    return a
                if op in ("and", "mul"):
                    return b
            if op == "sub":
                return self.binary("add", a, self.const(-b.value, width))
            if op == "and" and -b.value & ((1 << width) - 1) == 1 << _trailing_zeros(b.value, width):
                if a.zeros >= b.zeros:
                    return a
                if a.op == "bvand" and a.args[1].op == "const":
                    return self.binary(op, a.args[0], self.const(a.args[1].value & b.value, width))
            if op == "add" and a.op == "bvadd" and a.args[1].op == "const":
                return self.binary(op, a.args[0], self.const(a.args[1].value + b.value, width))
        combined = self._combine(a, b, width, op)
        if combined is not None:
            return combined
        zeros = {
            "add": min(a.zeros, b.zeros), "sub": min(a.zeros, b.zeros), "and": max(a.zeros, b.zeros),
            "or": min(a.zeros, b.zeros), "xor": min(a.zeros, b.zeros), "mul": min(width, a.zeros + b.zeros),
        }.get(op, 0)  # fmt: skip
        return self._make("bv" + op, width, (a, b), zeros=zeros)

    def is_true(self, a: Term) -> bool:
        return a is self.true

    def is_false(self, a: Term) -> bool:
        return a is self.false

    def substitute(self, roots: Iterable[Term], mapping: Mapping[Term, Term]) -> list[Term]:
        """The terms with variables replaced, folded anew."""
        done: dict[int, Term] = {}
        for term in postorder(roots):
            if term.op == "var":
                done[term.index] = mapping.get(term, term)
            elif not term.args:
                done[term.index] = term
            else:
                args = [done[a.index] for a in term.args]
                same = all(x is y for x, y in zip(args, term.args, strict=True))
                done[term.index] = term if same else self.rebuild(term.op, args)
        return [done[r.index] for r in roots]

    def rebuild(self, op: str, args: list[Term]) -> Term:
        match op:
            case "not":
                return self.not_(args[0])
            case "and":
                return self.and_(*args)
            case "or":
                return self.or_(*args)
            case "ite":
                return self.ite(*args)
            case "=":
                return self.eq(*args)
            case "bvult":
                return self.ult(*args)
        return self.binary(op[2:], *args)


def postorder(roots: Iterable[Term]) -> list[Term]:
    """Every subterm once, arguments first. Iterative: formulas are deeper than Python's stack."""
    order: list[Term] = []
    seen: set[int] = set()
    stack = [(r, False) for r in roots]
    stack.reverse()
    while stack:
        term, ready = stack.pop()
        if ready:
            order.append(term)
        elif term.index not in seen:
            seen.add(term.index)
            stack.append((term, True))
            stack.extend((a, False) for a in reversed(term.args) if a.index not in seen)
    return order


def evaluate(roots: Iterable[Term], model: Mapping[str, int]) -> list[int]:
    """The values of terms under a model by variable name; a variable the model leaves out is 0."""
    values: dict[int, int] = {}
    roots = list(roots)
    for term in postorder(roots):
        values[term.index] = _value(term, [values[a.index] for a in term.args], model)
    return [values[r.index] for r in roots]


def _value(term: Term, args: list[int], model: Mapping[str, int]) -> int:
    match term.op:
        case "const":
            return term.value
        case "var":
            return model.get(term.name, 0)
        case "not":
            return int(not args[0])
        case "and":
            return int(all(args))
        case "or":
            return int(any(args))
        case "ite":
            return args[1] if args[0] else args[2]
        case "=":
            return int(args[0] == args[1])
        case "bvult":
            return int(args[0] < args[1])
    return fold(term.op[2:], args[0], args[1], term.sort)
