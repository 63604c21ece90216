"""Several devices on one address space, taken one at a time: why that is enough is in mmucheck/README.md, "Several devices"."""

from __future__ import annotations

from dataclasses import replace

from mmucheck.ir.program import (
    Const,
    DeviceDecl,
    Expr,
    Look,
    Node,
    Program,
    PropertyDecl,
    Step,
    System,
    subexpressions,
)  # fmt: skip
from mmucheck.lower.unroll import runs_once
from mmucheck.machine.state import threads_of
from mmucheck.machine.visibility import asks_cache

_HOOK = frozenset("nop dispatch set_var drop fill assign branch lock unlock assert might_sleep".split())
_EVENTS = frozenset("slept_in_atomic assertion_failed device_var".split())
_FIRST: Expr = Const(1, "bool")
_HANDLER = _HOOK | {"get_user_page", "put_page", "wait", "assume"}


def asks_hooks(prop: PropertyDecl) -> bool:
    """Whether the property asks for what a hook can do besides dropping entries: sleep, fail an assert, write a variable."""
    return any(isinstance(e, Look) and e.name in _EVENTS for e in subexpressions(prop.formula))


def parts(system: System, hooks: bool) -> tuple[System, ...]:
    """For each device the system in which the others do nothing by themselves, as far as they can be left out. ``hooks``: what
    their hooks do in the thread stays; otherwise those steps do nothing."""
    if len(system.devices) < 2:
        return (system,)
    harmless = {d.name for d in system.devices if _harmless(system, d) and not (hooks and _shows(system, d))}
    return tuple(_part(system, own, frozenset(harmless - {own.name}), hooks) for own in system.devices)


def _part(system: System, own: DeviceDecl, still: frozenset[str], hooks: bool) -> System:
    devices = tuple(d if d.name not in still else _still(d) if hooks else _bare(d) for d in system.devices)
    threads = system.threads if hooks else tuple(_without(p, still) for p in system.threads)
    return replace(system, threads=threads, devices=devices)


def _still(device: DeviceDecl) -> DeviceDecl:
    """Fills nothing and runs no handler; what it holds at the start and what its hooks do stays."""
    caches = tuple(replace(c, source="", when=None) for c in device.caches)
    return replace(device, caches=caches, handlers=(), still=True)


def _bare(device: DeviceDecl) -> DeviceDecl:
    """A name only: nothing to hold, nothing to do."""
    return replace(device, caches=(), variables=(), locks=(), handlers=(), still=True)


def _without(program: Program, still: frozenset[str]) -> Program:
    """The program with the steps of those devices' hooks emptied. Which way a branch of theirs goes nobody can tell any more, and
    each goes on to where the hook ends."""
    return replace(program, nodes=tuple(_emptied(n) if n.step.origin.actor in still else n for n in program.nodes))


def _emptied(node: Node) -> Node:
    step = Step("nop", (), node.step.origin) if node.step.op != "branch" else replace(node.step, args=(_FIRST,))
    return replace(node, step=step)


def _shows(system: System, device: DeviceDecl) -> bool:
    """Whether what a property may ask of hooks rests on what the device does by itself."""
    hooks = [n.step for p in system.threads for n in p.nodes if n.step.origin.actor == device.name]
    return any(map(asks_cache, hooks)) or any(n.step.op in ("set_var", "assert") for h in device.handlers for n in h.nodes)


def _harmless(system: System, device: DeviceDecl) -> bool:
    """Without what the device does by itself every run of the others is still possible, and nothing is freed later."""
    threads = threads_of(system)
    hooks = [n.step for p in system.threads for n in p.nodes if n.step.origin.actor == device.name]
    heads = [p.nodes[i].step.origin.actor for p in system.threads for i in p.back_edge_targets()]
    own = {lock.name for lock in device.locks}
    return device.name not in heads and all(s.op in _HOOK and (s.op not in ("lock", "unlock") or s.names[0] in own) for s in hooks) and all(
        runs_once(t, threads, system) and all(n.step.op in _HANDLER for n in t.program.nodes)
        for t in threads
        if t.device == device.name
    )
