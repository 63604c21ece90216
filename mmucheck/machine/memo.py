"""Steps remembered by what they look at.

A function of the state is run once for each combination of the values that it reads on the way; after that its results are looked
up. The machine's definitions are run as they stand; nothing here knows what a step means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mmucheck.machine.concolic import Concolic, Later, Value, cheap_first
from mmucheck.machine.terms import Term

READ, TRUTH, CHOICE, LEAF = range(4)


Script = tuple[int, ...]
"""The choices of a run, one after the other; those that come after are the first of their options."""


class Recording:
    """One run of a function: a state whose values are put off, and the oracle of what is left open. What is looked at is noted.

    ``values`` by the place of a name in ``places``; what is written is worked out by ``domain`` at the end. What is written to a name
    that has no place is gone: it stays as ``fixed`` has it.
    """

    def __init__(self, places: Mapping[str, int], values: Sequence[Any], truth: Callable[[Term], bool], script: Sequence[int],
                 domain: Concolic, fixed: Mapping[str, Any] = MappingProxyType({})) -> None:  # fmt: skip
        self._fixed = fixed
        self._places, self._values, self._truth, self._domain = places, values, truth, domain
        self._script = script
        self._chosen: list[tuple[int, int]] = []
        self.log: list[tuple[int, Any, Any]] = []
        self._known: dict[str, Later] = {}
        self._read: dict[str, Any] = {}
        self._written: dict[str, Value] = {}
        self._asked: dict[Term, bool] = {}

    def __getitem__(self, name: str) -> Value:
        found = self._written.get(name, self._known.get(name))
        if found is None:
            if name not in self._places:
                return self._fixed[name]  # type: ignore[no-any-return]
            found = self._known[name] = Later("read", name=name)
        return found

    def get(self, name: str, default: Value) -> Value:
        return self[name] if name in self._places else default

    def __setitem__(self, name: str, value: Value) -> None:
        if name in self._places:
            self._written[name] = value

    def now(self, name: str) -> Any:
        """What the variable held before the run."""
        if name not in self._read:
            place = self._places[name]
            value = self._read[name] = self._values[place]
            self.log.append((READ, place, value))
        return self._read[name]

    def truth(self, term: Term) -> bool:
        found = self._asked.get(term)
        if found is None:
            found = self._asked[term] = self._truth(term)
            self.log.append((TRUTH, term, found))
        return found

    def choose(self, options: int) -> int:
        if options == 1:
            return 0
        at = len(self._chosen)
        chosen = self._script[at] if at < len(self._script) else 0
        self._chosen.append((options, chosen))
        self.log.append((CHOICE, options, chosen))
        return chosen

    @property
    def has_chosen(self) -> bool:
        """Whether a choice was made so far."""
        return bool(self._chosen)

    def not_taken(self) -> Iterator[Script]:
        """The scripts of runs that leave this one where its script ended or later, the one that leaves it last at the end."""
        scripted = len(self._script)
        taken = tuple(chosen for _, chosen in self._chosen)
        for at, (options, _) in enumerate(self._chosen[scripted:], scripted):
            yield from ((*taken[:at], way) for way in reversed(range(1, options)))

    def changes(self) -> tuple[tuple[int, Any], ...]:
        """What was written that is not known to be what it was: (place, value) pairs."""
        found: list[tuple[int, Any]] = []
        for name, written in self._written.items():
            value = self._changed(name, written)
            if value is not None and not (name in self._read and same(self._read[name], value)):
                found.append((self._places[name], value))
        return tuple(found)

    def _changed(self, name: str, value: Value) -> int | Term | None:
        """The value, None if it is what the variable held: that can be told without a look at it."""
        domain = self._domain
        if not isinstance(value, Later):
            return value
        if value.op == "read" and value.name == name:
            return None
        if value.op == "ite" and value.value is None:
            return self._changed(name, value.args[1] if domain.boolean(value.args[0]) else value.args[2])
        if value.op in ("and", "or") and value.value is None:
            itself = [a for a in value.args if isinstance(a, Later) and a.op == "read" and a.name == name]
            if itself:
                rest = cheap_first(tuple(a for a in value.args if a not in itself))
                decided = any(domain.boolean(a) == (value.op == "or") for a in rest)
                return value.op == "or" if decided else None
        return domain.force(value)


def same(a: Any, b: Any) -> bool:
    """Whether two values of a state are the same."""
    return a is b or (not isinstance(a, Term) and not isinstance(b, Term) and bool(a == b))


NO_NODES: Any = MappingProxyType({})
"""Below a node of which nothing is known yet, and below a leaf."""


class _Node:
    __slots__ = ("below", "kind", "what")

    def __init__(self) -> None:
        self.kind = -1
        self.what: Any = None
        self.below: dict[Any, _Node] = NO_NODES


Body = Callable[[Recording], Any]


class Result:
    """What came of one way: None if it leads nowhere. ``reads``: the places that were looked at on it."""

    __slots__ = ("private", "reads", "value")

    def __init__(self, value: Any, reads: frozenset[int]) -> None:
        self.value, self.reads = value, reads
        self.private: dict[Any, bool] = {}


class Memo:
    """A function of the state with any number of results, None for a way that leads nowhere. ``begin`` prepares a run.

    Ways that lead nowhere are among the results.
    """

    def __init__(self, places: Mapping[str, int], body: Body, domain: Concolic, begin: Callable[[Recording], None],
                 fixed: Mapping[str, Any] = MappingProxyType({})) -> None:  # fmt: skip
        self._places, self._body, self._domain, self._begin, self._fixed = places, body, domain, begin, fixed
        self._root = _Node()
        self.runs = 0

    def __call__(self, values: Sequence[Any], truth: Callable[[Term], bool]) -> list[Result]:
        """The results in a state. ``truth`` answers comparisons."""
        while True:
            found: list[Result] = []
            stack = [self._root]
            while stack:
                node: _Node | None = stack.pop()
                while node is not None:
                    kind = node.kind
                    if kind == READ:
                        node = node.below.get(values[node.what])
                    elif kind == TRUTH:
                        node = node.below.get(truth(node.what))
                    elif kind == LEAF:
                        found.append(node.what)
                        break
                    elif kind == CHOICE:
                        stack.extend(reversed(node.below.values()))
                        break
                    else:
                        node = None
                if node is None:
                    self._learn(values, truth)
                    break
            else:
                return found

    def among(self, values: Sequence[Any], of: int, by: Callable[[int], Mapping[Any, int] | None], one: Callable[[int], Sequence[Any]],
              truth: Callable[[Term], bool]) -> list[tuple[Result, int]]:  # fmt: skip
        """The results in a set of states, given by its bits, with those in which each comes about; a result may come more than once.
        ``values``: of the places in which they do not differ; ``by``: of another place, all states by what they hold there, None for a
        place in which they do not differ; ``one``: a state of a set."""
        found: list[tuple[Result, int]] = []
        waiting = [(self._root, of)]
        while waiting:
            node, some = waiting.pop()
            if node.kind == LEAF:
                found.append((node.what, some))
            elif node.kind == CHOICE:
                waiting.extend((below, some) for below in reversed(node.below.values()))
            else:
                for below, those in self._ways(node, values, some, by, truth):
                    if below is None:
                        self._learn(one(those), truth)
                        below = self._root
                    waiting.append((below, those))
        return found

    def _ways(self, node: _Node, values: Sequence[Any], of: int, by: Callable[[int], Mapping[Any, int] | None],
              truth: Callable[[Term], bool]) -> Iterable[tuple[_Node | None, int]]:  # fmt: skip
        """Where a set of states goes on from a node; None where that has not been seen yet."""
        if node.kind == TRUTH:
            return ((node.below.get(truth(node.what)), of),)
        if node.kind != READ:
            return ((None, of),)
        differ = by(node.what)
        if differ is None:
            return ((node.below.get(values[node.what]), of),)
        return [(node.below.get(value), of & those) for value, those in differ.items() if of & those]

    def _learn(self, values: Sequence[Any], truth: Callable[[Term], bool]) -> None:
        """Make the runs of one state that have not been made of another."""
        waiting: list[Script] = [()]
        while waiting:
            script = waiting.pop()
            if self._has_run(values, truth, script, waiting):
                continue
            run = Recording(self._places, values, truth, script, self._domain, self._fixed)
            self._begin(run)
            self.runs += 1
            result = self._body(run)
            waiting.extend(run.not_taken())
            self._note(run.log, result)

    def _has_run(self, values: Sequence[Any], truth: Callable[[Term], bool], script: Script, waiting: list[Script]) -> bool:
        """Whether what comes of a script is known. If the script ends at a choice that is known, how it goes on is left ``waiting``."""
        node, at = self._root, 0
        while node.kind != LEAF:
            if node.kind == READ:
                chosen = values[node.what]
            elif node.kind == TRUTH:
                chosen = truth(node.what)
            elif node.kind == CHOICE and at == len(script):
                waiting.extend((*script, way) for way in reversed(range(node.what)))
                return True
            elif node.kind == CHOICE:
                chosen, at = script[at], at + 1
            else:
                return False
            below = node.below.get(chosen)
            if below is None:
                return False
            node = below
        return True

    def _note(self, log: Sequence[tuple[int, Any, Any]], result: Any) -> None:
        node = self._root
        for kind, what, value in log:
            if node.kind == -1:
                node.kind, node.what = kind, what
            assert node.kind == kind
            assert node.what is what or node.what == what
            if node.below is NO_NODES:
                node.below = {}
            node = node.below.setdefault(value, _Node())
        node.kind = LEAF
        node.what = Result(result, frozenset(what for kind, what, _ in log if kind == READ))
