"""What the formulas of properties ask, as far as their form tells."""

from __future__ import annotations

from mmucheck.ir.program import Expr, Local, Look, Op, subexpressions

CACHE_LOOKS = frozenset({"cached", "cached_writable", "table_cached"})
"""What a property may ask of caches."""

FREED_LOOKS = frozenset({"freed", "table_freed"})


def about_entries(formula: Expr) -> bool:
    """Whether a formula can be false only where a device holds something."""
    if isinstance(formula, Op) and formula.op == "&&":
        return all(map(about_entries, formula.args))
    return isinstance(formula, Op) and formula.op == "->" and _asks_entry(formula.args[0])


def _asks_entry(condition: Expr) -> bool:
    if isinstance(condition, Op) and condition.op == "&&":
        return any(map(_asks_entry, condition.args))
    return isinstance(condition, Look) and condition.name in CACHE_LOOKS


def only_breaks(formula: Expr, asked: frozenset[str], positive: bool = True) -> bool:
    """Whether a formula asks these of the bound frame or table so that what is true of them only makes it false: more of it never repairs
    anything. Caches on the left of implications, and that nothing is freed on the right, are asked so."""
    if isinstance(formula, Op):
        if formula.op == "!":
            return only_breaks(formula.args[0], asked, not positive)
        if formula.op == "->":
            return only_breaks(formula.args[0], asked, not positive) and only_breaks(formula.args[1], asked, positive)
        if formula.op in ("&&", "||"):
            return all(only_breaks(a, asked, positive) for a in formula.args)
    if not any(isinstance(e, Look) and e.name in asked for e in subexpressions(formula)):
        return True
    return not positive and isinstance(formula, Look) and formula.name in asked and isinstance(formula.args[-1], Local)
