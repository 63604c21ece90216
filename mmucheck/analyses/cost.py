"""What a path's notifier calls cost: callbacks dispatched, counted on the control-flow graph. No solver is asked.

Counts are per registered device that listens to everything; with no device registered nothing is dispatched at all
(``mm_has_notifiers``). Every way through the graph counts, also one that a condition rules out.
"""

from __future__ import annotations

from collections.abc import Callable

from mmucheck.ir.program import Program, Step
from mmucheck.records import record

Weight = Callable[[int], int]


@record
class Count:
    """Dispatches of one callback: fewest and most outside loops, most in one round of a loop (``per_round``), most of both kinds
    under a page-table or other spin lock, and most that repeat an earlier call over the same range with no entry removed or
    downgraded in between."""

    least: int
    most: int
    per_round: int
    under_lock: int
    doubled: int


def cost(program: Program, spinlocks: frozenset[str]) -> dict[str, Count]:
    """Callback -> count, in alphabetical order; callbacks that are never dispatched are left out."""
    callbacks = sorted({n.step.names[0] for n in program.nodes if n.step.op == "dispatch"})
    inside = _in_loops(program)
    locked = _under_spinlock(program, spinlocks)
    doubled = _doubled(program)
    found: dict[str, Count] = {}
    for callback in callbacks:
        sites = {i for i, n in enumerate(program.nodes) if n.step.op == "dispatch" and n.step.names[0] == callback}
        outside = sites - inside
        found[callback] = Count(
            least=_extreme(program, outside, min),
            most=_extreme(program, outside, max),
            per_round=_extreme(program, sites & inside, max),
            under_lock=_extreme(program, sites & locked, max),
            doubled=_extreme(program, sites & doubled, max),
        )
    return found


def _extreme(program: Program, sites: set[int], choose: Callable[[list[int]], int]) -> int:
    """The fewest or most of the sites that one way from entry to exit meets, each loop run once: what would go back to a loop's
    head goes on where the loop ends."""
    looping = _in_loops(program)
    position = {node: i for i, node in enumerate(program.topological())}
    ahead: dict[int, list[int]] = {}
    for node in position:
        ahead[node] = []
        for target in program.nodes[node].successors:
            back = position[target] <= position[node]
            ahead[node] += [t for t in program.nodes[target].successors if t not in looping] if back else [target]
    best: dict[int, int] = {}
    stack = [program.entry]
    while stack:
        node = stack[-1]
        waiting = [t for t in ahead[node] if t not in best]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        best[node] = (node in sites) + (choose([best[t] for t in ahead[node]]) if ahead[node] else 0)
    return best[program.entry]


def _in_loops(program: Program) -> set[int]:
    """Nodes from which control can come back to them."""
    reach: dict[int, set[int]] = {i: set(n.successors) for i, n in enumerate(program.nodes)}
    changed = True
    while changed:
        changed = False
        for node, targets in reach.items():
            more = set().union(*(reach[t] for t in targets)) - targets if targets else set()
            if more:
                reach[node] = targets | more
                changed = True
    return {i for i, targets in reach.items() if i in targets}


def _under_spinlock(program: Program, spinlocks: frozenset[str]) -> set[int]:
    held: dict[int, int] = {program.entry: 0}
    work = [program.entry]
    while work:
        node = work.pop()
        step, depth = program.nodes[node].step, held[node]
        if step.op in ("lock", "unlock") and step.names[0] in spinlocks:
            depth += 1 if step.op == "lock" else -1
        for target in program.nodes[node].successors:
            if target not in held:
                held[target] = depth
                work.append(target)
    return {i for i, depth in held.items() if depth > 0}


_REMOVES = frozenset("clear_pte set_pte_marker wrprotect_pte clear_pmd set_pmd_marker wrprotect_pmd clear_table".split())


def _doubled(program: Program) -> set[int]:
    """Dispatches that on some way repeat an equal one, with no entry removed or downgraded in between."""
    known: dict[int, frozenset[tuple[str, str]] | None] = dict.fromkeys(range(len(program.nodes)))
    known[program.entry] = frozenset()
    work = [program.entry]
    found: set[int] = set()
    while work:
        node = work.pop()
        step, calls = program.nodes[node].step, known[node] or frozenset()
        after = _after(step, calls)
        for target in program.nodes[node].successors:
            before = known[target]
            joined = after if before is None else before | after
            if joined != before:
                known[target] = joined
                work.append(target)
    for i, each in enumerate(program.nodes):
        if each.step.op == "dispatch" and _call(each.step) in (known[i] or frozenset()):
            found.add(i)
    return found


def _after(step: Step, calls: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    if step.op == "dispatch":
        return calls | {_call(step)}
    if step.op in _REMOVES:
        return frozenset()
    if step.op == "assign":
        return frozenset(c for c in calls if f"'{step.results[0]}'" not in c[1])
    return calls


def _call(step: Step) -> tuple[str, str]:
    return step.names[0], repr(step.args)
