"""What steps do to variables of devices: which are counters, which are sequence numbers, which locals hold what those were."""

from __future__ import annotations

from mmucheck.ir.program import Const, DeviceVar, Expr, Local, Op, Program, Step, System, subexpressions

SMALL = 1 << 32
"""Constants below are added or taken away; larger ones may be meant as negative numbers."""


def _programs(system: System) -> list[Program]:
    return [*system.threads, *(h for d in system.devices for h in d.handlers)]


def writes(system: System, variable: DeviceVar) -> list[Step]:
    """The steps that set a variable."""
    wanted = variable.device, variable.name
    return [n.step for p in _programs(system) for n in p.nodes if n.step.op == "set_var" and n.step.names == wanted]


def written(system: System) -> list[DeviceVar]:
    """The variables of devices that some step sets."""
    names = {n.step.names for p in _programs(system) for n in p.nodes if n.step.op == "set_var"}
    devices = {d.name for d in system.devices}
    return [DeviceVar(*name) for name in sorted(names) if name[0] in devices]


def counters(system: System, asked: frozenset[str]) -> list[DeviceVar]:
    """The variables of devices that only go up and down by constants, and do both or are lasting. ``asked``: variables that properties
    ask for."""
    return [v for v in written(system) if _goes_both_ways(system, v) or lasting(system, v, asked)]


def lasting(system: System, variable: DeviceVar, asked: frozenset[str]) -> bool:
    """Whether a variable only goes up and down by constants, and nobody asks more of it than whether it is what it was at the start: then
    what a path leaves added to it says the same for good, however much it is."""
    start = next(e for d in system.devices if d.name == variable.device for n, e in d.variables if n == variable.name)
    if variable.name in asked or not isinstance(start, Const) or any(change_by(s, variable) is None for s in writes(system, variable)):
        return False
    questions = [a for p in _programs(system) for n in p.nodes if change_by(n.step, variable) is None for a in n.step.args]
    questions += [c.when for d in system.devices for c in d.caches if c.when is not None]
    if compared_only(system, variable):
        return False  # a sequence number
    return all(_at_rest(q, variable, start) for q in questions)


def asks(step: Step, variable: DeviceVar) -> bool:
    """Whether what a step does depends on a variable in another way than that it adds to it."""
    return change_by(step, variable) is None and any(e == variable for a in step.args for e in subexpressions(a))


def _at_rest(expr: Expr, variable: DeviceVar, start: Const) -> bool:
    """Whether an expression asks of the variable no more than whether it is this."""
    if isinstance(expr, Op) and expr.op in ("==", "!=") and variable in expr.args:
        return all(a == variable or (isinstance(a, Const) and a.value == start.value) for a in expr.args)
    return expr != variable and all(_at_rest(a, variable, start) for a in getattr(expr, "args", ()))


def sequences(system: System, asked: frozenset[str]) -> list[DeviceVar]:
    """The variables of devices that only grow, and of which nobody asks more than whether they are what a handler has seen. ``asked``:
    variables that properties ask for."""
    return [v for v in written(system) if v.name not in asked and only_grows(system, v) and compared_only(system, v)]


def change_by(step: Step, variable: DeviceVar) -> int | None:
    """What a write adds to the variable, None if that is not what it does."""
    if step.op != "set_var" or step.names != (variable.device, variable.name) or len(step.args) != 1:
        return None
    value = step.args[0]
    if isinstance(value, Op) and value.op in ("+", "-") and value.args[0] == variable:
        by = value.args[1]
        if isinstance(by, Const) and 0 < by.value < SMALL:
            return by.value if value.op == "+" else -by.value
    return None


def _goes_both_ways(system: System, variable: DeviceVar) -> bool:
    by = [change_by(s, variable) for s in writes(system, variable)]
    return None not in by and any(b is not None and b < 0 for b in by)


def only_grows(system: System, variable: DeviceVar) -> bool:
    """Whether every step that sets a variable adds to it."""
    by = [change_by(s, variable) for s in writes(system, variable)]
    return None not in by and all(b is not None and b > 0 for b in by)


def snapshots_of(handler: Program, variable: DeviceVar) -> frozenset[str]:
    """The locals of a handler that hold what the variable was."""
    return frozenset(n.step.results[0] for n in handler.nodes if n.step.op == "assign" and n.step.args[0] == variable)


def compared_only(system: System, variable: DeviceVar) -> bool:
    """Whether nobody asks more of a variable than whether it is what a handler has seen."""
    for program in system.threads:
        for node in program.nodes:
            if change_by(node.step, variable) is None and not all(_blind(a, variable, frozenset()) for a in node.step.args):
                return False
    for device in system.devices:
        if any(c.when is not None and not _blind(c.when, variable, frozenset()) for c in device.caches):
            return False
        for handler in device.handlers:
            snapshots = snapshots_of(handler, variable)
            for node in handler.nodes:
                step = node.step
                if snapshots & set(step.results) and step.args != (variable,):
                    return False
                if step.args != (variable,) and not all(_blind(a, variable, snapshots) for a in step.args):
                    return False
                if step.args == (variable,) and step.op != "assign":
                    return False
    return True


def _blind(expr: Expr, variable: DeviceVar, snapshots: frozenset[str]) -> bool:
    """Whether an expression does no more with the variable and its snapshots than to compare them."""
    if expr == variable or (isinstance(expr, Local) and expr.name in snapshots):
        return False
    if isinstance(expr, Op) and expr.op in ("==", "!=") and compares(expr, variable, snapshots):
        return True
    return all(_blind(a, variable, snapshots) for a in getattr(expr, "args", ()))


def compares(expr: Op, variable: DeviceVar, snapshots: frozenset[str]) -> bool:
    """Whether the variable is one of the two sides, and a snapshot of it the other."""
    one, other = expr.args
    if other == variable:
        one, other = other, one
    return one == variable and isinstance(other, Local) and other.name in snapshots
