"""Pairs of paths that are decided together: what a path alone tells of all its pairs, and what crowds of a few paths tell of theirs
(mmucheck.engines.joint), before each pair is asked by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mmucheck.analyses.run import Interrupted, Result, Say, run, scope_of
from mmucheck.analyses.subjects import Obligation, Subject, Systems
from mmucheck.analyses.verdict_cache import VerdictCache, keys_of
from mmucheck.engines.verdicts import REFUTED, Decision
from mmucheck.records import record

if TYPE_CHECKING:
    from mmucheck.analyses.workers import Finished
    from mmucheck.engines.solver import Limits
    from mmucheck.ir.program import PropertyDecl, System
    from mmucheck.names.library import Library

Path = tuple[str, str]
FEWEST = 3
"""Pairs of which it pays to make a crowd."""
BLOCK = 8
"""So many paths at a time are put together with as many others: several crowds can be asked at the same time, and each keeps less in memory
than one of all paths."""
SHARE = 0.25
"""Of the time for a pair, what it adds to the time of a crowd."""


@record
class Group:
    """Pairs that are asked the same property of, on the same devices."""

    pairs: tuple[Obligation, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for o in self.pairs for path in o.subject.paths))


@record
class Word:
    """How far a crowd has come."""

    text: str


def together(systems: Systems, wanted: Iterable[Obligation], limits: Limits, jobs: int, heard: Callable[[str], None],
             kept: VerdictCache) -> list[Result]:  # fmt: skip
    """Results of those pairs that are refuted by one of their paths alone, or proved together; of the others nothing is said. Proofs are
    kept like any verdict of the pair: what is proved of more runs is proved. ``jobs`` crowds at a time; under a limit of memory in
    processes of their own.

    Raises Interrupted with what is decided so far.
    """
    wanted = list(wanted)
    found: list[Result] = []
    try:
        found += _broken_alone(systems, wanted, limits, jobs, heard, kept)
        broken = {r.obligation for r in found}
        wanted = [o for o in wanted if o not in broken]
        groups = _crowds(systems, (o for o in wanted if not _known(systems, o, limits, kept)))
        if groups and (limits.memory or (jobs > 1 and len(groups) > 1)):
            _parallel(systems, groups, (limits, kept), min(jobs, len(groups)), heard, found.append)
        else:
            for group in groups:
                _decide(systems, group, (limits, kept), heard, found.append)
    except KeyboardInterrupt as stop:
        raise Interrupted(found, len(wanted)) from stop
    return found


def _broken_alone(systems: Systems, wanted: Sequence[Obligation], limits: Limits, jobs: int, heard: Callable[[str], None],
                  kept: VerdictCache) -> list[Result]:  # fmt: skip
    """The pairs with a path that breaks the property by itself: it does so, too, where the other has not begun. Not where the property
    is about the end, which both have to come to, nor where the other path gives the page table other levels."""
    alone: dict[Obligation, list[Obligation]] = {}
    for o in wanted:
        (prop,) = systems.properties(o.subject, [o.property])
        for path in dict.fromkeys(o.subject.paths) if prop.when == "always" else ():
            one = Obligation(replace(o.subject, paths=(path,)), o.property)
            if systems.system(one.subject).levels == systems.system(o.subject).levels:
                alone.setdefault(one, []).append(o)
    found: dict[Obligation, Result] = {}
    results = run(systems, alone, limits, jobs, lambda done, of, _: heard(f"each path alone: {done} of {of}"), kept, traces=False)
    for result in results:
        if result.decision is not None and result.decision.verdict == REFUTED:
            name = result.obligation.subject.path_names[0]
            decision = Decision(REFUTED, f"`{name}` alone: the other path need not begin")
            for o in alone[result.obligation]:
                found.setdefault(o, Result(o, decision, scope_of(o.subject), None, systems.notes(o.subject)))
    return list(found.values())


def _known(systems: Systems, one: Obligation, limits: Limits, kept: VerdictCache) -> bool:
    return kept.root is not None and kept.find(_key(systems, one, limits)) is not None


def _key(systems: Systems, one: Obligation, limits: Limits) -> str:
    return keys_of(systems.form(one.subject), systems.properties(one.subject, [one.property]), limits)[one.property]


def _crowds(systems: Systems, wanted: Iterable[Obligation]) -> list[Group]:
    """The pairs that one crowd may tell of: of the same subject but for its paths, which are of the same two levels of the page table."""
    found: dict[tuple[Subject, tuple[str, str], str], list[Obligation]] = {}
    for one in wanted:
        levels = {systems.system(replace(one.subject, paths=(path,))).levels for path in one.subject.paths}
        if len(levels) == 1:
            found.setdefault((replace(one.subject, paths=()), levels.pop(), one.property), []).append(one)
    groups = [group for pairs in found.values() for group in _blocks(pairs) if len(group.pairs) >= FEWEST]
    return sorted(groups, key=lambda group: -len(group.pairs))  # the longest do not come last


def _blocks(pairs: Sequence[Obligation]) -> Iterator[Group]:
    """The pairs, cut up by which two blocks of so many paths theirs are of; those of one block are with the pairs of it and the next."""
    paths = Group(tuple(pairs)).paths
    block = {path: i // BLOCK for i, path in enumerate(paths)}
    last = max(block.values(), default=0)
    cut: dict[tuple[int, int], list[Obligation]] = {}
    for o in pairs:
        i, j = sorted(block[path] for path in (o.subject.paths[0], o.subject.paths[-1]))
        i, j = (i, j) if i != j else (i, i + 1) if i < last else (max(i - 1, 0), i)
        cut.setdefault((i, j), []).append(o)
    yield from (Group(tuple(of_blocks)) for of_blocks in cut.values())


How = tuple["Limits", VerdictCache]


def _decide(systems: Systems, group: Group, how: How, heard: Callable[[str], None], say: Say) -> bool:
    """Say a result for each pair that is proved. False if there was no memory to tell."""
    from mmucheck.engines.joint import decide_jointly

    limits, kept = how
    system, prop = _together(systems, group)
    number = {path: i for i, path in enumerate(group.paths)}
    by_pair: dict[tuple[int, int], Obligation] = {}
    for o in group.pairs:
        i, j = sorted(number[path] for path in o.subject.paths)
        by_pair[i, j] = o
    seconds = limits.timeout * SHARE * len(group.pairs)
    try:
        joint = decide_jointly(system, by_pair, prop, limits, seconds, heard)
    except (MemoryError, RecursionError):
        return False
    for pair, decision in joint.proved.items():
        one = by_pair[pair]
        if kept.root is not None:
            kept.keep(_key(systems, one, limits), decision, None)
        say(Result(one, decision, scope_of(one.subject), None, systems.notes(one.subject)))
    return True


def _together(systems: Systems, group: Group) -> tuple[System, PropertyDecl]:
    """The crowd of all its paths, in their order, and what is asked of it."""
    subject = group.pairs[0].subject
    alone = [systems.system(replace(subject, paths=(path,))) for path in group.paths]
    (prop,) = systems.properties(subject, [group.pairs[0].property])
    shared = tuple(dict.fromkeys(v for s in alone for v in s.shared))
    return replace(alone[0], threads=tuple(s.threads[0] for s in alone), shared=shared, notes=(), crowd=True), prop


def _parallel(systems: Systems, groups: list[Group], how: How, jobs: int, heard: Callable[[str], None], say: Say) -> None:
    from mmucheck.analyses.workers import Crew, Finished

    limits, kept = how

    def told(_: Group, what: Result | Word) -> None:
        if isinstance(what, Word):
            heard(what.text)
        else:
            say(what)

    def ended(_: Group, how_it_ended: Finished | str) -> None:
        """A process that dies leaves its pairs to be decided one by one."""
        if isinstance(how_it_ended, Finished):
            kept.warnings.extend(how_it_ended.warnings)

    crew: Crew[Group, Result | Word] = Crew(jobs, partial(_workshop, systems.library, limits, kept), limits.memory)
    crew.run(groups, told, ended)


def _workshop(library: Library, limits: Limits, kept: VerdictCache) -> Callable[[Group, Callable[[Result | Word], None]], Finished]:
    """In a worker: what does its tasks."""
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.workers import Finished

    systems = Builder(library)

    def work(group: Group, say: Callable[[Result | Word], None]) -> Finished:
        enough = _decide(systems, group, (limits, kept), lambda text: say(Word(text)), say)
        return Finished(tuple(kept.warnings), spent=not enough)

    return work
