"""Diagnostics: what is wrong with an input, where, and what to do about it. Values only; printing is the report's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mmucheck.records import record


class Span(NamedTuple):
    """A place in a file: 1-based line and column, end exclusive on ``end_line``. A tuple, since half of what a parsed file consists of
    are these: they are read, compared and hashed without a line of Python."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@record
class Diagnostic:
    """One finding: a stable code, a sentence in the user's words, the place, an optional suggestion and notes."""

    code: str
    message: str
    span: Span
    hint: str = ""
    notes: tuple[tuple[str, Span], ...] = ()

    @property
    def sort_key(self) -> tuple[Span, str, str]:
        return (self.span, self.code, self.message)


class InputError(Exception):
    """The input cannot be used. Carries every diagnostic found, in source order."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(sorted(set(diagnostics), key=lambda d: d.sort_key))
        super().__init__("; ".join(f"{d.span}: {d.message} [{d.code}]" for d in self.diagnostics))


class UsageError(Exception):
    """The request cannot be carried out (no such file, nothing selected); not tied to a place in a file."""


def whole_file(path: str | Path) -> Span:
    """The span of a file as such, for findings without a better place."""
    return Span(str(path), 1, 1, 1, 1)


def suggest(word: str, candidates: Iterable[str]) -> str:
    """``did you mean `x`?`` if a candidate is about one edit away, else an empty string."""
    import difflib  # only where something is wrong

    cutoff = 0.75 if len(word) > 4 else 0.65
    near = difflib.get_close_matches(word, sorted(set(candidates)), n=1, cutoff=cutoff)
    return f"did you mean `{near[0]}`?" if near else ""
