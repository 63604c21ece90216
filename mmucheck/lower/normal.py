"""The normal form of a state, in which what nobody can tell apart is the same, and what a state tells of properties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmucheck.ir.program import Expr, Op, PropertyDecl
from mmucheck.lower.one_run import SequenceNumbers, permissions
from mmucheck.lower.scope import ALIVE, Remember, Scope, Shape, State, Truth
from mmucheck.lower.unroll import Act
from mmucheck.lower.witness import violated
from mmucheck.machine.concolic import ANY, FIRST_OTHER, Value
from mmucheck.machine.memo import Recording
from mmucheck.machine.state import PMD_HUGE, PTE_PRESENT
from mmucheck.machine.steps import Fill
from mmucheck.records import record

MEANT = (
    ("page.a.kind", PTE_PRESENT, ("page.a.frame", "page.a.write")),
    ("region.a.kind", PMD_HUGE, ("region.a.frame", "region.a.write")),
)
"""What entries hold that only one kind of entry gives a meaning to."""


@record
class Told:
    """What a state tells of properties: the names of those it breaks, and of those it says anything about."""

    broken: tuple[str, ...]
    says: tuple[str, ...]


class Undecided(ValueError):
    """What a state comes to by itself is open, or depends on a number that is not its thread's own."""


class NormalForm:
    """Caches filled as far as that only breaks more, entries that nobody asks about forgotten, tables numbered in order of appearance,
    sequence numbers by rank. ``coarse``: what entries permit is open each time that somebody looks, unless a property asks.
    ``taken``: gets the fills that were seen; ``renamed``: the number that each table was given the last time; ``settled``: what settles,
    remembered."""

    def __init__(self, scope: Scope, shape: Shape, remember: Remember, taken: set[Act], coarse: bool = False) -> None:
        self._scope, self._taken, self._coarse, self._open = scope, taken, coarse, coarse and not scope.permits
        self._domain, self._machine = scope.domain, scope.machine
        self._tables = [place for name, place in shape.places.items() if is_table(scope, name)]
        self._alive = shape.places[ALIVE]
        self._sequences = SequenceNumbers(scope, shape)
        self._permissions = permissions(scope)
        self.settled = remember(self._settled)
        self.renamed: dict[int, int] = {}

    def __call__(self, values: list[Any], truth: Truth) -> State:
        """The state these values come to; they are used up. Raises Undecided if that is open."""
        settled, *others = self.settled(values, truth)
        if others:
            raise Undecided("what a cache holds, or a table that was linked, is not told from others")
        for place, value in settled.value:
            values[place] = value
        self._sequences.settle(values)
        names: dict[int, int] = {}
        for place in self._tables:
            ident = values[place]
            if ident >= FIRST_OTHER:
                name = names.get(ident)
                if name is None:
                    name = names[ident] = len(names) + FIRST_OTHER
                values[place] = name
        self.renamed = names
        values[self._alive] = len(names)
        return tuple(values)

    def _settled(self, run: Recording) -> Any:
        while self._scope.eager and any(self._fill_more(run, fill) for fill in self._scope.fills):
            pass
        self._forget_entries(run)
        return run.changes()

    def _fill_more(self, run: Recording, fill: Fill) -> bool:
        """Whether the fill happens: not if nobody asks for what it brings, or the entry is there already."""
        entry = f"{fill.device}.{fill.cache.name}.{fill.slot.name}"
        pages = fill.cache.of == "pages"
        allowed, written = self._machine.fill(run, fill)  # type: ignore[arg-type]
        target = written[f"{entry}.{'frame' if pages else 'table'}"]
        if not self._domain.boolean(allowed):
            return False
        self._taken.add((fill.device, fill.cache.name, 0))
        if not self._matters(run, fill.cache.of, target):
            return False
        held = self._domain.boolean(run[f"{entry}.valid"])
        if held and self._matters(run, fill.cache.of, run[f"{entry}.{'frame' if pages else 'table'}"]):
            gains = pages and self._scope.writes and self._domain.boolean(written[f"{entry}.write"])
            if not gains or self._domain.boolean(run[f"{entry}.write"]):
                return False
        for name, value in written.items():
            run[name] = value
        return True

    def _matters(self, run: Recording, of: str, ident: Value) -> bool:
        """Whether anybody asks for an entry with this frame or table."""
        scope = self._scope
        if of == "pages":
            return scope.frames and self._domain.boolean(self._domain.eq(ident, run["frame.f.id"]))
        if scope.frames and scope.walks:
            return True
        return scope.tables and self._domain.boolean(self._domain.eq(ident, run["table.t.id"]))

    def _forget_entries(self, run: Recording) -> None:
        for device, cache, slot, of in self._scope.entries:
            entry = f"{device}.{cache}.{slot}"
            ident = f"{entry}.{'frame' if of == 'pages' else 'table'}"
            held = self._domain.boolean(run[f"{entry}.valid"])
            if held and self._scope.eager and not self._matters(run, of, run[ident]):
                run[f"{entry}.valid"] = held = False
            if not held:
                run[ident] = 0
            if of == "pages" and (not held or (self._scope.eager and not self._scope.writes)):
                run[f"{entry}.write"] = False
        for permission in self._permissions:
            run[permission] = False
        if self._open:
            run["page.a.write"] = run["region.a.write"] = ANY
        if self._coarse:
            for kind, mapping, fields in MEANT:
                if self._domain.force(run[kind]) != mapping:
                    for field in fields:
                        run[field] = ANY


