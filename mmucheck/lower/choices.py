"""What is left open in a step or a start of the witness world, chosen one way after the other while states are explored.

A frame is the zero page, the witness or another; tables are told apart (mmucheck/README.md, "Two threads": *Identities*).
"""

from __future__ import annotations

from mmucheck.ir.program import Look, subexpressions
from mmucheck.lower.scope import ALIVE, Scope
from mmucheck.machine.concolic import ANY, FIRST_OTHER, VAGUE, WITNESS, Value
from mmucheck.machine.memo import Recording
from mmucheck.machine.state import PMD_HUGE, PMD_TABLE, PTE_PRESENT, ZERO_PAGE
from mmucheck.machine.terms import Term
from mmucheck.records import record


@record
class Found:
    """A page or region that was looked at first in a step: at ``key``, holding ``fields``."""

    what: str
    key: Term
    fields: tuple[tuple[str, int], ...]


class Choices:
    """A chooser that asks the run at hand. ``found``: what that run looked at first so far; ``coarse``: whether entries at other
    addresses are told apart only as far as references and tests of the zero page go, and what entries permit is open each time, at the
    witness unless a property asks."""

    def __init__(self, scope: Scope, coarse: bool = False) -> None:
        self._coarse, self._permits = coarse, not coarse or scope.permits
        args = [*(a for t in scope.threads for n in t.program.nodes for a in n.step.args), *(p.formula for p in scope.properties)]
        self._zero = not coarse or any(isinstance(e, Look) and e.name == "zero_page" for a in args for e in subexpressions(a))
        self._domain = scope.domain
        self._frames, self._tables = scope.frames, scope.tables
        self._run: Recording | None = None
        self._fresh = 0
        self.found: list[Found] = []

    def begin(self, run: Recording) -> None:
        """From now on the choices are those of this run."""
        self._run = run
        self._fresh = 0
        self.found = []

    def frame(self, label: str) -> int:
        """A frame handed out: it may be one that was freed, and that somebody remembers."""
        return (VAGUE, WITNESS)[self._choose(1 + self._tracked())]

    def mapped(self) -> int:
        """The frame of an entry, or of an argument."""
        known = [WITNESS] if self._tracked() else []
        if self._zero or not known:
            known.insert(0, ZERO_PAGE)
        return (VAGUE, *known)[self._choose(1 + len(known))]

    def table(self, label: str) -> int:
        """The witness, every other in use, and one that is not."""
        assert self._run is not None
        known = [WITNESS] if self._tables else []
        others = self._run.now(ALIVE) + self._fresh
        known += range(FIRST_OTHER, FIRST_OTHER + others + 1)
        chosen = known[self._choose(len(known))]
        self._fresh += chosen == FIRST_OTHER + others
        return chosen

    def boolean(self, label: str) -> Value:
        return bool(1 - self._choose(2))

    def first_look(self, what: str, key: Value, new: Value) -> dict[str, Value]:
        """The content of a page or region at another address, noted."""
        fields = self.entry(what, False)
        at = self._domain.force(key)
        assert isinstance(at, Term)
        self.found.append(Found(what, at, tuple(fields.items())))
        return dict(fields)

    def entry(self, what: str, own: bool) -> dict[str, int]:
        """Any content of a page or region, the witness's ``own`` or another; what its kind gives no meaning to is left open."""
        if what == "page":
            kind = self._choose(3)
            present = kind == PTE_PRESENT
        else:
            kind = self._choose(4)
            present = kind == PMD_HUGE
        fields = {"kind": kind, "frame": self.mapped() if present else ANY}
        fields["write"] = self._choose(2) if present and (self._permits if own else not self._coarse) else ANY
        if what == "region":
            fields["table"] = ANY if kind != PMD_TABLE else self.table("") if own else self._elsewhere()
        return fields

    def _choose(self, options: int) -> int:
        assert self._run is not None
        return self._run.choose(options)

    def _tracked(self) -> bool:
        """Whether the witness is a frame that may be handed out and mapped: not if nobody asks, or it is the zero page."""
        assert self._run is not None
        return self._frames and self._run.now("frame.f.id") == WITNESS

    def _elsewhere(self) -> int:
        """A table at another address: the witness or not."""
        return WITNESS if self._tables and self._choose(2) else VAGUE
