"""Text to syntax tree. Lark does the parsing; this module builds the nodes and puts errors into the user's words."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import lark
from lark import Lark, UnexpectedInput
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken, VisitError
from lark.parsers.lalr_analysis import Reduce, Shift

from mmucheck.syntax import ast
from mmucheck.syntax.builder import TreeBuilder
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span, suggest, whole_file
from mmucheck.syntax.limits import MAX_BYTES, MAX_DEPTH

_OPENERS, _CLOSERS = "{([", "})]"
_KEYWORDS = (
    "use kernel const shared spinlock mutex rwsem macro path device protocol property change spec check hunk requires levels cache "
    "of from when var on handler callback extends without always finally forall let else if choose or for in step "
    "while loop return break continue with lock unlock call assume assert drop fill wait insert before after under "
    "except proves refutes vacuous all read write"
).split()


class Tables(Hashable, Protocol):
    """Keeps the parser's tables from run to run, under a key of what they were made by."""

    def tables(self, key: bytes) -> bytes | None: ...

    def keep_tables(self, key: bytes, make: Callable[[], bytes]) -> None: ...


def parse(text: str, path: str, tables: Tables | None = None) -> ast.File:
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


def _build(text: str, path: str, line_offset: int, tables: Tables | None) -> ast.File:
    builder = TreeBuilder(path, line_offset, text)
    try:
        file = builder.transform(_lark(tables).parse(text))
    except UnexpectedInput as error:
        raise InputError([_explain(error, path, text, line_offset)]) from None
    except VisitError as error:
        if isinstance(error.orig_exc, InputError):
            raise error.orig_exc from None
        if isinstance(error.orig_exc, RecursionError):
            raise InputError([_too_deep(path)]) from None
        raise
    except RecursionError:
        raise InputError([_too_deep(path)]) from None
    assert isinstance(file, ast.File)
    return file


def _too_deep(path: str) -> Diagnostic:
    return Diagnostic("E004", "the input is nested too deeply", whole_file(path), "move inner parts into macros")


@cache
def _lark(tables: Tables | None) -> Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    key = f"{lark.__version__}\n{grammar}".encode()
    kept = tables.tables(key) if tables is not None else None
    if kept is not None:
        with contextlib.suppress(Exception):
            found = _Reader(io.BytesIO(kept)).load()
            if isinstance(found, Lark):
                return found
    made = Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)
    if tables is not None:
        with contextlib.suppress(Exception):  # losing them costs time, nothing else
            tables.keep_tables(key, lambda: _written(made))
    return made


def _written(parser: Lark) -> bytes:
    saved, whole = io.BytesIO(), io.BytesIO()
    parser.save(saved)
    saved.seek(0)
    _Writer(whole, protocol=5).dump(Lark.load(saved))
    return whole.getvalue()


_SINGLE: tuple[Any, ...] = (Shift, Reduce, re)
"""What a parser refers to and tells by identity, or cannot be written."""


class _Writer(pickle.Pickler):
    """Writes a loaded parser as it is: to read that takes a third of what Lark.load takes, which puts it together again."""

    def persistent_id(self, obj: Any) -> int | None:
        return next((i for i, single in enumerate(_SINGLE) if obj is single), None)


class _Reader(pickle.Unpickler):
    def persistent_load(self, pid: int) -> Any:
        return _SINGLE[pid]


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


_FRIENDLY = {
    "SEMICOLON": "`;`", "NAME": "a name", "NUMBER": "a number", "STRING": "a text in quotes", "LPAR": "`(`",
    "RPAR": "`)`", "LBRACE": "`{`", "RBRACE": "`}`", "LSQB": "`[`", "RSQB": "`]`", "COMMA": "`,`", "COLON": "`:`",
    "ASSIGN": "`=`", "EQUAL": "`=`", "VERDICT": "`proves`, `refutes` or `vacuous`", "VERSION": "a kernel version such as `v3.17`",
    "SYSTEM": "`<file.mmu>`", "DOT": "`.`", "__ANON_0": "`->`", "$END": "the end of the file",
}  # fmt: skip
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor or turns the direction of writing: texts in quotes and comments reach the user's screen."""
_OPERATORS = {"RELOP", "EQOP", "SUMOP", "MULOP", "SHIFTOP", "AMPERSAND", "VBAR", "CIRCUMFLEX"}


def _explain(error: UnexpectedInput, path: str, text: str, line_offset: int) -> Diagnostic:
    lines = text.split("\n")
    if isinstance(error, UnexpectedEOF) or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        if not re.sub(r"//[^\n]*|\s", "", text):
            return Diagnostic("E005", "the file is empty", whole_file(path))
        last = len(text.rstrip().split("\n"))
        column = len(lines[last - 1]) + 1
        span = Span(path, last + line_offset, column, last + line_offset, column + 1)
        hint = "is a closing `}` missing?" if text.count("{") > text.count("}") else ""
        return Diagnostic("E010", "the text ends in the middle of a declaration", span, hint)
    line, column = error.line, error.column
    if isinstance(error, UnexpectedCharacters):
        span = Span(path, line + line_offset, column, line + line_offset, column + 1)
        char = lines[line - 1][column - 1 : column] if line - 1 < len(lines) else ""
        if char == '"':
            return Diagnostic("E012", "a text in quotes does not end on its line", span)
        hint = "a range is written `[start, end)`" if char == "]" else ""
        return Diagnostic("E011", f"`{char}` has no meaning here", span, hint)
    assert isinstance(error, UnexpectedToken)
    token = error.token
    width = max(1, len(str(token).split("\n")[0]))
    span = Span(path, line + line_offset, column, line + line_offset, column + width)
    expected = set(error.accepts or error.expected)
    word = str(token)
    before = lines[line - 1][: column - 1]
    if lines[line - 1][column - 1 :].startswith("/*"):
        return Diagnostic("E016", "a comment that begins here does not end", span, "close it with `*/`")
    if "SEMICOLON" in expected and token.type not in _OPERATORS and line > 1 and not before.strip():
        end = len(lines[line - 2].rstrip()) + 1
        at = Span(path, line - 1 + line_offset, end, line - 1 + line_offset, end + 1)
        return Diagnostic("E013", "a `;` is missing at the end of this line", at)
    keywords = [k for k in _KEYWORDS if k.upper() in expected]
    if word in _KEYWORDS and "NAME" in expected:
        return Diagnostic("E014", f"`{word}` is a keyword and cannot be a name here", span)
    hint = suggest(word, keywords) if re.fullmatch(r"\w+", word) else ""
    if word == ";" and re.fullmatch(r"\s*\w+", before):
        hint = suggest(before.strip(), ("return", "break", "continue", "loop"))
    named = [_FRIENDLY[t] for t in _FRIENDLY if t in expected][:4] + [f"`{k}`" for k in keywords][:4]
    message = f"`{word}` does not fit here"
    if not hint and named:
        hint = "expected " + " or ".join(named[:4])
    return Diagnostic("E010", message, span, hint)
