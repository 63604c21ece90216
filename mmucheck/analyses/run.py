"""Deciding many obligations: in order, or by several processes, with results in source order either way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mmucheck.analyses.subjects import Nameless, Obligation, Subject, Systems, subjects
from mmucheck.analyses.verdict_cache import VerdictCache, keys_of
from mmucheck.engines.verdicts import INCONCLUSIVE, PROVED, VACUOUS, Decision, InternalError
from mmucheck.records import record

if TYPE_CHECKING:
    from mmucheck.analyses.verdict_cache import Kept
    from mmucheck.analyses.workers import Finished
    from mmucheck.engines.known import KnownStarts
    from mmucheck.engines.solver import Limits
    from mmucheck.ir.program import PropertyDecl
    from mmucheck.names.library import Library
    from mmucheck.replay.trace import Trace


@record
class Result:
    """An obligation with its decision. ``trace`` is set for a refutation; ``notes`` are about the subject; ``error`` is set
    instead of a decision when the tool contradicted itself; ``strict``: a hollow success counts as unexpected."""

    obligation: Obligation
    decision: Decision | None
    scope: str
    trace: Trace | None = None
    notes: tuple[str, ...] = ()
    error: str = ""
    strict: bool = False

    @property
    def as_expected(self) -> bool | None:
        """None where nothing was expected. A hollow success is never as expected."""
        if self.decision is None or self.hollow:
            return False
        return self.decision.verdict == self.obligation.expected if self.obligation.expected else None

    @property
    def hollow(self) -> str:
        """For ``strict``, why a success is none, "" if it is one: a vacuous verdict that nobody has stated, or a proof about a path
        with statements that no run reaches."""
        if not self.strict or self.decision is None:
            return ""
        if self.decision.verdict == VACUOUS and not self.obligation.expected:
            return self.decision.reason
        seen = self.decision.exercised if self.decision.verdict == PROVED else None
        dead = dict.fromkeys(f"{m.file}:{m.line}" for m in (seen.missing if seen is not None else ()) if m.dead)
        return f"no run reaches {', '.join(dead)}" if dead else ""


Progress = Callable[[int, int, str], None]
Say = Callable[[Result], None]


class Interrupted(KeyboardInterrupt):
    """A signal came while deciding. ``results``: those decided before it, in the order wanted; ``total``: how many were wanted."""

    def __init__(self, results: list[Result], total: int) -> None:
        super().__init__(f"{len(results)} of {total} decided")
        self.results, self.total = results, total


def run(systems: Systems, wanted: Iterable[Obligation], limits: Limits, jobs: int = 1, progress: Progress | None = None,
        kept: VerdictCache | None = None, traces: bool = True, verdicts_only: bool = False) -> list[Result]:  # fmt: skip
    """A result for every obligation, in the order given. ``kept``: verdicts of earlier runs, none by default; ``traces``: whether
    results carry them (of refutations that are replayed either way). Subjects that come to the same are decided once; if it is
    ``verdicts_only`` that are wanted, no traces and no places in the sources, many more do. Under a limit of memory the work is done by
    processes of its own.

    Raises InputError for a subject that cannot be put together; every subject is built before any is decided. Raises Interrupted
    with what is decided so far.
    """
    wanted = list(wanted)
    kept = kept or VerdictCache(None)
    systems = Nameless(systems) if verdicts_only and not isinstance(systems, Nameless) else systems
    found: dict[Obligation, Result] = {}
    twins: dict[str, list[Obligation]] = {}
    looked_up: dict[str, Kept | None] = {}

    def say(result: Result) -> None:
        found[result.obligation] = result if traces and not verdicts_only else replace(result, trace=None)

    try:
        asked = subjects(wanted)
        alike = not limits.rlimit and len(asked) > 1  # what is decided together shares its resources: nothing may be missing from a group
        for subject, group in asked.items():
            known, keys = _remembered(systems, subject, group, (limits, kept), looked_up, alike)
            for result in known:
                say(result)
            if alike:
                for obligation in group:
                    if obligation not in found:
                        twins.setdefault(keys[obligation.property], []).append(obligation)
        spared = {o for same in twins.values() for o in same[1:]}
        groups = subjects(o for o in wanted if o not in found and o not in spared)
        if groups and (limits.memory or (jobs > 1 and len(groups) > 1)):
            _parallel(systems, groups, (limits, kept, verdicts_only), min(jobs, len(groups)), progress, say)
        else:
            starts = _known(limits, verdicts_only)
            for i, (subject, group) in enumerate(groups.items()):
                if progress is not None:
                    progress(i, len(groups), str(subject))
                _decide(systems, subject, group, (limits, kept, starts), say)
    except KeyboardInterrupt as stop:
        _share(found, twins)
        raise Interrupted([found[o] for o in wanted if o in found], len(wanted)) from stop
    _share(found, twins)
    return [found[o] for o in wanted]


def _share(found: dict[Obligation, Result], twins: dict[str, list[Obligation]]) -> None:
    """Give the result of each first one to those that come to the same."""
    for first, *others in twins.values():
        for other in others if first in found else ():
            found[other] = replace(found[first], obligation=other)


def _remembered(systems: Systems, subject: Subject, group: list[Obligation], how: tuple[Limits, VerdictCache],
                looked_up: dict[str, Kept | None], alike: bool) -> tuple[list[Result], dict[str, str]]:  # fmt: skip
    """What earlier runs have decided of a subject, and the keys of its verdicts by property, if something is kept or ``alike``
    subjects are looked for.

    It is put together in any case: an error in it is never skipped.
    """
    limits, kept = how
    properties = systems.properties(subject, [o.property for o in group])
    if kept.root is None and not alike:
        systems.system(subject)
        return [], {}
    keys = keys_of(systems.form(subject), properties, limits)
    for key in keys.values():
        if key not in looked_up:
            looked_up[key] = kept.find(key)
    found = {o: looked_up[keys[o.property]] for o in group}
    if limits.rlimit and None in found.values():
        return [], keys
    scope, notes = scope_of(subject), systems.notes(subject)
    return [Result(o, entry[0], scope, entry[1], notes) for o, entry in found.items() if entry is not None], keys


How = tuple["Limits", VerdictCache, "KnownStarts | None"]
"""Limits, where verdicts are kept, and the starts to try first: given where verdicts alone are wanted."""


def _known(limits: Limits, verdicts_only: bool) -> KnownStarts | None:
    """None also under a limit of resources: what is decided within it must not depend on what was decided before."""
    from mmucheck.engines.known import KnownStarts

    return KnownStarts() if verdicts_only and not limits.rlimit else None


def _decide(systems: Systems, subject: Subject, group: list[Obligation], how: How, say: Say) -> bool:
    """Say a result for every obligation of a subject as it falls. Whatever goes wrong is a result too, of this subject alone: the
    others go on. False if it ran out of memory."""
    from mmucheck.engines.decide import decide

    limits, kept, known = how
    system = systems.system(subject)
    properties = systems.properties(subject, [o.property for o in group])
    keys = keys_of(systems.form(subject), properties, limits) if kept.root is not None else {}
    scope, notes = scope_of(subject), systems.notes(subject)
    asking: dict[str, list[Obligation]] = {}
    for o in group:
        asking.setdefault(o.property, []).append(o)

    def done(prop: PropertyDecl, decision: Decision) -> None:
        trace: Trace | None = None
        if decision.violation is not None and known is None:
            from mmucheck.replay.trace import trace_of

            trace = trace_of(system, decision.violation)
        decision = replace(decision, violation=None)
        if known is not None:  # verdicts alone are wanted
            decision = replace(decision, invariant=(), exercised=None)
        if prop.name in keys:
            kept.keep(keys[prop.name], decision, trace)
        for o in asking.pop(prop.name):
            say(Result(o, decision, scope, trace, notes))

    failed: Decision | None = None
    error = ""
    try:
        decide(system, properties, limits, done, known)
    except MemoryError:
        failed = Decision(INCONCLUSIVE, "none", "out of memory")
    except RecursionError:
        failed = Decision(INCONCLUSIVE, "none", "the formulas are nested too deeply")
    except InternalError as contradiction:
        error = str(contradiction)
    except Exception as fault:
        if os.environ.get("MMUCHECK_TRACEBACK"):
            import traceback

            traceback.print_exception(fault)
        error = f"{type(fault).__name__}: {fault}"
    for o in (o for left in asking.values() for o in left):
        say(Result(o, failed, scope, None, notes, error))
    return failed is None or failed.reason != "out of memory"


Task = tuple[Subject, list[Obligation]]


def _parallel(systems: Systems, groups: dict[Subject, list[Obligation]], how: tuple[Limits, VerdictCache, bool], jobs: int,
              progress: Progress | None, say: Say) -> None:  # fmt: skip
    from mmucheck.analyses.workers import Crew, Finished

    limits, kept, verdicts_only = how
    said: set[Obligation] = set()
    finished = 0

    def heard(task: Task, result: Result) -> None:
        said.add(result.obligation)
        say(result)

    def ended(task: Task, how_it_ended: Finished | str) -> None:
        nonlocal finished
        finished += 1
        subject, group = task
        if isinstance(how_it_ended, Finished):
            kept.warnings.extend(how_it_ended.warnings)
        else:
            notes = systems.notes(subject)
            for o in group:
                if o not in said:
                    say(Result(o, Decision(INCONCLUSIVE, "none", how_it_ended), scope_of(subject), None, notes))
        if progress is not None:
            progress(finished, len(groups), str(subject))

    crew: Crew[Task, Result] = Crew(jobs, partial(_workshop, systems.library, limits, kept, verdicts_only), limits.memory)
    crew.run(list(groups.items()), heard, ended)


def _workshop(library: Library, limits: Limits, kept: VerdictCache, verdicts_only: bool) -> Callable[[Task, Say], Finished]:
    """In a worker: what does its tasks."""
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.workers import Finished

    systems: Systems = Nameless(Builder(library)) if verdicts_only else Builder(library)
    known = _known(limits, verdicts_only)

    def work(task: Task, say: Say) -> Finished:
        enough = _decide(systems, *task, (limits, kept, known), say)
        warnings = tuple(kept.warnings)
        kept.warnings.clear()
        return Finished(warnings, spent=not enough)

    return work


def scope_of(subject: Subject) -> str:
    """For what quantities a proof holds, in one line."""
    runs = f"{len(subject.paths)} VMM thread{'s' * (len(subject.paths) != 1)}, one run{' each' * (len(subject.paths) > 1)}"
    if subject.again:
        runs = "2 VMM threads, any number of runs,"
    return f"any number of pages, frames, table pages and devices of this kind; {runs} from a quiescent state"
