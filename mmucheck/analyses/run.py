"""Deciding many obligations: in order, or by several processes, with results in source order either way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mmucheck.analyses.plan import Builder, Obligation, Subject, subjects
from mmucheck.analyses.verdict_cache import Kept, VerdictCache, keys_of
from mmucheck.engines.decide import decide
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import PROVED, VACUOUS, Decision, InternalError
from mmucheck.names.library import Library
from mmucheck.replay.trace import Trace, trace_of


@dataclass(frozen=True)
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


def run(library: Library, wanted: Iterable[Obligation], limits: Limits, jobs: int = 1, progress: Progress | None = None,
        kept: VerdictCache | None = None) -> list[Result]:  # fmt: skip
    """A result for every obligation, in the order given. ``kept``: verdicts of earlier runs, none by default.

    Raises InputError for a subject that cannot be put together; every subject is built before any is decided.
    """
    wanted = list(wanted)
    kept = kept or VerdictCache(None)
    builder = Builder(library)
    found: dict[Obligation, Result] = {}
    for subject, group in subjects(wanted).items():
        found |= _remembered(builder, subject, group, kept)
    groups = subjects(o for o in wanted if o not in found)
    if jobs > 1 and len(groups) > 1:
        _parallel(library, groups, (limits, kept), min(jobs, len(groups)), progress, found)
    else:
        for i, (subject, group) in enumerate(groups.items()):
            if progress is not None:
                progress(i, len(groups), str(subject))
            found |= {r.obligation: r for r in _decide(builder, subject, group, limits, kept)}
    return [found[o] for o in wanted]


def _remembered(builder: Builder, subject: Subject, group: list[Obligation], kept: VerdictCache) -> dict[Obligation, Result]:
    """What earlier runs have decided of a subject. It is put together in any case: an error in it is never skipped."""
    system = builder.system(subject)
    if kept.root is None:
        return {}
    properties = {p.name: p for p in builder.properties(subject, [o.property for o in group])}
    keys = keys_of(system, list(properties.values()))
    found = {o: kept.find(keys[o.property]) for o in group}
    scope = scope_of(subject)
    return {o: Result(o, entry[0], scope, entry[1], system.notes) for o, entry in found.items() if entry is not None}


def _decide(builder: Builder, subject: Subject, group: list[Obligation], limits: Limits, kept: VerdictCache) -> list[Result]:
    system = builder.system(subject)
    properties = {p.name: p for p in builder.properties(subject, [o.property for o in group])}
    keys = keys_of(system, list(properties.values())) if kept.root is not None else {}
    known: dict[str, Kept] = {}
    scope = scope_of(subject)
    try:
        decisions = decide(system, properties.values(), limits)
    except InternalError as error:
        return [Result(o, None, scope, None, system.notes, str(error)) for o in group]
    for name, decision in decisions.items():
        trace = trace_of(system, decision.violation) if decision.violation is not None else None
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

    builder: Builder
    limits: Limits
    kept: VerdictCache


def _start_worker(library: Library, limits: Limits, kept: VerdictCache) -> None:
    _Worker.builder, _Worker.limits, _Worker.kept = Builder(library), limits, kept


def _work(subject: Subject, group: list[Obligation]) -> list[Result]:
    return _decide(_Worker.builder, subject, group, _Worker.limits, _Worker.kept)


def scope_of(subject: Subject) -> str:
    """For what quantities a proof holds, in one line."""
    threads = f"{len(subject.paths)} VMM thread{'s' * (len(subject.paths) != 1)}"
    return f"any number of pages, frames, table pages and devices of this kind; {threads}, one run from a quiescent state"
