"""Proofs for programs with loops: an inductive invariant at every loop head, found by IC3 over atoms.

IC3 (Bradley, VMCAI 2011) in the form that blocks cubes of predicates instead of states (Cimatti and others, TACAS 2014,
without refinement). Frame k over-approximates what k edges reach; a clause is a set of atoms that cannot all hold. When two
frames are equal, that frame is an invariant. It is believed only after ``check_invariant`` has decided initiation, consecution
and safety with fresh solvers that share nothing with the search, which is done by a SAT solver on the same steps.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from mmucheck.engines.search import Budget, Search
from mmucheck.engines.solver import Limits, Solver
from mmucheck.engines.solver import Literal as Named
from mmucheck.engines.verdicts import InternalError, OutOfBudget
from mmucheck.ir.program import PropertyDecl
from mmucheck.lower.cuts import CutSystem, Edge
from mmucheck.lower.unroll import Lowering
from mmucheck.machine.terms import Term, postorder
from mmucheck.records import record

MAX_LEVELS = 60
MAX_BLOCKED = 4000
ALWAYS = 10_000
"""The level of clauses that hold by construction."""

Literal = tuple[int, bool]
Cube = frozenset[Literal]


@record
class Proof:
    """``invariant``: the clauses as text, or None. ``exhausted``: the method itself gave up (not a limit of time)."""

    invariant: tuple[str, ...] | None
    reason: str = ""
    exhausted: bool = False


class _GiveUp(Exception):
    def __init__(self, reason: str, exhausted: bool) -> None:
        super().__init__(reason)
        self.reason, self.exhausted = reason, exhausted


class Induction:
    """The search for one system; frames are kept from one property to the next, since they say only what is reachable."""

    def __init__(self, lowering: Lowering, properties: Sequence[PropertyDecl], limits: Limits) -> None:
        self.system = CutSystem(lowering)
        self.properties = tuple(properties)
        self.terms, self.limits = lowering.terms, limits
        self._budget = Budget()
        self.blocked: list[dict[int, list[Cube]]] = [{h: [] for h in self.system.heads} for _ in range(2)]
        self._searches: dict[int | None, Search] = {}
        self._known = {h: self._exclusive(h) for h in self.system.heads}
        self._choices: dict[int, list[Term]] = {}
        self._lifts = 0
        self._bad = ""
        self.invariant: dict[int, list[Cube]] = {}
        self._inductive: dict[int, list[Cube]] | None = None
        self._believed: dict[int, set[Cube]] = {h: set() for h in self.system.heads}
        self._own = {
            h: {v for v in postorder(self.system.states[h].values()) if v.op == "var"} | self.system.rigid for h in self.system.heads
        }

    def prove(self, prop: PropertyDecl, timeout: float = 0.0) -> Proof:
        """An invariant that excludes the property's violation, checked; ``timeout``: seconds for the search, 0 for no limit.

        Raises InternalError if the check fails.
        """
        self._budget = Budget(timeout, self.limits.rlimit)
        try:
            if not self._searches:
                self._open()
            self._bad = f"bad.{prop.name}"
            if self._ask(None, [self._bad], 0):
                return Proof(None, "the property breaks before the first loop", False)
            level = 1
            while True:
                self._strengthen(level)
                if level > MAX_LEVELS:
                    raise _GiveUp(f"no invariant within {MAX_LEVELS} steps", True)
                fixed = self._propagate(level)
                if fixed is not None:
                    return Proof(self._checked(prop, fixed))
                level += 1
        except _GiveUp as stop:
            return Proof(None, stop.reason, stop.exhausted)
        except OutOfBudget as spent:
            return Proof(None, str(spent), False)

    def _exclusive(self, head: int) -> list[Cube]:
        """A handler is at one place at a time: told at the outset, checked with the rest."""
        index = {atom: i for i, atom in enumerate(self.system.atoms[head])}
        found: list[Cube] = []
        for handler in self.system.lowering.handlers:
            places = [t for k, t in self.system.states[head].items() if k.startswith(f"{handler.name}.at.") and t in index]
            found += [frozenset({(index[x], True), (index[y], True)}) for n, x in enumerate(places) for y in places[:n]]
        return found

    # ---- solvers

    def _open(self) -> None:
        """One search for the start and one for each loop head, with every property's violation in it."""
        for source in (None, *self.system.heads):
            defined = [(f"bad.{p.name}", self.system.violations(p, source)) for p in self.properties]
            if source is not None:
                defined += [(f"a{i}", atom) for i, atom in enumerate(self.system.atoms[source])]
            for e, edge in self._edges_from(source):
                defined.append((f"go{e}", edge.guard))
                arriving = self.system.arriving(edge, self.system.atoms[edge.target])
                defined += [(f"e{e}a{i}", atom) for i, atom in enumerate(arriving)]
            assertions = self.system.lowering.assume if source is None else self.system.constraints
            self._searches[source] = Search(assertions, defined, self.limits.seed)
            if source is not None:
                variables = [v for v in postorder([t for _, t in defined]) if v.op == "var"]
                self._choices[source] = [v for v in variables if v not in self._own[source]]
        for head, found in self._known.items():
            for cube in found:
                self._tell(head, cube, ALWAYS)

    def _edges_from(self, source: int | None) -> list[tuple[int, Edge]]:
        return [(i, e) for i, e in enumerate(self.system.edges) if e.source == source]

    def _tell(self, head: int, cube: Cube, level: int) -> None:
        self._searches[head].add_clause([(f"level{level}", False), *((f"a{i}", not sign) for i, sign in sorted(cube))])

    def _literal(self, atoms: list[Term], index: int, sign: bool) -> Term:
        return atoms[index] if sign else self.terms.not_(atoms[index])

    def _ask(self, source: int | None, goal: list[Named | str], level: int) -> bool:
        """Is there a step from the start, or from a state of frame ``level`` at a head, to the goal?"""
        frames = [f"level{k}" for k in (*range(max(1, level), len(self.blocked)), ALWAYS)] if source is not None else []
        literals = [(x, True) if isinstance(x, str) else x for x in (*goal, *frames)]
        return self._searches[source].satisfiable(literals, self._budget)

    # ---- IC3

    def _strengthen(self, level: int) -> None:
        """Block every violation that frame ``level`` still allows."""
        while len(self.blocked) <= level + 1:
            self.blocked.append({h: [] for h in self.system.heads})
        for head in self.system.heads:
            while True:
                if not self._ask(head, [self._bad], level):
                    break
                self._block(self._state(head, [(self._bad, True)]), head, level)

    def _state(self, head: int, goal: list[Named]) -> Cube:
        """The state at a head in the last answer, as a cube of those atoms that make its step reach the goal.

        With every choice of the step fixed as in the answer, the goal depends on the state alone; the core of "this state, but
        not the goal" leaves out what does not matter.
        """
        search, count = self._searches[head], len(self.system.atoms[head])
        state = [(f"a{i}", search.truth(f"a{i}")) for i in range(count)]
        choices = search.values(self._choices[head])
        self._lifts += 1
        lift = f"lift{self._lifts}"
        search.add_clause([(lift, False), *((name, not sign) for name, sign in goal)])
        met = search.satisfiable([*state, *choices, (lift, True)], self._budget)
        kept = state if met else [x for x in search.core() if x in set(state)]
        search.add_clause([(lift, False)])
        return frozenset((int(name[1:]), sign) for name, sign in kept)

    def _block(self, cube: Cube, head: int, level: int) -> None:
        counter = 0
        queue: list[tuple[int, int, int, Cube]] = [(level, counter, head, cube)]
        while queue:
            k, _, at, goal = heapq.heappop(queue)
            if self._is_blocked(goal, at, k):
                continue
            if sum(len(c) for by_head in self.blocked for c in by_head.values()) > MAX_BLOCKED:
                raise _GiveUp("too many clauses", True)
            found = self._predecessor(goal, at, k)
            if isinstance(found, frozenset):
                smaller = self._generalise(goal, found, at, k)
                top = k
                while top < level and not self._reaches(smaller, at, top + 1):
                    top += 1
                self.blocked[top][at].append(smaller)
                self._tell(at, smaller, top)
                if top < level:
                    counter += 1
                    heapq.heappush(queue, (top + 1, counter, at, goal))
                continue
            source, state = found
            if source is None or k <= 1:
                raise _GiveUp("the atoms are too coarse: a run of the abstraction breaks the property", True)
            counter += 1
            heapq.heappush(queue, (k - 1, counter, source, state))
            counter += 1
            heapq.heappush(queue, (k, counter, at, goal))

    def _is_blocked(self, cube: Cube, head: int, level: int) -> bool:
        return any(clause <= cube for by_head in self.blocked[level:] for clause in by_head[head])

    def _predecessor(self, cube: Cube, head: int, level: int) -> Cube | tuple[int | None, Cube]:
        """A state one edge before the cube in frame ``level - 1``, or the part of the cube that no such state can reach."""
        needed: set[Literal] = set()
        for e, edge in enumerate(self.system.edges):
            if edge.target != head or (edge.source is not None and level <= 1):
                continue
            names: dict[Named, Literal] = {(f"e{e}a{i}", sign): (i, sign) for i, sign in sorted(cube)}
            goal: list[Named] = [(f"go{e}", True), *names]
            if self._ask(edge.source, list(goal), level - 1):
                return edge.source, self._state(edge.source, goal) if edge.source is not None else frozenset()
            needed |= {names[c] for c in self._searches[edge.source].core() if c in names}
        return frozenset(needed)

    def _reaches(self, cube: Cube, head: int, level: int) -> bool:
        return not isinstance(self._predecessor(cube, head, level), frozenset)

    def _generalise(self, cube: Cube, core: Cube, head: int, level: int) -> Cube:
        """Drop atoms while nothing in the frame before reaches what is left."""
        smaller = core or cube
        for literal in sorted(smaller):
            if len(smaller) == 1 or literal not in smaller:
                continue
            found = self._predecessor(smaller - {literal}, head, level)
            if isinstance(found, frozenset):
                smaller = found or smaller - {literal}
        return smaller

    def _propagate(self, level: int) -> int | None:
        """Push clauses up; a frame equal to the next is an invariant."""
        for k in range(1, level + 1):
            for head in self.system.heads:
                for cube in list(self.blocked[k][head]):
                    if not self._reaches(cube, head, k + 1):
                        self.blocked[k][head].remove(cube)
                        self.blocked[k + 1][head].append(cube)
                        self._tell(head, cube, k + 1)
            if not any(self.blocked[k].values()):
                return k
        return None

    # ---- the check

    def _checked(self, prop: PropertyDecl, level: int) -> tuple[str, ...]:
        self.invariant = {
            h: sorted({*self._known[h], *(c for by_head in self.blocked[level:] for c in by_head[h])}, key=sorted)
            for h in self.system.heads
        }
        terms = self.clauses(self.invariant)
        failed = check_invariant(self.system, prop, terms, self.limits, self.invariant == self._inductive)
        if failed.endswith("unknown"):
            raise _GiveUp(f"the check of the invariant was not decided in time: {failed}", False)
        if failed:
            raise InternalError(f"{prop.name}: the invariant fails its check: {failed}")
        self._inductive = self.invariant
        for head, cubes in self.invariant.items():
            self._believed[head].update(cubes)
        return tuple(repr(t) for h in self.system.heads for t in terms[h])

    def all_clauses(self) -> dict[int, list[Term]]:
        """The invariants of all properties proved so far as one, which excludes what each of them excludes."""
        return self.clauses({h: sorted(cubes, key=sorted) for h, cubes in self._believed.items()})

    def clauses(self, invariant: Mapping[int, Sequence[Cube]]) -> dict[int, list[Term]]:
        """For each head, one clause for every cube that is excluded there."""
        atoms = self.system.atoms
        return {
            h: [self.terms.or_(*(self._literal(atoms[h], i, not sign) for i, sign in sorted(c))) for c in cubes]
            for h, cubes in invariant.items()
        }


