"""Weaken one lock of a path at a time: find its sections in the expanded form, give one up early or leave it out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mmucheck.ir.program import DeviceVar, Local, Look, Node, Op, Program, Step, subexpressions

REMOVED = 0
"""A weakening is how many visible steps early the lock is given up, or this."""
WAITING = "huge_pmd_sharers_unmap"
"""The macro in which others who share a table page drop it as soon as the i_mmap lock is free."""
Stack = tuple[int, ...]
"""Nodes of the locks held, outermost first."""


@dataclass(frozen=True)
class Site:
    """The critical sections that share an unlock: usually one ``lock`` and the unlocks on all ways out.

    ``name``: the lock and which of its sections in the path this is, in the order of the nodes; ``macro``: where it is written.
    """

    name: str
    macro: str
    line: int
    locks: frozenset[int]
    unlocks: frozenset[int]
    inside: frozenset[int]


def sites(program: Program) -> list[Site]:
    """Every section of a lock of the kernel; a device's own locks are its own affair."""
    inside: dict[int, set[int]] = {}
    unlocks: dict[int, set[int]] = {}
    for index, stack in _held(program):
        step = program.nodes[index].step
        for lock in stack:
            inside.setdefault(lock, set()).add(index)
        if step.op == "unlock":
            unlocks.setdefault(_given_back(program, stack, step), set()).add(index)
    found: list[Site] = []
    counts: dict[str, int] = {}
    for group in _joined(unlocks):
        step = program.nodes[min(group)].step
        if "." in step.names[0]:
            continue
        number = counts[step.names[0]] = counts.get(step.names[0], 0) + 1
        frames = step.origin.frames
        found.append(
            Site(
                f"{step.names[0]} {number}", frames[-1].name if frames else program.name, step.origin.span.line, frozenset(group),
                frozenset().union(*(unlocks[n] for n in group)), frozenset().union(*(inside.get(n, set()) for n in group)),
            )
        )  # fmt: skip
    return found


def _held(program: Program) -> Iterator[tuple[int, Stack]]:
    """Every node with the locks held before its step, each way to hold them once."""
    seen = {(program.entry, ())}
    work: list[tuple[int, Stack]] = [(program.entry, ())]
    while work:
        index, stack = work.pop()
        yield index, stack
        node = program.nodes[index]
        if node.step.op == "lock":
            stack = (*stack, index)
        elif node.step.op == "unlock":
            gone = _given_back(program, stack, node.step)
            stack = tuple(n for n in stack if n != gone)
        for target in node.successors:
            if (target, stack) not in seen:
                seen.add((target, stack))
                work.append((target, stack))


def _given_back(program: Program, stack: Stack, step: Step) -> int:
    """Which of the locks held an unlock gives back: that of its name and key, the last one taken first."""
    same = [n for n in stack if program.nodes[n].step.names[0] == step.names[0]]
    return next((n for n in reversed(same) if program.nodes[n].step.args == step.args), same[-1])


def _joined(unlocks: dict[int, set[int]]) -> list[set[int]]:
    """The locks, those together that share an unlock."""
    groups: list[set[int]] = []
    for lock in sorted(unlocks):
        shared = [g for g in groups if any(unlocks[lock] & unlocks[other] for other in g)]
        groups = [g for g in groups if g not in shared] + [{lock}.union(*shared)]
    return sorted(groups, key=min)


def weakened(program: Program, site: Site, early: int) -> Program | None:
    """The path with the section's lock given up ``early`` visible steps before its end on every way, or without it (REMOVED); None if
    that is no section any more, or no shorter one than with one step less."""
    nodes = list(program.nodes)
    for index in site.unlocks | (site.locks if early == REMOVED else frozenset()):
        nodes[index] = replace(nodes[index], step=replace(nodes[index].step, op="nop", args=(), names=()))
    if early == REMOVED:
        return replace(program, nodes=tuple(nodes))
    left = _left(program, site)
    edges = _leaving(program, site, left, early)
    if edges == _leaving(program, site, left, early - 1) or any(at in site.locks for at, _ in edges):
        return None
    lock, unlock = nodes[min(site.locks)].step, program.nodes[min(site.unlocks)].step
    moved = _moved_with(program, site)
    for index in moved:
        nodes[index] = replace(nodes[index], step=replace(nodes[index].step, op="nop"))
    for at, target in sorted(edges):
        first = len(nodes)
        for step in (replace(unlock, args=lock.args), *(program.nodes[n].step for n in moved)):
            nodes.append(Node(step, (len(nodes) + 1,)))
        nodes[-1] = replace(nodes[-1], successors=(target,))
        nodes[at] = replace(nodes[at], successors=tuple(first if s == target else s for s in nodes[at].successors))
    return replace(program, nodes=tuple(nodes))


def _moved_with(program: Program, site: Site) -> list[int]:
    """Steps behind an unlock that stand for somebody who waits for the lock: they go with it."""
    behind = {s for n in site.unlocks for s in program.nodes[n].successors}
    return sorted(n for n in behind if WAITING in {frame.name for frame in program.nodes[n].step.origin.frames})


def _leaving(program: Program, site: Site, left: dict[int, int], early: int) -> set[tuple[int, int]]:
    """The edges on which the section is left if it ends where no way to its end has more than ``early`` visible steps left."""
    tail = {n for n, steps in left.items() if steps <= early}
    return {(n, s) for n in (site.inside | site.locks) - tail for s in program.nodes[n].successors if s in tail}


def _left(program: Program, site: Site) -> dict[int, int]:
    """How many visible steps of the section are at most left from a node on, its own included; loops have no end."""
    left: dict[int, int] = {}
    for index in reversed(program.topological()):
        if index not in site.inside:
            continue
        node = program.nodes[index]
        if index in site.unlocks:
            left[index] = 0
        elif all(s in left for s in node.successors):
            left[index] = max(left[s] for s in node.successors) + visible(node.step)
    return left


def visible(step: Step) -> bool:
    """Whether another path could tell that the step was taken, or it what another path did."""
    if step.op in ("assign", "branch", "assume", "assert"):
        return any(isinstance(e, Look | DeviceVar) for arg in step.args for e in subexpressions(arg))
    return step.op not in ("nop", "dispatch", "lock", "unlock", "tlb_gather", "tlb_track", "tlb_queue", "tlb_queue_table")



def walking(program: Program, lock: str) -> Program:
    """The path with what it relies on to reach an entry: before it takes the lock of a table page (``lock``) it has found the table page,
    and when it has it, an assert says that the table page is still linked. In C the lock lies in the table page's own struct page."""
    nodes, variables = list(program.nodes), dict(program.locals)
    for index, node in enumerate(program.nodes):
        if node.step.op == "lock" and node.step.names[0] == lock:
            found, linked, origin = f"found.{index}", Look("pmd_linked", node.step.args), node.step.origin
            variables[found] = "bool"
            still = Op("||", (Op("!", (Local(found, "bool"),)), linked))
            nodes += [
                Node(node.step, (len(nodes) + 1,)),
                Node(Step("assert", (still,), origin, names=("the table page found is linked",)), node.successors),
            ]
            nodes[index] = Node(Step("assign", (linked,), origin, (found,)), (len(nodes) - 2,))
    return replace(program, nodes=tuple(nodes), locals=variables)
