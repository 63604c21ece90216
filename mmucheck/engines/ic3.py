"""IC3: clauses over the atoms of a system's loop heads that exclude a property's violation.

IC3 (Bradley, VMCAI 2011) in the form that blocks cubes of predicates instead of states (Cimatti and others, TACAS 2014,
without refinement). Frame k over-approximates what k edges reach; a clause is a set of atoms that cannot all hold. When two
frames are equal, that frame is an invariant, so far as the search can tell: it asks a SAT solver, on formulas that may be narrower
than the real ones. See mmucheck.engines.induction for what is believed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from mmucheck.engines.search import Budget, Search
from mmucheck.engines.solver import Limits
from mmucheck.ir.program import PropertyDecl
from mmucheck.lower.cuts import CutSystem, Edge
from mmucheck.machine.terms import postorder

MAX_LEVELS = 60
MAX_BLOCKED = 4000
ALWAYS = 10_000
"""The level of clauses that hold by construction."""

Literal = tuple[int, bool]
Cube = frozenset[Literal]
Cubes = dict[int, list[Cube]]
"""For each loop head, what is excluded there."""


class GaveUp(Exception):
    """``exhausted``: the method itself is at its end (not a limit of time)."""

    def __init__(self, reason: str, exhausted: bool) -> None:
        super().__init__(reason)
        self.reason, self.exhausted = reason, exhausted


class Ic3:
    """The search for one system; frames are kept from one property to the next, since they say only what is reachable."""

    def __init__(self, system: CutSystem, properties: Sequence[PropertyDecl], limits: Limits, narrow: bool) -> None:
        self.system, self.narrow = system, narrow
        self.properties = tuple(properties)
        self._seed = limits.seed
        self._budget = Budget()
        self.blocked: list[Cubes] = [{h: [] for h in system.heads} for _ in range(2)]
        self._searches: dict[int | None, Search] = {}
        self._known = {h: self._exclusive(h) for h in system.heads}
        self._atoms: dict[int, list[int]] = {}
        self._arriving: dict[int, list[int]] = {}
        self._choices: dict[int, list[int]] = {}
        self._bad = ""
        self._top = 1
        self._goal: list[int] = []
        self._own = {h: {v for v in postorder(system.states[h].values()) if v.op == "var"} | system.rigid for h in system.heads}

    def exclude(self, prop: PropertyDecl, budget: Budget) -> Cubes:
        """What no run comes to, so that the property holds. Raises GaveUp and OutOfBudget."""
        self._budget = budget
        if not self._searches:
            self._open()
        self._bad = f"bad.{prop.name}"
        if self._ask(None, [self._searches[None].number(self._bad)], 0):
            raise GaveUp("the property breaks before the first loop", False)
        for level in range(1, MAX_LEVELS + 1):
            self._strengthen(level)
            if level < self._top:  # an earlier property went further: its clauses need not be pushed once more at each level
                continue
            self._top = level
            fixed = self._propagate(level)
            if fixed is not None:
                return self._trimmed(
                    {h: [*self._known[h], *(c for by_head in self.blocked[fixed:] for c in by_head[h])] for h in self.system.heads}
                )
        raise GaveUp(f"no invariant within {MAX_LEVELS} steps", True)

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
            search = self._searches[source] = Search(assertions, defined, self._seed, self.narrow)
            for e, edge in self._edges_from(source):
                self._arriving[e] = [search.number(f"e{e}a{i}") for i in range(len(self.system.atoms[edge.target]))]
            if source is not None:
                self._atoms[source] = [search.number(f"a{i}") for i in range(len(self.system.atoms[source]))]
                variables = [v for v in postorder([t for _, t in defined]) if v.op == "var"]
                self._choices[source] = search.bits(v for v in variables if v not in self._own[source])
        for head, found in self._known.items():
            for cube in found:
                self._tell(head, cube, ALWAYS)

    def _edges_from(self, source: int | None) -> list[tuple[int, Edge]]:
        return [(i, e) for i, e in enumerate(self.system.edges) if e.source == source]

    def _tell(self, head: int, cube: Cube, level: int) -> None:
        search, atoms = self._searches[head], self._atoms[head]
        search.add_clause([-search.number(f"level{level}"), *(-atoms[i] if sign else atoms[i] for i, sign in sorted(cube))])

    def _ask(self, source: int | None, goal: list[int], level: int) -> bool:
        """Is there a step from the start, or from a state of frame ``level`` at a head, to the goal?"""
        search = self._searches[source]
        levels = (*range(max(1, level), len(self.blocked)), ALWAYS) if source is not None else ()
        return search.satisfiable([*goal, *(search.number(f"level{k}") for k in levels)], self._budget)

    # ---- IC3

    def _strengthen(self, level: int) -> None:
        """Block every violation that frame ``level`` still allows."""
        while len(self.blocked) <= level + 1:
            self.blocked.append({h: [] for h in self.system.heads})
        for head in self.system.heads:
            bad = self._searches[head].number(self._bad)
            while self._ask(head, [bad], level):
                self._block(self._state(head, [bad]), head, level)

    def _state(self, head: int, goal: list[int]) -> Cube:
        """The state at a head in the last answer, as a cube of those atoms that make its step reach the goal.

        With every choice of the step fixed as in the answer, the goal depends on the state alone; the core of "this state, but
        not the goal" leaves out what does not matter.
        """
        search, atoms = self._searches[head], self._atoms[head]
        found = search.values([*atoms, *self._choices[head]])
        lift = search.fresh()
        search.add_clause([-lift, *(-x for x in goal)])
        met = search.satisfiable([*found, lift], self._budget)
        core = frozenset(found) if met else search.core()
        search.add_clause([-lift])
        return frozenset((i, x > 0) for i, x in enumerate(found[: len(atoms)]) if x in core)

    def _block(self, cube: Cube, head: int, level: int) -> None:
        counter = 0
        queue: list[tuple[int, int, int, Cube]] = [(level, counter, head, cube)]
        while queue:
            k, _, at, goal = heapq.heappop(queue)
            if self._is_blocked(goal, at, k):
                continue
            if sum(len(c) for by_head in self.blocked for c in by_head.values()) > MAX_BLOCKED:
                raise GaveUp("too many clauses", True)
            source, core = self._reached(goal, at, k)
            if core is not None:
                smaller = self._generalise(goal, core, at, k)
                top = k
                while top < level and self._reached(smaller, at, top + 1, started=True)[1] is not None:
                    top += 1
                self.blocked[top][at].append(smaller)
                self._tell(at, smaller, top)
                if top < level:
                    counter += 1
                    heapq.heappush(queue, (top + 1, counter, at, goal))
                continue
            if source is None or k <= 1:
                raise GaveUp("the atoms are too coarse: a run of the abstraction breaks the property", True)
            counter += 1
            heapq.heappush(queue, (k - 1, counter, source, self._state(source, self._goal)))
            counter += 1
            heapq.heappush(queue, (k, counter, at, goal))

    def _is_blocked(self, cube: Cube, head: int, level: int) -> bool:
        return any(clause <= cube for by_head in self.blocked[level:] for clause in by_head[head])

    def _reached(self, cube: Cube, head: int, level: int, started: bool = False) -> tuple[int | None, Cube | None]:
        """Where an edge into the cube from frame ``level - 1`` begins (``_goal`` is then what ``_state`` wants), and None; or None and
        the part of the cube that no such edge comes to. ``started``: of an edge from the start this is known already."""
        needed: set[Literal] = set()
        for e, edge in enumerate(self.system.edges):
            if edge.target != head or (started if edge.source is None else level <= 1):
                continue
            self._goal = self._into(e, cube)
            if self._ask(edge.source, self._goal, level - 1):
                return edge.source, None
            core = self._searches[edge.source].core()
            arriving = self._arriving[e]
            needed |= {(i, sign) for i, sign in cube if (arriving[i] if sign else -arriving[i]) in core}
        return None, frozenset(needed)

    def _into(self, e: int, cube: Cube) -> list[int]:
        """Control goes over an edge and arrives in the cube."""
        arriving = self._arriving[e]
        go = self._searches[self.system.edges[e].source].number(f"go{e}")
        return [go, *(arriving[i] if sign else -arriving[i] for i, sign in sorted(cube))]

    def _generalise(self, cube: Cube, core: Cube, head: int, level: int) -> Cube:
        """Drop atoms while nothing in the frame before reaches what is left."""
        smaller = core or cube
        for literal in sorted(smaller):
            if len(smaller) == 1 or literal not in smaller:
                continue
            found = self._reached(smaller - {literal}, head, level)[1]
            if found is not None:
                smaller = found or smaller - {literal}
        return smaller

    def _propagate(self, level: int) -> int | None:
        """Push clauses up; a frame equal to the next is an invariant."""
        for k in range(1, level + 1):
            for head in self.system.heads:
                for cube in list(self.blocked[k][head]):
                    if self._reached(cube, head, k + 1, started=True)[1] is not None:
                        self.blocked[k][head].remove(cube)
                        self.blocked[k + 1][head].append(cube)
                        self._tell(head, cube, k + 1)
            if not any(self.blocked[k].values()):
                return k
        return None

    def _trimmed(self, invariant: Cubes) -> Cubes:
        """What of an invariant the property rests on, and what that rests on in turn: the rest costs the check time for nothing."""
        marks: dict[int, dict[int, Cube]] = {}
        for head, cubes in invariant.items():
            search, atoms = self._searches[head], self._atoms[head]
            marks[head] = {search.fresh(): cube for cube in cubes}
            for mark, cube in marks[head].items():
                search.add_clause([-mark, *(-atoms[i] if sign else atoms[i] for i, sign in sorted(cube))])
        needed: set[tuple[int, Cube]] = set()
        rests_on: list[tuple[int | None, list[int]]] = [(h, [self._searches[h].number(self._bad)]) for h in self.system.heads]
        while rests_on:
            source, goal = rests_on.pop()
            if source is None:
                continue
            search = self._searches[source]
            if search.satisfiable([*goal, *marks[source]], self._budget):
                return invariant  # it does not hold as it stands, and the check will say so
            core = search.core()
            for mark, cube in marks[source].items():
                if mark in core and (source, cube) not in needed:
                    needed.add((source, cube))
                    rests_on += [(edge.source, self._into(e, cube)) for e, edge in enumerate(self.system.edges) if edge.target == source]
        return {h: [c for c in cubes if (h, c) in needed] for h, cubes in invariant.items()}
