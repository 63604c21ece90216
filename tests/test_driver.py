"""The driver gives every text the tree that lark gives it, and refuses what lark refuses."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lark import Lark, Token, Tree, UnexpectedInput

from mmucheck.syntax import driver, grammar
from mmucheck.syntax.builder import TreeBuilder
from mmucheck.syntax.diagnostics import InputError
from mmucheck.syntax.parser import parse
from mmucheck.syntax.tables import Tables

ROOT = Path(__file__).resolve().parents[1]


@cache
def texts() -> dict[str, str]:
    """Every .mmu file of the project that is text, by name."""
    files = [p for folder in ("models", "specs", "tests") for p in sorted((ROOT / folder).rglob("*.mmu"))]
    found = {}
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data and len(data) < 1 << 18:
            found[path.relative_to(ROOT).as_posix()] = data.decode("utf-8", "replace")
    return found


@cache
def tables() -> Tables:
    return grammar.made_by_lark(None)


@cache
def fresh() -> Lark:
    """Of the grammar, by lark alone."""
    return Lark((ROOT / "mmucheck/syntax/grammar.lark").read_text(), parser="lalr", propagate_positions=True, maybe_placeholders=True)


def plain(value: Any) -> Any:
    """A tree as tuples: what lark's and the driver's have to agree on."""
    if isinstance(value, Tree):
        at = value.meta
        place = None if at.empty else ((at.line, at.column), (at.end_line, at.end_column))
        return value.data, place, [plain(c) for c in value.children]
    if isinstance(value, Token):
        return value.type, ((value.line, value.column), (value.end_line, value.end_column)), str(value)
    if isinstance(value, driver.Node):
        return value.data, None if value.first is None else (value.first, value.last), [plain(c) for c in value.children]
    if isinstance(value, driver.Token):
        return value.type, (value.first, value.last), str(value)
    return value


def by_lark(text: str) -> Any:
    try:
        return plain(fresh().parse(text))
    except UnexpectedInput:
        return None


@pytest.mark.parametrize("name", texts())
def test_it_makes_the_trees_that_lark_makes(name: str) -> None:
    assert plain(driver.tree(tables(), texts()[name])) == by_lark(texts()[name])


PIECE = re.compile(r"\w+|\s+|//[^\n]*|\"[^\"\n]*\"|.", re.S)
NOISE = [*"(){}[];,.:=<>|&^~!+-*/%#@\"'\\ \t\n\r\f\v\x00\x85\u2028é²Ⅷ", "//", "///", "/*", "*/", "||", "->", "v3.17", "0x", "1K", "#1",
         "all", "read", "lock", "proves", "return", "locked", "<a.mmu>", "<<", "//\n", "///\n", "/**/"]  # fmt: skip


def broken(text: str, rng: random.Random) -> str:
    """A text with a few pieces lost, doubled, exchanged or put in, most of them from itself."""
    pieces = PIECE.findall(text)
    start = rng.randrange(max(1, len(pieces) - 300))
    if rng.random() < 0.5:  # of long ones an end, which begins in the middle of something or nearly where a declaration does
        pieces = pieces[start:]
    pieces = pieces[:300]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(pieces) + 1)
        match rng.randrange(4):
            case 0:
                del pieces[at : at + 1]
            case 1:
                pieces[at:at] = pieces[max(0, at - 1) : at]
            case 2:
                pieces[at:at] = [rng.choice(pieces or NOISE)]
            case _:
                pieces[at:at] = [rng.choice(NOISE)]
    return "".join(pieces)


@pytest.mark.parametrize("seed", range(8))
def test_it_takes_and_refuses_what_lark_does(seed: int) -> None:
    rng = random.Random(seed)
    known = list(texts().values())
    found = []
    for _ in range(150):
        text = broken(rng.choice(known), rng)
        tree = driver.tree(tables(), text)
        expected = by_lark(text)
        assert (plain(tree) if tree is not None else None) == expected, text
        found.append(tree is not None)
    assert {True, False} == set(found)


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_lark_on_noise(seed: int) -> None:
    rng = random.Random(seed)
    words = sorted({piece for text in texts().values() for piece in PIECE.findall(text) if len(piece) < 20})
    for _ in range(300):
        text = "".join(rng.choice(rng.choice((words, NOISE))) for _ in range(rng.randrange(12)))
        tree = driver.tree(tables(), text)
        assert (plain(tree) if tree is not None else None) == by_lark(text), text


def test_a_refusal_is_where_lark_sees_it() -> None:
    rng = random.Random(0)
    known = list(texts().values())
    seen = 0
    for _ in range(100):
        text = broken(rng.choice(known), rng)
        try:
            fresh().parse(text)
        except UnexpectedInput as error:
            place = grammar._explain(error, "p", text, 0).span
            assert grammar.refusal(text, "p", 0, None).span == place
            seen += 1
    assert seen > 20


def test_every_rule_is_built() -> None:
    """Of what is kept as a node there is a method: nothing that parses can fail to become a syntax tree."""
    opened = {rule.data for rule in tables().rules if rule.data.startswith("_")}
    for rule in tables().rules:
        assert rule.data in opened or rule.passes or hasattr(TreeBuilder, rule.data), rule
    assert opened.isdisjoint(vars(TreeBuilder))


def test_a_grammar_that_says_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver refuses and lark accepts is no error of the user's."""
    monkeypatch.setattr(driver, "tree", lambda tables, text: None)
    with pytest.raises(AssertionError):
        parse("const A = 1;\n", "p")
    with pytest.raises(InputError):
        parse("const A = ;\n", "p")
