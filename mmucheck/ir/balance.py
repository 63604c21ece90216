"""Every lock a program takes is given back on every way out. Checked on the expanded form, where every way out is visible."""

from __future__ import annotations

from mmucheck.ir.program import Program
from mmucheck.syntax.diagnostics import Diagnostic

_Held = tuple[tuple[str, int], ...]


def unbalanced(program: Program) -> list[Diagnostic]:
    """What is wrong with the program's locks: left locked, unlocked without being held, or held on only one of two ways."""
    held: dict[int, _Held] = {program.entry: ()}
    found: dict[tuple[str, str], Diagnostic] = {}
    work = [program.entry]
    while work:
        index = work.pop()
        node, now = program.nodes[index], held[index]
        step = node.step
        if step.op in ("lock", "unlock"):
            name = step.names[0]
            counts = dict(now)
            counts[name] = counts.get(name, 0) + (1 if step.op == "lock" else -1)
            if counts[name] < 0:
                found.setdefault(("E307", name), Diagnostic("E307", f"`{name}` is unlocked here but not held", step.origin.span))
                counts[name] = 0
            now = tuple(sorted((n, c) for n, c in counts.items() if c))
        for target in node.successors:
            if target not in held:
                held[target] = now
                work.append(target)
            elif held[target] != now:
                for name in sorted({n for n, _ in set(now) ^ set(held[target])}):
                    at = program.nodes[target].step.origin.span
                    message = f"`{name}` is held on one way to this step and not on another"
                    found.setdefault(("E308", name), Diagnostic("E308", message, at, "lock or unlock on both"))
        if not node.successors and now:
            for name, _ in now:
                message = f"`{program.name}` ends with `{name}` still locked"
                hint = f"unlock it, or write `with {name} {{ ... }}`"
                found.setdefault(("E309", name), Diagnostic("E309", message, step.origin.span, hint))
    return list(found.values())


def deepest(program: Program) -> dict[str, int]:
    """How many locks of each name the program holds at once at most. The program must be balanced."""
    held: dict[int, _Held] = {program.entry: ()}
    most: dict[str, int] = {}
    work = [program.entry]
    while work:
        index = work.pop()
        node, counts = program.nodes[index], dict(held[index])
        if node.step.op in ("lock", "unlock"):
            name = node.step.names[0]
            counts[name] = counts.get(name, 0) + (1 if node.step.op == "lock" else -1)
            most[name] = max(most.get(name, 0), counts[name])
        for target in node.successors:
            if target not in held:
                held[target] = tuple(counts.items())
                work.append(target)
    return most
