"""Two VMM threads, each of which runs any of the given paths any number of times.

They are looked at from one of them: that one runs a path, the rest is a thread of its own, of which only is known what it may do.
"""

from __future__ import annotations

from dataclasses import replace

from mmucheck.ir.program import Node, Nondet, Program, Step, System
from mmucheck.records import record


@record
class Crowd:
    """A system of alternatives as one of its threads sees it: ``member`` runs each of the system's programs beside ``the rest``."""

    system: System

    def member(self, number: int) -> System:
        """The program with this number beside the rest."""
        return self._beside(self.system.threads[number])

    def idle(self) -> System:
        """A thread that runs nothing beside the rest."""
        return self._beside(Program("idle", (_nothing(self.system),), 0, 0, (), {}))

    def _beside(self, program: Program) -> System:
        """Every lock of the crowd counts as taken by the thread, in steps that it never comes to: it sees who holds them."""
        rest = rest_of(self.system)
        locks = {n.step.names: n for n in rest.nodes if n.step.op == "lock"}
        unreached = tuple(Node(n.step, (program.exit,)) for n in locks.values())
        seeing = replace(program, nodes=(*program.nodes, *unreached))
        return replace(self.system, threads=(seeing, rest), crowd=False)


def rest_of(system: System) -> Program:
    """The steps of all programs side by side: what anybody else may do at some time. It is never run."""
    nodes: list[Node] = []
    entries: list[int] = []
    for program in system.threads:
        base = len(nodes)
        nodes.extend(Node(n.step, tuple(s + base for s in n.successors)) for n in program.nodes)
        entries.append(base + program.entry)
    end = len(nodes)
    nodes.append(_nothing(system))
    entry = end
    for at in entries:
        choice = Step("branch", (Nondet(f"choice{at}"),), nodes[at].step.origin)
        nodes.append(Node(choice, (at, entry)))
        entry = len(nodes) - 1
    return Program("the rest", tuple(nodes), entry, end, (), {})


def _nothing(system: System) -> Node:
    return Node(Step("nop", (), system.threads[0].nodes[0].step.origin), ())
