"""The grammar as lark reads it: the tables for mmucheck.syntax.driver, and why a text is refused."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lark
from lark import Lark, UnexpectedInput
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken
from lark.parse_tree_builder import maybe_create_child_filter
from lark.parsers.lalr_analysis import Reduce, Shift

from mmucheck.syntax.diagnostics import Diagnostic, Span, suggest, whole_file
from mmucheck.syntax.tables import Rule, Scanner, Tables, Terminal

if TYPE_CHECKING:
    from mmucheck.syntax.tables import Kept

_KEYWORDS = (
    "use kernel const shared spinlock mutex rwsem macro path device protocol property change spec check hunk requires levels cache "
    "of from when var on handler callback extends without always finally forall let else if choose or for in step "
    "while loop return break continue with lock unlock call assume assert drop fill wait insert before after under "
    "except proves refutes vacuous all read write"
).split()


_FRIENDLY = {
    "SEMICOLON": "`;`", "NAME": "a name", "NUMBER": "a number", "STRING": "a text in quotes", "LPAR": "`(`",
    "RPAR": "`)`", "LBRACE": "`{`", "RBRACE": "`}`", "LSQB": "`[`", "RSQB": "`]`", "COMMA": "`,`", "COLON": "`:`",
    "ASSIGN": "`=`", "EQUAL": "`=`", "VERDICT": "`proves`, `refutes` or `vacuous`", "VERSION": "a kernel version such as `v3.17`",
    "SYSTEM": "`<file.mmu>`", "DOT": "`.`", "__ANON_0": "`->`", "$END": "the end of the file",
}  # fmt: skip


@cache
def parser(kept: Kept | None) -> Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    key = f"{lark.__version__}\n{grammar}".encode()
    payload = kept.tables(key) if kept is not None else None
    if payload is not None:
        with contextlib.suppress(Exception):
            found = _Reader(io.BytesIO(payload)).load()
            if isinstance(found, Lark):
                return found
    made = Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)
    if kept is not None:
        with contextlib.suppress(Exception):  # losing them costs time, nothing else
            kept.keep_tables(key, lambda: _written(made))
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


def made_by_lark(kept: Kept | None) -> Tables:
    """Everything that lark's parser goes by, for the driver; its names are lark's tokens, so they are copied."""
    frontend: Any = parser(kept).parser
    table, lexers = frontend.parser.parser.parse_table, frontend.lexer.lexers
    numbers: dict[Any, int] = {}
    actions = {
        state: {
            str(name): arg if action is Shift else ~numbers.setdefault(arg, len(numbers))
            for name, (action, arg) in row.items()
        }
        for state, row in table.states.items()
    }  # fmt: skip
    made: dict[int, Scanner] = {}
    scanners = {state: made.setdefault(id(lexer), _scanner(lexer)) for state, lexer in lexers.items()}
    root = frontend.lexer.root_lexer
    terminals = {str(t.name): _terminal(t.pattern, t.name in root.ignore_types) for t in root.terminals}
    return Tables(table.start_states["start"], table.end_states["start"], actions, tuple(map(_rule, numbers)), scanners, terminals)


def _terminal(pattern: Any, skipped: bool) -> Terminal:
    plain = pattern.type == "str" and not pattern.flags
    return Terminal(str(pattern.value if plain else pattern.to_regexp()), plain, skipped)


def _scanner(lexer: Any) -> Scanner:
    order = tuple(str(t.name) for t in lexer.scanner.terminals)
    keywords = {str(name): {str(t.pattern.value): str(t.name) for t in found.scanner.terminals} for name, found in lexer.callback.items()}
    return Scanner(order, keywords)


def _rule(rule: Any) -> Rule:
    options, size = rule.options, len(rule.expansion)
    shape = maybe_create_child_filter(rule.expansion, options.keep_all_tokens, False, options.empty_indices or [False] * size)
    kept, nones = shape.args if shape is not None else ((), 0)
    passes = bool(options.expand1 and not rule.alias)
    return Rule(str(rule.origin.name), size, str(rule.alias or rule.origin.name), passes, tuple(kept), nones)


def refusal(text: str, path: str, line_offset: int, kept: Kept | None) -> Diagnostic:
    """What is wrong with a text that the driver refuses."""
    try:
        parser(kept).parse(text)
    except UnexpectedInput as error:
        return _explain(error, path, text, line_offset)
    raise AssertionError("lark accepts what its tables do not")


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
