"""A system with loops as a transition system between loop heads.

At each head the state is made of fresh variables; from there control runs, without loops, to the heads it reaches next, to the
exit, and through places where a property may break. What no step of a loop changes stays what it was at the start
(*rigid*); what nobody reads any more is dropped; the foreign page is forgotten, which only allows more runs.
"""

from __future__ import annotations

from dataclasses import replace

from mmucheck.ir.program import Local, Program, PropertyDecl, subexpressions
from mmucheck.lower.unroll import Lowering, Place, Unrolling
from mmucheck.lower.witness import TermState
from mmucheck.machine.domain import BOOL, COUNT, KIND, NUMBER
from mmucheck.machine.state import FOREIGN_KEY_FREE
from mmucheck.machine.terms import Term, postorder
from mmucheck.names.builtins import ADDRESS_SPACE
from mmucheck.records import record

MAX_ATOMS = 200


@record
class Edge:
    """Control goes from ``source`` (None: the start) to ``target`` if ``guard``; ``after`` is the state there."""

    source: int | None
    target: int
    guard: Term
    after: TermState


class CutSystem:
    """The loop heads of a lowering, the edges between them, and the atoms an invariant may be made of."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering, self.terms = lowering, lowering.terms
        program = lowering.threads[0].program
        self.heads = tuple(sorted(program.back_edge_targets()))
        self._live = live_locals(program)
        self.start = lowering.run([Place(program.entry, 0, self.terms.true, lowering.state)], 0, frozenset(self.heads))
        self.rigid = self._rigid_variables()
        entries = list(self.start.cuts)
        base = entries[0].state
        self._alignment = {k: min(e.state[k].zeros for e in entries) for k, v in base.items() if v.sort == NUMBER}
        self._fixed = self._first_guess(entries)
        self.states: dict[int, TermState] = {}
        self.bodies: dict[int, Unrolling] = {}
        self._settle(entries)
        self.edges = [Edge(None, e.node, e.guard, e.state) for e in entries]
        self.edges += [Edge(h, c.node, c.guard, c.state) for h in self.heads for c in self.bodies[h].cuts]
        self.constraints = [c for c in self._facts(entries) if self._is_rigid(c)]
        self.atoms = {h: self._atoms(h) for h in self.heads}

    # ---- which variables a head's state needs

    def _rigid_variables(self) -> frozenset[Term]:
        found = [self.lowering.state["page.a.addr"], self.lowering.state["frame.f.id"], self.lowering.state["table.t.id"]]
        for thread in self.lowering.threads:
            found.extend(self.lowering.state[thread.local(name)] for name, _ in thread.program.params)
        found.extend(self.lowering.state[f"{ADDRESS_SPACE}.{name}"] for name, _ in self.lowering.system.shared)
        return frozenset(v for v in postorder(found) if v.op == "var")

    def _is_rigid(self, term: Term) -> bool:
        return all(v.op != "var" or v in self.rigid for v in postorder([term]))

    def _first_guess(self, entries: list[Place]) -> dict[str, Term]:
        """What is the same rigid term at every entry; the rest varies."""
        base = entries[0].state
        return {k: v for k, v in base.items() if all(e.state[k] is v for e in entries) and self._is_rigid(v)}

    def _settle(self, entries: list[Place]) -> None:
        """Run each loop body from a head; what an arrival changes is not fixed after all. Repeat until nothing more changes."""
        while True:
            self.states = {h: self._head_state(h, entries[0].state) for h in self.heads}
            self.bodies = {
                h: self.lowering.run([Place(h, 0, self.terms.true, self.states[h])], 0, frozenset(self.heads)) for h in self.heads
            }
            arrivals = [c.state for h in self.heads for c in self.bodies[h].cuts]
            moved = {k for k, v in self._fixed.items() if any(a[k] is not v for a in arrivals)}
            for key, zeros in self._alignment.items():
                lowest = min((a[key].zeros for a in arrivals), default=zeros)
                if lowest < zeros:
                    self._alignment[key] = lowest
                    moved.add(key)
            if not moved & (set(self._fixed) | set(self._alignment)):
                return
            before = len(self._fixed)
            self._fixed = {k: v for k, v in self._fixed.items() if k not in moved}
            if len(self._fixed) == before and not any(k in self._alignment for k in moved):
                return

    def _head_state(self, head: int, like: TermState) -> TermState:
        thread = self.lowering.threads[0]
        dead = {thread.local(n) for n in thread.program.locals if n not in self._live[head]}
        state: TermState = {}
        for key, value in like.items():
            if key.startswith(("page.o", "region.o")):
                state[key] = self.terms.const(FOREIGN_KEY_FREE if key.endswith(".key") else 0, value.sort)
            elif key in dead:
                state[key] = self.terms.const(0, value.sort)
            elif key in self._fixed:
                state[key] = self._fixed[key]
            else:
                variable = self.terms.var(f"head{head}!{key}", value.sort)
                state[key] = self.terms.aligned(variable, self._alignment.get(key, 0)) if value.sort == NUMBER else variable
        return state

    def _facts(self, entries: list[Place]) -> list[Term]:
        """Conditions known at the start: assumptions on parameters, and what every guard on the way in says."""
        facts = list(self.lowering.assume)
        guards = [set(_conjuncts(e.guard)) for e in entries]
        facts.extend(sorted(set.intersection(*guards), key=lambda t: t.index))
        return facts

    # ---- atoms

    def _atoms(self, head: int) -> list[Term]:
        """Predicates over a head's state: its finite parts, where its numbers stand to the witness, and every comparison the
        program itself makes there."""
        terms, state = self.terms, self.states[head]
        found: dict[int, Term] = {}

        def add(term: Term) -> None:
            if term.op not in ("const", "not"):
                found.setdefault(term.index, term)
            elif term.op == "not":
                add(term.args[0])

        witness, key = state["page.a.addr"], state["page.a.key"]
        varying = {k: v for k, v in state.items() if not self._is_rigid(v)}
        thread = self.lowering.threads[0]
        numbers = [v for k, v in varying.items() if v.sort == NUMBER and k.startswith(f"{thread.name}.")]
        tallies = [v for k, v in varying.items() if v.sort == NUMBER and not k.startswith((f"{thread.name}.", "page.", "region."))]
        given = {self.lowering.state[thread.local(n)] for n, _ in thread.program.params}
        rigid_numbers = [v for v in given if v.sort == NUMBER]
        derived = [v for k, v in state.items() if v.sort == NUMBER and k.startswith(f"{thread.name}.") and v.op not in ("const", "var")
                   and k not in varying]  # fmt: skip
        for i, tally in enumerate(tallies):
            for other in (terms.const(0, NUMBER), terms.const(1, NUMBER), *tallies[:i]):
                add(terms.eq(tally, other))
        for name, value in varying.items():
            what = self._kind_of(name)
            if value.sort == BOOL:
                add(value)
            elif what == "kind":
                for kind in range(2 if name.startswith("page.") else 3):
                    add(terms.eq(value, terms.const(kind, KIND)))
            elif what in ("frame", "table"):
                add(terms.eq(value, state["frame.f.id" if what == "frame" else "table.t.id"]))
            elif value.sort == COUNT:
                for count in range(2):
                    add(terms.eq(value, terms.const(count, COUNT)))
        for slot in ("frame.f", "table.t"):
            refs, queued = state[f"{slot}.refs"], state[f"{slot}.queued.{self.lowering.threads[0].name}"]
            add(terms.ult(queued, refs))
            for extra in range(2 + len(self.lowering.handlers)):
                add(terms.eq(refs, terms.binary("add", queued, terms.const(extra, COUNT))))
        for number in numbers:
            add(terms.ult(witness, number))
            add(terms.ult(number, key))
            for other in sorted([*rigid_numbers, *numbers], key=lambda t: t.index):
                if other is not number:
                    add(terms.ult(number, other))
                    add(terms.ult(other, number))
        for number in sorted({*rigid_numbers, *derived}, key=lambda t: t.index):
            add(terms.ult(witness, number))
        for term in self._comparisons(head):
            add(term)
        return list(found.values())[:MAX_ATOMS]

    def _comparisons(self, head: int) -> list[Term]:
        body = self.bodies[head]
        roots = [c.guard for c in body.cuts] + [p.guard for p in body.places]
        roots += [v for place in (*body.cuts, *body.places) for v in place.state.values()]
        own = {v for v in postorder(self.states[head].values()) if v.op == "var"} | self.rigid
        closed: dict[int, bool] = {}
        found: list[Term] = []
        for term in postorder(roots):
            closed[term.index] = term in own if term.op == "var" else all(closed[a.index] for a in term.args)
            if closed[term.index] and term.op in ("=", "bvult") and not self._about_slots(term):
                found.append(term)
        return found

    @staticmethod
    def _about_slots(term: Term) -> bool:
        """Comparisons of counts with their limit and of keys with the foreign slot's say nothing of use."""
        parts = postorder([term])
        limits = {FOREIGN_KEY_FREE, (1 << COUNT) - 1}
        return any(p.op == "ite" or (p.op == "const" and p.sort >= COUNT and p.value in limits) for p in parts)

    def _kind_of(self, name: str) -> str:
        """kind, frame or table: what a state variable of a finite sort stands for; "" for others."""
        for thread in self.lowering.threads:
            if name.startswith(f"{thread.name}."):
                return {"frame": "frame", "table": "table"}.get(thread.program.locals.get(name[len(thread.name) + 1 :], ""), "")
        last = name.rsplit(".", 1)[-1] if name.count(".") > 1 else ""  # a variable is called as it likes
        return last if last in ("kind", "frame", "table") else ""

    def arriving(self, edge: Edge, atoms: list[Term]) -> list[Term]:
        """The target's atoms as they stand when control arrives over the edge."""
        mapping: dict[Term, Term] = {}
        for key, value in self.states[edge.target].items():
            for variable in postorder([value]):
                if variable.op == "var" and variable not in self.rigid:
                    mapping[variable] = edge.after[key]
        return self.terms.substitute(atoms, mapping)

    def violations(self, prop: PropertyDecl, source: int | None) -> Term:
        """The condition under which the property breaks on the way from the start or from a head to wherever control stops."""
        body = self.start if source is None else self.bodies[source]
        return self.terms.or_(*(t for _, t in self.lowering.violation(prop, body)))


def _conjuncts(term: Term) -> tuple[Term, ...]:
    return term.args if term.op == "and" else (term,)


def live_locals(program: Program) -> dict[int, frozenset[str]]:
    """For each node, the locals that may still be read before they are written."""
    reads = [
        frozenset(e.name for arg in node.step.args for e in subexpressions(arg) if isinstance(e, Local)) for node in program.nodes
    ]
    live: dict[int, frozenset[str]] = {i: frozenset() for i in range(len(program.nodes))}
    changed = True
    while changed:
        changed = False
        for i in reversed(range(len(program.nodes))):
            node = program.nodes[i]
            after = frozenset().union(*(live[s] for s in node.successors)) if node.successors else frozenset()
            now = (after - frozenset(node.step.results)) | reads[i]
            if now != live[i]:
                live[i] = now
                changed = True
    return live


__all__ = ["CutSystem", "Edge", "live_locals", "replace"]
