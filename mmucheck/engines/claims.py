"""What a property says, taken apart into claims that are explored by themselves: for two threads and more."""

from __future__ import annotations

from dataclasses import replace

from mmucheck.engines.exercise import occurs
from mmucheck.engines.forms import event_of
from mmucheck.ir.program import Expr, Local, Look, Op, PropertyDecl, System, conjuncts, subexpressions
from mmucheck.lower.unroll import Act
from mmucheck.machine.terms import Terms
from mmucheck.machine.visibility import variables


def kind_of(prop: PropertyDecl) -> tuple[bool, bool]:
    """Whether it asks about frames, and about tables."""
    kinds = {kind for _, kind in prop.binders}
    return "frame" in kinds, "table" in kinds


def claims(prop: PropertyDecl) -> list[PropertyDecl]:
    """What a property says, taken apart: each claim binds what it is about, so that the world explored for it keeps no more."""
    found: list[PropertyDecl] = []
    for i, formula in enumerate(conjuncts(prop.formula)):
        named = {e.name for e in subexpressions(formula) if isinstance(e, Local)}
        binders = tuple((name, kind) for name, kind in prop.binders if kind not in ("frame", "table") or name in named)
        found.append(replace(prop, name=f"{prop.name}.{i}", binders=binders, formula=formula))
    return found


def claims_of(prop: PropertyDecl, system: System) -> list[PropertyDecl]:
    """The claims of a property, without those that are true because no device has what they ask for, unless all are."""
    every = claims(prop)
    return [part for part in every if not _asks_in_vain(part, system)] or every


def _asks_in_vain(part: PropertyDecl, system: System) -> bool:
    """Whether a claim is an implication of which the left side asks for entries for tables, and no device caches any."""
    if any(c.of == "tables" for d in system.devices for c in d.caches):
        return False
    left = part.formula.args[0] if isinstance(part.formula, Op) and part.formula.op == "->" else None
    return any(isinstance(c, Look) and c.name == "table_cached" for c in conjuncts(left)) if left is not None else False


def says_anything(part: PropertyDecl, terms: Terms, system: System, taken: set[Act], says: set[str]) -> bool:
    """Whether some run comes to a state in which a claim says anything (see mmucheck.engines.decide.Session); ``says``: the claims of
    which a state did."""
    event = event_of(part.formula)
    if isinstance(part.formula, Op) and part.formula.op == "->":
        return part.name in says
    if event:
        return occurs(terms, system, taken, event)
    return not variables(part.formula) or bool(variables(part.formula) & system.variables_set())


def said(prop: PropertyDecl) -> list[Expr]:
    """The left sides of a property's implications."""
    return [part.args[0] for part in conjuncts(prop.formula) if isinstance(part, Op) and part.op == "->"]
