"""Which paths can run at the same time, as far as locks decide it."""

from __future__ import annotations

from collections.abc import Iterable

from mmucheck.ir.program import LockDecl, Program

Held = frozenset[tuple[str, str]]
"""(lock, mode) pairs."""


def held_at(program: Program, locks: Iterable[LockDecl]) -> dict[int, Held]:
    """At each node that control comes to, the locks of the address space without a key that are held before its step, on every way."""
    single = {lock.name for lock in locks if not lock.key}
    held: dict[int, Held] = {program.entry: frozenset()}
    work = [program.entry]
    while work:
        index = work.pop()
        node, after = program.nodes[index], held[index]
        if node.step.op in ("lock", "unlock") and node.step.names[0] in single:
            name, mode = node.step.names[0], node.step.names[1] if len(node.step.names) > 1 else ""
            kept = frozenset(h for h in after if h[0] != name)
            after = kept | {(name, mode)} if node.step.op == "lock" else kept
        for target in node.successors:
            joined = held[target] & after if target in held else after
            if held.get(target) != joined:
                held[target] = joined
                work.append(target)
    return held


def held_throughout(program: Program, locks: Iterable[LockDecl]) -> Held:
    """The locks of the address space (those without a key) that the program holds at each of its steps, but for what it requires of
    its start, and for taking and giving back locks and going on."""
    held = held_at(program, locks)
    busy = [held[i] for i in sorted(held) if program.nodes[i].step.op not in ("assume", "lock", "unlock", "nop")]
    return frozenset.intersection(*busy) if busy else frozenset()


def excluding(one: Program, other: Program, locks: Iterable[LockDecl]) -> str:
    """The lock for which the two never run at the same time, "" if there is none: both hold it throughout, and not both for reading."""
    locks = tuple(locks)
    mine, theirs = held_throughout(one, locks), held_throughout(other, locks)
    found = sorted(name for name, mode in mine for again, how in theirs if name == again and not mode == how == "read")
    return found[0] if found else ""
