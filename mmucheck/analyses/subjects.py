"""What is decided: obligations, grouped by subject so that one lowering serves many properties."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from mmucheck.records import record

if TYPE_CHECKING:
    from mmucheck.ir.program import PropertyDecl, System
    from mmucheck.names.library import Library
    from mmucheck.syntax.diagnostics import Span


@record
class Subject:
    """What runs: paths on devices under a protocol, on one side of a change or none. ``version`` of each path. ``again``: the
    paths are what each of two threads runs any number of times."""

    paths: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    protocol: str
    change: str = ""
    side: str = ""
    excepted: tuple[str, ...] = ()
    again: bool = False

    def __str__(self) -> str:
        where = f"{self.side} {self.change}" if self.change else f"under {self.protocol}"
        left_out = f" except {', '.join(self.excepted)}" if self.excepted else ""
        threads = f"loop {{ choose {', '.join(self.path_names)} }}" if self.again else " || ".join(self.path_names)
        return f"{threads} on {' + '.join(self.devices)} {where}{left_out}"

    @property
    def path_names(self) -> tuple[str, ...]:
        return tuple(f"{name}@{version}" if version else name for name, version in self.paths)


@record
class Obligation:
    """One property of one subject. ``expected`` is "" where nothing was stated (a matrix); ``span`` is the check's."""

    subject: Subject
    property: str
    expected: str = ""
    reason: str = ""
    spec: str = ""
    check: str = ""
    doc: str = ""
    span: Span | None = None

    @builtins.property
    def target(self) -> str:
        """How a user names it on the command line."""
        file = self.span.file if self.span else ""
        return f"{file}::{self.spec}::{self.check}"


class Systems(Protocol):
    """Who can put subjects together."""

    @builtins.property
    def library(self) -> Library:
        """Where they come from."""

    def system(self, subject: Subject) -> System:
        """The subject in the intermediate form. Raises InputError for what only shows when it is put together."""

    def form(self, subject: Subject) -> bytes:
        """A digest of it: what has the same is the same system. Raises like ``system``."""

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """What a report should say of it."""

    def properties(self, subject: Subject, names: Iterable[str]) -> list[PropertyDecl]:
        """The named properties as they are to be decided of the subject."""


def digest(system: System) -> bytes:
    """Of all that a system consists of."""
    return hashlib.sha256(repr(system).encode()).digest()


def subjects(wanted: Iterable[Obligation]) -> dict[Subject, list[Obligation]]:
    """Obligations by subject, both in the order of first appearance."""
    groups: dict[Subject, list[Obligation]] = {}
    for obligation in wanted:
        groups.setdefault(obligation.subject, []).append(obligation)
    return groups


class Nameless:
    """Subjects without what no verdict depends on (mmucheck.ir.nameless): many come to the same. Digests are remembered, systems are
    not: there are too many."""

    def __init__(self, systems: Systems) -> None:
        self._systems = systems
        self._forms: dict[Subject, bytes] = {}

    @builtins.property
    def library(self) -> Library:
        """Where they come from."""
        return self._systems.library

    def system(self, subject: Subject) -> System:
        """The subject under names of its own. Raises InputError for what only shows when it is put together."""
        from mmucheck.ir.nameless import nameless

        return nameless(self._systems.system(subject))

    def form(self, subject: Subject) -> bytes:
        """A digest of it: what has the same is the same system. Raises like ``system``."""
        if subject not in self._forms:
            self._forms[subject] = digest(self.system(subject))
        return self._forms[subject]

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """None: they name things."""
        return ()

    def properties(self, subject: Subject, names: Iterable[str]) -> list[PropertyDecl]:
        """The named properties as they are to be decided of the subject."""
        return self._systems.properties(subject, names)
