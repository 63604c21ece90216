"""Where in the sources the things of an unrolling happen, and under which condition each of them does.

A site is a statement as it is written, one side of a branch, a macro's call, or something a device does by itself. Expanded copies
of a statement are one site: it is taken if any copy is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mmucheck.ir.program import Const, Node, Origin, Step, System
from mmucheck.lower.unroll import Act, Unrolling
from mmucheck.machine.state import Thread, threads_of
from mmucheck.machine.terms import Term, Terms
from mmucheck.machine.visibility import asks_cache
from mmucheck.records import record

EVENTS = ("slept_in_atomic", "assertion_failed")
"""Looks that say what has happened, not what is: they speak only where a step comes by that could make them true."""


@record
class Site:
    """``own``: written in the body of the path itself, not in a macro or a device."""

    file: str
    line: int
    column: int
    what: str
    actor: str
    own: bool


def sites(terms: Terms, system: System, unrolling: Unrolling) -> dict[Site, Term]:
    """Every site of a system's programs and devices, in program order, with the condition under which it is taken."""
    found: dict[Site, list[Term]] = {}
    for site, act in _acts(system):
        found.setdefault(site, []).extend(unrolling.taken.get(act, ()))
    return {site: terms.or_(*dict.fromkeys(when)) for site, when in found.items()}


def occurrences(terms: Terms, system: System, unrolling: Unrolling, event: str) -> Term:
    """Whether a step is taken at which ``event`` could come about, one of EVENTS."""
    sleeping = {k.name for k in (*system.locks, *(k for d in system.devices for k in d.locks)) if k.kind != "spinlock"}
    devices = {d.name for d in system.devices}

    def may(step: Step) -> bool:
        if event == "assertion_failed":
            return step.op == "assert"
        # The path's own sleeping locks are not what the rule is about: with them it would speak of devices that never sleep.
        sleeps = step.op == "might_sleep" or (step.op == "lock" and step.names[0] in sleeping)
        return sleeps and step.origin.actor in devices

    # A handler is no callback.
    threads = [t for t in threads_of(system) if event == "assertion_failed" or not t.device]
    acts = [(t.name, i, 0) for t in threads for i, node in enumerate(t.program.nodes) if may(node.step)]
    return terms.or_(*(when for act in acts for when in unrolling.taken.get(act, ())))


def _acts(system: System) -> Iterator[tuple[Site, Act]]:
    for thread in threads_of(system):
        for index, node in enumerate(thread.program.nodes):
            if thread.device and not node.successors:
                continue
            for way, said in _ways(node):
                for site in _around(thread, node.step.origin, said):
                    yield site, (thread.name, index, way)
    evicts = any(asks_cache(n.step) for t in threads_of(system) for n in t.program.nodes)
    for device in system.devices:
        for cache in device.caches:
            file, line, column = (cache.span.file, cache.span.line, cache.span.column) if cache.span else ("", 0, 0)
            if cache.source:
                yield Site(file, line, column, f"fills {cache.name}", device.name, False), (device.name, cache.name, 0)
            if cache.source and evicts:
                yield Site(file, line, column, f"loses an entry of {cache.name}", device.name, False), (device.name, cache.name, 1)


def _ways(node: Node) -> list[tuple[int, str]]:
    """The ways a step can go, as text."""
    step = node.step
    text = step.origin.text.split(" else ")[0]
    if len(node.successors) < 2 or (step.op == "branch" and isinstance(step.args[0], Const)):
        return [(0, step.origin.text)]
    if step.op == "branch":
        return [(0, f"{text}: yes"), (1, f"{text}: no")]
    return [(0, text), (1, f"{text}: fails")]


def _around(thread: Thread, origin: Origin, said: str) -> Iterator[Site]:
    """The step itself, and every call it stands in."""
    for depth, frame in enumerate(origin.frames):
        at = frame.called_at
        yield Site(at.file, at.line, at.column, f"{frame.name}()", "", not depth and not thread.device)
    own = not origin.frames and not origin.actor
    yield Site(origin.span.file, origin.span.line, origin.span.column, said, origin.actor, own)


def merged(found: Iterable[Site]) -> dict[tuple[str, int, int], list[Site]]:
    """Sites by place: a statement with two ways is one place."""
    places: dict[tuple[str, int, int], list[Site]] = {}
    for site in found:
        places.setdefault((site.file, site.line, site.column), []).append(site)
    return places
