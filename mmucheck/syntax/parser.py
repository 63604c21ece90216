"""Text to syntax tree, and what is wrong with a text put into the user's words."""

from __future__ import annotations

import contextlib
import pickle
import re
from functools import cache

from mmucheck.syntax import ast, driver
from mmucheck.syntax.builder import TreeBuilder
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span, whole_file
from mmucheck.syntax.limits import MAX_BYTES, MAX_DEPTH
from mmucheck.syntax.tables import Kept, Tables
from mmucheck.versions import version

_OPENERS, _CLOSERS = "{([", "})]"
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor or turns the direction of writing: texts in quotes and comments reach the user's screen."""


def parse(text: str, path: str, tables: Kept | None = None) -> ast.File:
    """Parse one file. ``tables``: where the parser's tables are kept (None: nowhere).

    Raises InputError with every syntax error that could be told apart (the parser goes on at the next declaration).
    """
    _check_shape(text, path)
    found: list[Diagnostic] = []
    try:
        return _build(text, path, 0, tables)
    except InputError as error:
        found.extend(error.diagnostics)
    for start, chunk in _declarations(text):
        try:
            _build(chunk, path, start, tables)
        except InputError as error:
            found.extend(error.diagnostics)
    raise InputError(_first_per_declaration(found, text))


def _build(text: str, path: str, line_offset: int, kept: Kept | None) -> ast.File:
    try:
        tree = driver.tree(_tables(kept), text)
        if tree is not None:
            return TreeBuilder(path, line_offset, text).file(tree)
    except RecursionError:
        raise InputError([_too_deep(path)]) from None
    from mmucheck.syntax.grammar import refusal

    raise InputError([refusal(text, path, line_offset, kept)])


def _too_deep(path: str) -> Diagnostic:
    return Diagnostic("E004", "the input is nested too deeply", whole_file(path), "move inner parts into macros")


@cache
def _tables(kept: Kept | None) -> Tables:
    key = f"driver {version('lark', 'lark')}".encode()
    payload = kept.tables(key) if kept is not None else None
    if payload is not None:
        with contextlib.suppress(Exception):
            found = pickle.loads(payload)
            if isinstance(found, Tables):
                return found
    from mmucheck.syntax.grammar import made_by_lark

    made = made_by_lark(kept)
    if kept is not None:
        with contextlib.suppress(Exception):  # losing them costs time, nothing else
            kept.keep_tables(key, lambda: pickle.dumps(made, protocol=5))
    return made


def _check_shape(text: str, path: str) -> None:
    """Refuse what is no .mmu text at all, before the parser sees it."""
    if "\0" in text:
        raise InputError([Diagnostic("E002", "this is not a text file", whole_file(path))])
    if len(text) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES // 1024} KiB"
        raise InputError([Diagnostic("E003", message, whole_file(path), "split it and join the parts with `use`")])
    odd = _NOT_TEXT.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        column = odd.start() - text.rfind("\n", 0, odd.start())
        message = f"the control character U+{ord(odd[0]):04X} is no part of the language"
        raise InputError([Diagnostic("E017", message, Span(path, line, column, line, column + 1))])
    depth, line = 0, 1
    for char in re.sub(r"/\*.*?\*/|//[^\n]*|\"[^\"\n]*\"", lambda m: "\n" * m[0].count("\n"), text, flags=re.S):
        if char == "\n":
            line += 1
        elif char in _OPENERS:
            depth += 1
            if depth > MAX_DEPTH:
                span = Span(path, line, 1, line, 2)
                message = f"nested more than {MAX_DEPTH} deep"
                raise InputError([Diagnostic("E004", message, span, "move inner blocks into macros")])
        elif char in _CLOSERS:
            depth = max(0, depth - 1)


def _declarations(text: str) -> list[tuple[int, str]]:
    """(line offset, text) of each top-level declaration, found by its keyword at the start of a line."""
    starts = [
        match.start()
        for match in re.finditer(
            r"^(?=(?:///[^\n]*\n)*(?:use|kernel|const|shared|spinlock|mutex|rwsem|macro|path|device|protocol|property|change|spec)\b)",
            text,
            flags=re.M,
        )
    ]
    ends = [*starts[1:], len(text)]
    return [(text.count("\n", 0, start), text[start:end]) for start, end in zip(starts, ends, strict=False)]


def _first_per_declaration(found: list[Diagnostic], text: str) -> list[Diagnostic]:
    """One error is the cause, the rest of its declaration follows from it: keep the first of each declaration."""
    starts = [offset + 1 for offset, _ in _declarations(text)]
    kept: dict[int, Diagnostic] = {}
    for diagnostic in sorted(set(found), key=lambda d: d.sort_key):
        home = max((line for line in starts if line <= diagnostic.span.line), default=0)
        kept.setdefault(home, diagnostic)
    return list(kept.values())