def obligations(
    system: CutSystem, properties: Sequence[PropertyDecl], invariant: dict[int, list[Term]]
) -> list[tuple[str, list[Term]]]:
    """(name, assertions that must be unsatisfiable) for initiation, consecution and safety of an invariant."""
    terms = system.terms

    def broken(head: int | None) -> Term:
        return terms.or_(*(system.violations(p, head) for p in properties))

    found: list[tuple[str, list[Term]]] = [("init-safe", [*system.lowering.assume, broken(None)])]
    for i, edge in enumerate(system.edges):
        arriving = system.arriving(edge, invariant[edge.target])
        missed = terms.or_(*(terms.not_(t) for t in arriving))
        known = list(system.lowering.assume) if edge.source is None else [*system.constraints, *invariant[edge.source]]
        kind = "init" if edge.source is None else "step"
        found.append((f"{kind}-{i}", [*known, edge.guard, missed]))
    for head in system.heads:
        found.append((f"safe-{head}", [*system.constraints, *invariant[head], broken(head)]))
    return found


def check_invariant(system: CutSystem, prop: PropertyDecl, invariant: dict[int, list[Term]], limits: Limits, inductive: bool) -> str:
    """Decide each obligation with a solver of its own; the name of the first that fails, or an empty string. ``inductive``: the very
    same invariant has passed for another property, so that only safety is left."""
    for name, assertions in obligations(system, [prop], invariant):
        if system.terms.false in assertions or (inductive and "safe" not in name):
            continue
        answer = Solver(assertions, (), limits).check()
        if answer.status != "unsat":
            return f"{name} is {answer.status}"
    return ""
