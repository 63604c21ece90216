"""A system without what no verdict depends on: where its steps were written, what its variables and devices are called, and steps
that do nothing. Two subjects that differ in nothing else become equal, so that one decision serves both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mmucheck.ir.program import (
    CacheDecl,
    DeviceDecl,
    DeviceVar,
    Expr,
    Local,
    LockDecl,
    Look,
    Node,
    Nondet,
    Op,
    Origin,
    Program,
    Step,
    System,
)  # fmt: skip
from mmucheck.names.builtins import ADDRESS_SPACE
from mmucheck.syntax.diagnostics import Span

NOWHERE = Span("", 0, 0, 0, 0)
_IDLE = frozenset({"nop", "dispatch"})
"""Steps that change nothing and at which nobody can notice anything."""


def nameless(system: System) -> System:
    """The system under names of its own, in the order in which they are declared or control meets them. The names of the devices'
    variables stay, since properties ask for them, and those of the path's locks; so does who a step belongs to."""
    names = {ADDRESS_SPACE: ADDRESS_SPACE, **{d.name: f"device{i}" for i, d in enumerate(system.devices, 1)}}
    names |= {f"{d.name}.{c.name}": f"{names[d.name]}.cache{i}" for d in system.devices for i, c in enumerate(d.caches, 1)}
    threads = tuple(_program(p, f"path{i}", names) for i, p in enumerate(system.threads, 1))
    devices = tuple(_device(d, names) for d in system.devices)
    taken = {n.step.names[0] for p in _programs(threads, devices) for n in p.nodes if n.step.op in ("lock", "unlock")}
    devices = tuple(replace(d, locks=tuple(k for k in d.locks if k.name in taken)) for d in devices)
    locks = tuple(k for k in system.locks if k.name in taken)
    return replace(system, threads=threads, devices=devices, locks=locks, protocol="", notes=())


def _programs(threads: tuple[Program, ...], devices: tuple[DeviceDecl, ...]) -> Iterator[Program]:
    yield from threads
    for device in devices:
        yield from device.handlers


def _device(device: DeviceDecl, names: dict[str, str]) -> DeviceDecl:
    outside = _Names(names)
    caches = tuple(
        CacheDecl(outside.cache(device.name, c.name), c.of, outside.cache(device.name, c.source),
                  outside.expr(c.when) if c.when is not None else None)
        for c in device.caches
    )
    variables = tuple((name, outside.expr(value)) for name, value in device.variables)
    locks = tuple(LockDecl(outside.of_device(k.name), k.kind, k.key, k.granule) for k in device.locks)
    handlers = tuple(_program(h, f"handler{i}", names) for i, h in enumerate(device.handlers, 1))
    return DeviceDecl(names[device.name], "", caches, variables, locks, handlers, (), "", device.still)


def _program(program: Program, name: str, devices: dict[str, str]) -> Program:
    """Without steps that do nothing; nodes, variables and choices numbered as control meets them from the entry on."""
    heads = [_behind(program, i) for i in range(len(program.nodes))]
    nodes = tuple(replace(n, successors=tuple(heads[s] for s in n.successors)) for n in program.nodes)
    draft = replace(program, nodes=nodes, entry=heads[program.entry], exit=heads[program.exit])
    order = draft.topological()
    if draft.exit not in order:
        order.append(draft.exit)
    number = {old: new for new, old in enumerate(order)}
    given = _Names(devices)
    params = tuple((given.local(p), kind) for p, kind in program.params)
    final = tuple(Node(given.step(nodes[old].step), tuple(number[s] for s in nodes[old].successors)) for old in order)
    kinds = {new: program.locals[old] for old, new in given.locals.items() if old in program.locals}
    return Program(name, final, number[draft.entry], number[draft.exit], params, kinds)


def _behind(program: Program, node: int) -> int:
    """The first node from here on whose step does something. Round a loop of nothing there is none: it stays."""
    at, seen = node, {node}
    while program.nodes[at].step.op in _IDLE and len(program.nodes[at].successors) == 1:
        at = program.nodes[at].successors[0]
        if at in seen:
            return node
        seen.add(at)
    return at


class _Names:
    """New names for the variables and choices of one program, in the order in which they are asked for; ``devices``: those of the
    devices, and of each ``device.cache``."""

    def __init__(self, devices: dict[str, str]) -> None:
        self._devices = devices
        self._actor = ""
        self.locals: dict[str, str] = {}
        self._choices: dict[str, str] = {}

    def local(self, name: str) -> str:
        """Those of hooks are numbered apart: the path's own then have one name on every device."""
        if name not in self.locals:
            letter = "h" if self._actor else "x"
            self.locals[name] = f"{letter}{1 + sum(known.startswith(letter) for known in self.locals.values())}"
        return self.locals[name]

    def cache(self, device: str, name: str) -> str:
        """A cache's new name; the name itself if it is none of the device's (the page table, or nothing)."""
        return self._devices.get(f"{device}.{name}", f".{name}").partition(".")[2]

    def of_device(self, name: str) -> str:
        """``device.thing`` under the device's new name; of what no device owns, the name it has."""
        if name in self._devices:
            return self._devices[name]
        owner, dot, rest = name.partition(".")
        return f"{self._devices.get(owner, owner)}{dot}{rest}"

    def step(self, step: Step) -> Step:
        self._actor = step.origin.actor
        args = tuple(map(self.expr, step.args))
        results = tuple(map(self.local, step.results))
        names = step.names
        match step.op:
            case "drop" | "fill":
                names = (self._devices[step.names[0]], self.cache(*step.names))
            case "set_var":
                names = (self._devices[step.names[0]], step.names[1])
            case "lock" | "unlock":
                names = (self.of_device(step.names[0]), *step.names[1:])
            case "assert" | "dispatch":
                names = ()
        return Step(step.op, args, Origin(NOWHERE, "", (), self._devices.get(step.origin.actor, step.origin.actor)), results, names)

    def expr(self, expr: Expr) -> Expr:
        match expr:
            case Local(name=name, kind=kind):
                return Local(self.local(name), kind)
            case Op(op=op, args=args):
                return Op(op, tuple(map(self.expr, args)))
            case Look(name=name, args=args):
                return Look(self.of_device(name), tuple(map(self.expr, args)))
            case Nondet(label=label):
                return Nondet(self._choices.setdefault(label, f"choice{len(self._choices) + 1}"))
            case DeviceVar(device=device, name=name):
                return DeviceVar(self._devices[device], name)
        return expr
