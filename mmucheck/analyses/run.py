"""Deciding many obligations: in order, or by several processes, with results in source order either way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from mmucheck.analyses.subjects import Obligation, Subject, Systems, subjects
from mmucheck.analyses.verdict_cache import Kept, VerdictCache, keys_of
from mmucheck.engines.verdicts import PROVED, VACUOUS, Decision, InternalError
from mmucheck.records import record

if TYPE_CHECKING:
    from mmucheck.engines.solver import Limits
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


def run(systems: Systems, wanted: Iterable[Obligation], limits: Limits, jobs: int = 1, progress: Progress | None = None,
        kept: VerdictCache | None = None, traces: bool = True) -> list[Result]:  # fmt: skip
    """A result for every obligation, in the order given. ``kept``: verdicts of earlier runs, none by default; ``traces``: whether
    results carry them (of refutations that are replayed either way). Subjects that come to the same are decided once.

    Raises InputError for a subject that cannot be put together; every subject is built before any is decided.
    """
    wanted = list(wanted)
    kept = kept or VerdictCache(None)
    found: dict[Obligation, Result] = {}
    twins: dict[str, list[Obligation]] = {}
    for subject, group in subjects(wanted).items():
        known, keys = _remembered(systems, subject, group, kept)
        found |= known
        for obligation in group:
            if obligation not in found and keys:
                twins.setdefault(keys[obligation.property], []).append(obligation)
    spared = {o for same in twins.values() for o in same[1:]}
    groups = subjects(o for o in wanted if o not in found and o not in spared)
    if jobs > 1 and len(groups) > 1:
        _parallel(systems.library, groups, (limits, kept), min(jobs, len(groups)), progress, found)
    else:
        for i, (subject, group) in enumerate(groups.items()):
            if progress is not None:
                progress(i, len(groups), str(subject))
            found |= {r.obligation: r for r in _decide(systems, subject, group, limits, kept)}
    for first, *others in twins.values():
        for other in others:
            found[other] = replace(found[first], obligation=other)
    return [found[o] if traces else replace(found[o], trace=None) for o in wanted]


def _remembered(
    systems: Systems, subject: Subject, group: list[Obligation], kept: VerdictCache
) -> tuple[dict[Obligation, Result], dict[str, str]]:
    """What earlier runs have decided of a subject, and the keys of its verdicts by property.

    It is put together in any case: an error in it is never skipped.
    """
    system = systems.system(subject)
    if kept.root is None:
        return {}, {}
    properties = {p.name: p for p in systems.properties(subject, [o.property for o in group])}
    keys = keys_of(system, list(properties.values()))
    found = {o: kept.find(keys[o.property]) for o in group}
    scope = scope_of(subject)
    return {o: Result(o, entry[0], scope, entry[1], system.notes) for o, entry in found.items() if entry is not None}, keys


def _decide(systems: Systems, subject: Subject, group: list[Obligation], limits: Limits, kept: VerdictCache) -> list[Result]:
    from mmucheck.engines.decide import decide

    system = systems.system(subject)
    properties = {p.name: p for p in systems.properties(subject, [o.property for o in group])}
    keys = keys_of(system, list(properties.values())) if kept.root is not None else {}
    known: dict[str, Kept] = {}
    scope = scope_of(subject)
    try:
        decisions = decide(system, properties.values(), limits)
    except InternalError as error:
        return [Result(o, None, scope, None, system.notes, str(error)) for o in group]
    for name, decision in decisions.items():
        trace = None
        if decision.violation is not None:
            from mmucheck.replay.trace import trace_of

            trace = trace_of(system, decision.violation)
        known[name] = (replace(decision, violation=None), trace)
        if name in keys:
            kept.keep(keys[name], *known[name])
    return [Result(o, known[o.property][0], scope, known[o.property][1], system.notes) for o in group]


def _parallel(
    library: Library,
    groups: dict[Subject, list[Obligation]],
    how: tuple[Limits, VerdictCache],
    jobs: int,
    progress: Progress | None,
    found: dict[Obligation, Result],
) -> None:
    import multiprocessing
    from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

    context = multiprocessing.get_context("spawn")
    waiting = list(groups.items())
    with ProcessPoolExecutor(jobs, context, _start_worker, (library, *how)) as pool:
        running: dict[Future[list[Result]], Subject] = {pool.submit(_work, s, g): s for s, g in waiting}
        finished = 0
        try:
            while running:
                ready, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ready:
                    subject = running.pop(future)
                    found |= {r.obligation: r for r in future.result()}
                    finished += 1
                    if progress is not None:
                        progress(finished, len(groups), str(subject))
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Worker:
    """What a worker process keeps between tasks."""

    systems: Systems
    limits: Limits
    kept: VerdictCache


def _start_worker(library: Library, limits: Limits, kept: VerdictCache) -> None:
    from mmucheck.analyses.plan import Builder

    _Worker.systems, _Worker.limits, _Worker.kept = Builder(library), limits, kept


def _work(subject: Subject, group: list[Obligation]) -> list[Result]:
    return _decide(_Worker.systems, subject, group, _Worker.limits, _Worker.kept)


def scope_of(subject: Subject) -> str:
    """For what quantities a proof holds, in one line."""
    threads = f"{len(subject.paths)} VMM thread{'s' * (len(subject.paths) != 1)}"
    return f"any number of pages, frames, table pages and devices of this kind; {threads}, one run from a quiescent state"
