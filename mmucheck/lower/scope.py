"""What the exploration of two VMM threads keeps of a state, and what it may leave out, as far as a group of properties can tell.

Why nothing is lost by what is left out: mmucheck/README.md, "Two threads".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmucheck.ir.formulas import CACHE_LOOKS, FREED_LOOKS, about_entries, only_breaks
from mmucheck.ir.program import Local, Look, PropertyDecl, Step, System, subexpressions
from mmucheck.lower.unroll import left_by_handlers, runs_once
from mmucheck.lower.witness import witness_layout
from mmucheck.machine.concolic import Concolic
from mmucheck.machine.memo import Memo, Recording
from mmucheck.machine.state import CACHE_FIELDS, PAGE_FIELDS, REGION_FIELDS, UNLINKED, Layout, Thread, cache_slots, threads_of
from mmucheck.machine.steps import Machine
from mmucheck.machine.terms import Term, Terms
from mmucheck.machine.visibility import changes_upper, losing_matters, unlinks, variables
from mmucheck.records import record

State = tuple[Any, ...]
Truth = Callable[[Term], bool]
Remember = Callable[[Callable[[Recording], Any]], Memo]
"""Makes a memory of a function of the state."""

ENTRIES = (("page", PAGE_FIELDS), ("region", REGION_FIELDS))
IDLE, DONE = -1, -2
"""Where a handler is that does not run: it may start, or it has had its run."""
ALIVE = "alive.table"
"""How many tables beside the witness a state tells apart: they are numbered in order of appearance."""

_PERMISSIONS = frozenset({"cached_writable", "writable_at", "pte_writable", "pmd_writable"})


class Scope:
    """A system with two VMM threads as a group of properties sees it. Nothing in it changes. ``kept``: how many
    VMM threads run, all if 0; of the others it is only known what they could do. ``running``: those that do, and the handlers."""

    def __init__(self, system: System, properties: Sequence[PropertyDecl], kept: int = 0, terms: Terms | None = None) -> None:
        self.system, self.properties = system, tuple(properties)
        self.terms = Terms() if terms is None else terms
        self.domain = Concolic(self.terms)
        self.threads = threads_of(system)
        self.paths = tuple(t for t in self.threads if not t.device)
        self.handlers = tuple(t for t in self.threads if t.device)
        self.kept = kept
        self.running = (*self.paths[:kept], *self.handlers) if kept else self.threads
        kinds = {kind for p in properties for _, kind in p.binders}
        full = witness_layout(self.running)
        self.frames, self.tables = "frame" in kinds, "table" in kinds
        layout = Layout(full.pages, full.regions, full.frames if self.frames else (), full.tables if self.tables else (), True)
        self.machine: Machine[Any] = Machine(self.domain, system, layout)
        upper = any(changes_upper(n.step) for t in system.threads for n in t.nodes)
        self.fills = [f for f in self.machine.fills() if not f.via or upper]
        self.walks = any(f.via for f in self.fills)
        self.evicts = losing_matters(self.threads, properties)
        self.entries = [(d.name, *entry) for d in system.devices for entry in cache_slots(d, layout)]
        """What devices cache: (device, cache, slot, pages or tables)."""
        self.named = frozenset(n for p in properties for n in variables(p.formula))
        """The variables of devices that properties ask for."""
        self.writes = any(e.name == "cached_writable" for p in properties for e in subexpressions(p.formula) if isinstance(e, Look))
        self.permits = any(e.name in _PERMISSIONS for p in properties for e in subexpressions(p.formula) if isinstance(e, Look))
        """Whether anybody asks what entries permit, beside the steps of the paths."""
        self.eager = not self.evicts and all(only_breaks(p.formula, CACHE_LOOKS) for p in properties)
        """More entries in caches only break more: what can be filled is filled at once, and what nobody asks about is forgotten."""
        self.silent = self.eager and all(about_entries(p.formula) for p in properties)
        """Nothing breaks where no device holds anything."""
        self.once = self.silent and self._one_run()
        """Whether it is enough to follow one run of one handler, or none and an entry that is there at the start."""

    def asked(self, of: str) -> bool:
        """Whether anybody asks what a cache of pages, or of tables, holds."""
        return self.frames if of == "pages" else self.tables or (self.frames and self.walks)

    def _one_run(self) -> bool:
        """Whether all that a property can be about is one entry, which one run of a handler put there or which was there at the start
        (mmucheck/README.md, "Two threads")."""
        if not self.handlers or not all(runs_once(h, self.threads, self.system) for h in self.handlers):
            return False
        if any(c.source or c.of != "pages" for d in self.system.devices for c in d.caches) or not self.frames or self.tables:
            return False
        if not all(left_by_handlers(p, self.handlers) <= {"cached"} and only_breaks(p.formula, FREED_LOOKS) for p in self.properties):
            return False
        for handler in self.handlers:
            fills = fills_of(handler)
            if len(fills) != 1 or not isinstance(fills[0].args[1], Local):
                return False
            if sum(fills[0].args[1].name in n.step.results for n in handler.program.nodes) != 1:
                return False
        return True


@record
class Shape:
    """How states are laid out: the names of what is kept, the place of each in the tuple, and the values of what has no place."""

    names: tuple[str, ...]
    places: Mapping[str, int]
    fixed: Mapping[str, Any]


def shape(scope: Scope, start: Mapping[str, Any]) -> Shape:
    """The layout of the states that come of a start. Locks for which nobody ever waits have no place."""
    modes: dict[str, list[tuple[str, str]]] = {}
    for thread in scope.threads:
        for node in thread.program.nodes:
            if node.step.op == "lock":
                modes.setdefault(node.step.names[0], []).append((thread.name, node.step.names[1]))
    idle = [k for k, takers in modes.items() if len({t for t, _ in takers}) < 2 or all(mode == "read" for _, mode in takers)]
    fixed: dict[str, Any] = {name: 0 for lock in idle for name in (f"lock.{lock}", f"lock.{lock}.readers")}
    for device, cache, slot, of in scope.entries if scope.eager else ():
        if not scope.asked(of):
            fixed |= {f"{device}.{cache}.{slot}.{field}": 0 for field in CACHE_FIELDS[of]}
    if scope.kept and any(unlinks(n.step) for t in scope.system.threads for n in t.nodes):
        fixed[UNLINKED] = True  # in a crowd somebody will have done so before long
    names = tuple(sorted(n for n in start if n not in fixed))
    return Shape(names, {name: i for i, name in enumerate(names)}, fixed)


def fills_of(handler: Thread) -> list[Step]:
    """The steps with which a handler fills a cache."""
    return [n.step for n in handler.program.nodes if n.step.op == "fill"]
