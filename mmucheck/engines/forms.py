"""What a property says, by its form alone."""

from __future__ import annotations

from mmucheck.ir.program import Expr, Look, Op, PropertyDecl, System, subexpressions
from mmucheck.lower.sites import EVENTS
from mmucheck.machine.visibility import variables

CACHED = frozenset({"cached", "cached_writable", "table_cached"})
"""Looks at what a device holds."""


def looks_at_caches(prop: PropertyDecl) -> bool:
    """Whether it asks what a device holds."""
    return any(isinstance(e, Look) and e.name in CACHED for e in subexpressions(prop.formula))


def event_of(formula: Expr) -> str:
    """The event of which a formula says that it has not come about, "" if it says something else."""
    if isinstance(formula, Op) and formula.op == "!":
        (said,) = formula.args
        return said.name if isinstance(said, Look) and said.name in EVENTS else ""
    return ""


def unknown_variable(system: System, prop: PropertyDecl) -> str:
    """Why a property can say nothing here, "" if its variables are all there."""
    known = {name for d in system.devices for name, _ in d.variables} | {name for name, _ in system.shared}
    unknown = sorted(variables(prop.formula) - known)
    return f"no device here has a variable `{unknown[0]}`, and no path uses one" if unknown else ""
