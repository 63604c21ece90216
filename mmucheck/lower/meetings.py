"""Who can notice what: where threads have been, whether they met there, and which steps are one thread's own affair.

Threads that never meet at an address other than the witness's have their slots and locks there to themselves (mmucheck/README.md, "Two
threads": *Fewer states*).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from operator import attrgetter
from typing import Any, cast

from mmucheck.ir.program import Step
from mmucheck.lower.scope import Scope, Shape, Truth
from mmucheck.lower.unroll import at_own_page
from mmucheck.machine.looks import View
from mmucheck.machine.memo import Recording, Result
from mmucheck.machine.state import Thread
from mmucheck.machine.terms import Term
from mmucheck.machine.world import addresses, of_whole_table

Visit = tuple[str, str, Term]
"""(thread, kind of place, key): where a thread has been."""

CONSTANTS = frozenset({"page.a.addr", "page.a.key", "region.a.key", "frame.f.id", "table.t.id"})
"""What no step changes."""
_index: Callable[[Term], int] = attrgetter("index")


class Meetings:
    """Where threads have been since ``begin``. ``met``: one set of visits for each way of each step."""

    def __init__(self, scope: Scope, start: Mapping[str, Any]) -> None:
        self._terms, self._domain, self._machine = scope.terms, scope.domain, scope.machine
        system = scope.system
        self._locks = {k.name: k for k in (*system.locks, *(k for d in system.devices for k in d.locks))}
        self._key: dict[str, Term] = {"page": start["page.a.key"], "region": start["region.a.key"]}
        self._whole = any(of_whole_table(n.step) for t in scope.threads for n in t.program.nodes)
        self._harmless = frozenset(h.name for h in scope.handlers if at_own_page(h, scope.properties)) if scope.once else frozenset()
        self.met: set[frozenset[Visit]] = set()

    def begin(self) -> None:
        """Nobody has been anywhere yet."""
        self.met = set()

    def spaces(self) -> frozenset[str]:
        """Kinds of places at which threads may meet: pages, regions, and families of locks by address."""
        families = {f"lock.{k.name}" for k in self._locks.values() if k.key == "address"}
        return frozenset({"page", "region", *families})

    def visits(self, run: Recording, thread: Thread, step: Step) -> list[Visit]:
        """Which pages, regions and locks a step is about."""
        view: View[Any] = View(run, f"{thread.name}.")  # type: ignore[arg-type]
        looks, found = self._machine.looks, []

        def visit(space: str, key: Any) -> None:
            found.append((thread.name, space, cast(Term, self._domain.force(key))))

        for expr in [*addresses(step), *(step.args[:1] if step.op == "fill" or of_whole_table(step) else ())]:
            at = looks.value(expr, view)
            visit("page", looks.page_key(at))
            visit("region", looks.region_key(at))
        if step.op in ("lock", "unlock"):
            lock = self._locks[step.names[0]]
            if lock.key == "address":
                visit(f"lock.{lock.name}", self._machine.lock_key(step, lock, view))
        return found

    def where(self, truth: Truth) -> frozenset[str]:
        """The kinds of places at which two threads have met so far, other than at the witness's page and region."""
        found: set[str] = set()
        at: dict[tuple[str, str], set[Term]] = {}
        for visits in self.met:
            for name, space, key in visits:
                at.setdefault((name, space), set()).add(key)
        for one, space in sorted(at):
            for other, same_space in sorted(at):
                if one >= other or space != same_space or space in found:
                    continue
                if self._meet_at(at[one, space], at[other, space], self._key.get(space), truth):
                    found.add(space)
        regions = [keys for (_, space), keys in sorted(at.items()) if space == "region"] if self._whole else []
        if any(self._meet_at(keys, others, None, truth) for keys, others in combinations(regions, 2)):
            found.add("page")  # the witness's region, too, has other pages
        return frozenset(found)

    def _meet_at(self, keys: set[Term], others: set[Term], own: Term | None, truth: Truth) -> bool:
        return any(self._meet(k, o, own, truth) for k in sorted(keys, key=_index) for o in sorted(others, key=_index))

    def at_witness(self, truth: Truth) -> bool:
        """Whether a thread has been at the witness's entries so far. An allocation looks at them, too: for the frame asked about, which
        they do not map where ``Starts.alike`` leaves out a start. So does a handler, which finds another frame there: then it has done
        nothing (``Scope.once``), unless it fills what it found elsewhere."""
        places = sorted(
            {(space, key.index, key) for visits in self.met for name, space, key in visits
             if space in self._key and name not in self._harmless}
        )  # fmt: skip
        return any(self._meet(key, self._key[space], None, truth) for space, _, key in places)

    def _meet(self, one: Term, other: Term, own: Term | None, truth: Truth) -> bool:
        def equal(a: Term, b: Term) -> bool:
            term = self._terms.eq(a, b)
            return bool(term.value) if term.op == "const" else truth(term)

        return equal(one, other) and not (own is not None and equal(one, own))


class Territories:
    """Which places of a state are a thread's own, as long as threads do not meet."""

    def __init__(self, shape: Shape) -> None:
        self._places = shape.places
        self._known: dict[tuple[str, frozenset[str]], tuple[frozenset[int], frozenset[int]]] = {}

    def is_private(self, thread: Thread, result: Result, apart: frozenset[str]) -> bool:
        """Whether nobody else can notice what a thread did, nor change it. ``apart``: the kinds of places at which threads never meet."""
        known = result.private.get(apart)
        if known is None:
            own, harmless = self._territory(thread, apart)
            changes = result.value[0]
            written = frozenset(place for place, _ in changes) if changes is not None else frozenset()
            known = result.private[apart] = result.reads <= own | harmless and written <= own
        return known

    def _territory(self, thread: Thread, apart: frozenset[str]) -> tuple[frozenset[int], frozenset[int]]:
        """(places that only this thread reads and writes, places whose changes make no difference to it)."""
        found = self._known.get((thread.name, apart))
        if found is None:
            own: set[int] = set()
            harmless: set[int] = set()
            for name, place in self._places.items():
                kind, _, rest = name.partition(".")
                space = kind if kind != "lock" else ".".join(name.split(".")[:2])
                mine = f".{thread.name}." in name if kind == "lock" else rest.startswith(f"{thread.name}_")
                if kind == thread.name or name.endswith(f".queued.{thread.name}") or (mine and space in apart):
                    own.add(place)
                elif name in CONSTANTS or (space in apart and (kind == "lock" or name.endswith(".key"))):
                    harmless.add(place)
            found = self._known[thread.name, apart] = (frozenset(own), frozenset(harmless))
        return found
