"""What the machine computes with. One definition of every step runs on either domain.

``Concrete`` is Python numbers and booleans: the interpreter. ``mmucheck.machine.terms.Terms`` is hash-consed terms that
fold constants and are printed as SMT-LIB: the solver's side. Sorts: ``BOOL``; bit-vectors are named by their width.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

BOOL = 0
KIND = 2  # table entry kinds
FRAME = 6  # identities: only ever compared for equality, see mmucheck/README.md
TABLE = 6
COUNT = 16  # reference counts; a run that would overflow one is not looked at
PC = 8
NUMBER = 64

V = TypeVar("V")


class Domain(Protocol[V]):
    """Operations on values of one domain. Comparisons are unsigned."""

    def const(self, value: int, sort: int) -> V: ...
    def not_(self, a: V) -> V: ...
    def and_(self, *args: V) -> V: ...
    def or_(self, *args: V) -> V: ...
    def ite(self, c: V, a: V, b: V) -> V: ...
    def eq(self, a: V, b: V) -> V: ...
    def ult(self, a: V, b: V) -> V: ...
    def ule(self, a: V, b: V) -> V: ...
    def binary(self, op: str, a: V, b: V) -> V: ...
    def is_true(self, a: V) -> bool:
        """Whether the value is known to be true (in ``Concrete``: is true)."""
        ...

    def is_false(self, a: V) -> bool: ...


def fold(op: str, a: int, b: int, width: int) -> int:
    """Bit-vector arithmetic on constants, as SMT-LIB defines it (division by zero included)."""
    mask = (1 << width) - 1
    match op:
        case "add":
            return (a + b) & mask
        case "sub":
            return (a - b) & mask
        case "mul":
            return (a * b) & mask
        case "and":
            return a & b
        case "or":
            return a | b
        case "xor":
            return a ^ b
        case "shl":
            return (a << b) & mask if b < width else 0
        case "lshr":
            return a >> b if b < width else 0
        case "udiv":
            return a // b if b else mask
        case "urem":
            return a % b if b else a
    raise ValueError(op)


class Concrete:
    """Python integers and booleans. Widths are those of NUMBER except where a caller keeps a value small itself."""

    def const(self, value: int, sort: int) -> int:
        return bool(value) if sort == BOOL else value & ((1 << sort) - 1)

    def not_(self, a: int) -> int:
        return not a

    def and_(self, *args: int) -> int:
        return all(args)

    def or_(self, *args: int) -> int:
        return any(args)

    def ite(self, c: int, a: int, b: int) -> int:
        return a if c else b

    def eq(self, a: int, b: int) -> int:
        return a == b

    def ult(self, a: int, b: int) -> int:
        return a < b

    def ule(self, a: int, b: int) -> int:
        return a <= b

    def binary(self, op: str, a: int, b: int) -> int:
        return fold(op, a, b, NUMBER)

    def is_true(self, a: int) -> bool:
        return bool(a)

    def is_false(self, a: int) -> bool:
        return not a