class Telling:
    """What states tell of properties. ``cover``: the conditions under which a property says anything; ``done``: whether every path is
    done in a state. ``told``: what is told, remembered."""

    def __init__(self, scope: Scope, cover: Callable[[PropertyDecl], Sequence[Expr]], remember: Remember,
                 done: Callable[[Recording], bool] | None = None) -> None:  # fmt: skip
        self._scope, self._cover = scope, cover
        self._done = done or self._all_paths_done
        self.told = remember(self._tell)

    def __call__(self, state: State, truth: Truth) -> tuple[Told, bool]:
        """What a state tells of the properties, and whether every path is done in it."""
        found = self.told(state, truth)
        if len(found) == 1:
            return found[0].value  # type: ignore[no-any-return]
        told: list[Told] = [result.value[0] for result in found]
        broken = dict.fromkeys(name for t in told for name in t.broken)
        says = dict.fromkeys(name for t in told for name in t.says)
        return Told(tuple(broken), tuple(says)), found[0].value[1]

    def _tell(self, run: Recording) -> Any:
        done = self._done(run)
        broken: list[str] = []
        says: list[str] = []
        for prop in self._scope.properties:
            if (prop.when == "always" or done) and self._holds_not(prop, run):
                broken.append(prop.name)
            for said in self._cover(prop):
                some = PropertyDecl(prop.name, prop.title, "always", prop.binders, Op("!", (said,)))
                if prop.name not in says and self._holds_not(some, run):
                    says.append(prop.name)
        return Told(tuple(broken), tuple(says)), done

    def _all_paths_done(self, run: Recording) -> bool:
        return all(not t.program.nodes[run.now(f"{t.name}.pc")].successors for t in self._scope.paths)

    def _holds_not(self, prop: PropertyDecl, run: Recording) -> bool:
        return self._scope.domain.boolean(violated(self._scope.machine, prop, run))  # type: ignore[arg-type]


def is_table(scope: Scope, name: str) -> bool:
    """Whether a variable of the state holds a table."""
    for thread in scope.threads:
        own, _, local = name.rpartition(".")
        if own == thread.name and local in thread.program.locals:
            return thread.program.locals[local] == "table"
    return name.endswith(".table") and name.count(".") > 1  # a variable is called as it likes
