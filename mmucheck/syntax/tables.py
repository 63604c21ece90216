"""What lark makes of the grammar, as plain values: mmucheck.syntax.grammar takes it from lark, mmucheck.syntax.driver goes by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Protocol

from mmucheck.records import record


@record
class Rule:
    """``data`` names its nodes; ``kept`` are the children that a node has: which one, whether what it holds takes its place, and how
    many Nones come before; ``nones`` come last. ``passes``: a single child is not given a node."""

    origin: str
    size: int
    data: str
    passes: bool
    kept: tuple[tuple[int, bool, int], ...]
    nones: int


@record
class Terminal:
    """``text`` is a regular expression, or if it is ``plain`` what stands there. ``skipped`` ones are no tokens."""

    text: str
    plain: bool
    skipped: bool


@record
class Scanner:
    """Terminals in the order in which they are tried, and for those that may be a keyword by terminal which texts are."""

    order: tuple[str, ...]
    keywords: Mapping[str, Mapping[str, str]]


@record
class Tables:
    """An LALR(1) automaton. ``actions``: for each state by terminal or rule the state to go to, or ~i to reduce by the i-th of
    ``rules``. ``scanners``: what may stand in each state."""

    start: int
    end: int
    actions: Mapping[int, Mapping[str, int]]
    rules: tuple[Rule, ...]
    scanners: Mapping[int, Scanner]
    terminals: Mapping[str, Terminal]


class Kept(Hashable, Protocol):
    """Keeps the parser's tables from run to run, under a key of what they were made by."""

    def tables(self, key: bytes) -> bytes | None: ...

    def keep_tables(self, key: bytes, make: Callable[[], bytes]) -> None: ...
