"""Runs the tables that lark makes of the grammar, without lark.

Loading lark and compiling its scanners takes as long as an eighth of a whole cold run, for a file of a page. The tables decide what
is accepted and which tree it has; this module only follows them: shift, reduce, and lark's way of giving a node its children and its
place. What it refuses is given to lark (mmucheck.syntax.grammar), which says where and why; tests compare every tree with lark's.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from mmucheck.syntax.tables import Rule, Scanner, Tables

Place = tuple[int, int]
"""Line and column, from 1."""

END = "$END"


class Token(str):
    """A piece of the text: its terminal, where it begins, and where the next character is."""

    __slots__ = ("first", "last", "type")
    type: str
    first: Place
    last: Place


class Node:
    """A rule with what it holds, and where that begins and ends (None: nowhere). ``outer`` is the same with what was left out on the
    way up, such as the parentheses around an expression."""

    __slots__ = ("children", "data", "first", "last", "outer")

    def __init__(self, data: str, children: list[Value]) -> None:
        self.data, self.children = data, children
        self.first: Place | None = None
        self.last: Place | None = None
        self.outer: tuple[Place, Place] | None = None


Value: TypeAlias = Node | Token | None


def tree(tables: Tables, text: str) -> Node | None:
    """The tree of a text; None if it is not of the language."""
    states, values = [tables.start], list[Value]()
    at, line, begin = 0, 1, 0
    while at < len(text):
        scanner = tables.scanners[states[-1]]
        name, stop = _match(tables, scanner, text, at)
        if stop == at:
            return None
        token = Token(text[at:stop])
        token.first = line, at - begin + 1
        breaks = token.count("\n")
        if breaks:
            line, begin = line + breaks, at + token.rindex("\n") + 1
        token.last = line, stop - begin + 1
        at = stop
        if not tables.terminals[name].skipped:
            token.type = scanner.keywords[name].get(token, name) if name in scanner.keywords else name
            if not _feed(tables, states, values, token.type, token):
                return None
    if not _feed(tables, states, values, END, None):
        return None
    found = values[-1]
    assert isinstance(found, Node)
    return found


def _match(tables: Tables, scanner: Scanner, text: str, at: int) -> tuple[str, int]:
    """The first terminal that stands there, and where it ends: where it begins, if there is none."""
    for name in scanner.order:
        terminal = tables.terminals[name]
        if terminal.plain:
            if text.startswith(terminal.text, at):
                return name, at + len(terminal.text)
        else:
            found = re.compile(terminal.text).match(text, at)
            if found:
                return name, found.end()
    return "", at


def _feed(tables: Tables, states: list[int], values: list[Value], kind: str, token: Token | None) -> bool:
    """Reduce what the terminal ends and shift it, or come to the end with it; False if it may not stand there."""
    while True:
        action = tables.actions[states[-1]].get(kind)
        if action is None:
            return False
        if action >= 0:
            states.append(action)
            values.append(token)
            return True
        rule = tables.rules[~action]
        left = len(values) - rule.size
        children = values[left:]
        del values[left:], states[left + 1 :]
        values.append(_made(rule, children))
        states.append(tables.actions[states[-1]][rule.origin])
        if kind == END and states[-1] == tables.end:
            return True


def _made(rule: Rule, children: list[Value]) -> Value:
    shaped: list[Value] = []
    for i, opened, nones in rule.kept:
        shaped += [None] * nones
        child = children[i]
        if opened:
            assert isinstance(child, Node)
            shaped = shaped + child.children if shaped else child.children  # one that only grows is not copied for each of its parts
        else:
            shaped.append(child)
    shaped += [None] * rule.nones
    made = shaped[0] if rule.passes and len(shaped) == 1 else Node(rule.data, shaped)
    places = [p for p in map(_outer, children) if p is not None]
    if isinstance(made, Node) and places:
        made.outer = places[0][0], places[-1][1]
        if made.first is None:
            made.first, made.last = made.outer
    return made


def _outer(value: Value) -> tuple[Place, Place] | None:
    return value.outer if isinstance(value, Node) else (value.first, value.last) if value is not None else None
