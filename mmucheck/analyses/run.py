"""Deciding many obligations: in order, or by several processes, with results in source order either way."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace

from mmucheck.analyses.plan import Builder, Obligation, Subject, subjects
from mmucheck.engines.decide import decide
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import Decision, InternalError
from mmucheck.names.library import Library
from mmucheck.replay.trace import Trace, trace_of


@dataclass(frozen=True)
class Result:
    """An obligation with its decision. ``trace`` is set for a refutation; ``notes`` are about the subject; ``error`` is set
    instead of a decision when the tool contradicted itself."""

    obligation: Obligation
    decision: Decision | None
    scope: str
    trace: Trace | None = None
    notes: tuple[str, ...] = ()
    error: str = ""

    @property
    def as_expected(self) -> bool | None:
        """None where nothing was expected."""
        if self.decision is None:
            return False
        return self.decision.verdict == self.obligation.expected if self.obligation.expected else None


Progress = Callable[[int, int, str], None]


def run(library: Library, wanted: Iterable[Obligation], limits: Limits, jobs: int = 1, progress: Progress | None = None) -> list[Result]:
    """A result for every obligation, in the order given.

    Raises InputError for a subject that cannot be put together; every subject is built before any is decided.
    """
    wanted = list(wanted)
    groups = subjects(wanted)
    builder = Builder(library)
    systems = {subject: builder.system(subject) for subject in groups}
    found: dict[Obligation, Result] = {}
    if jobs > 1 and len(groups) > 1:
        _parallel(library, groups, limits, jobs, progress, found)
    else:
        for i, (subject, group) in enumerate(groups.items()):
            if progress is not None:
                progress(i, len(groups), str(subject))
            found |= {r.obligation: r for r in _decide(builder, subject, group, limits)}
    del systems
    return [found[o] for o in wanted]


def _decide(builder: Builder, subject: Subject, group: list[Obligation], limits: Limits) -> list[Result]:
    system = builder.system(subject)
    properties = builder.properties(subject, [o.property for o in group])
    results: list[Result] = []
    for obligation in group:
        prop = next(p for p in properties if p.name == obligation.property)
        results.append(Result(obligation, None, scope_of(subject), None, system.notes, "not decided"))
        del prop
    try:
        decisions = decide(system, properties, limits)
    except InternalError as error:
        return [replace(r, error=str(error)) for r in results]
    done: list[Result] = []
    for result in results:
        decision = decisions[result.obligation.property]
        trace = trace_of(system, decision.violation) if decision.violation is not None else None
        done.append(replace(result, decision=replace(decision, violation=None), trace=trace, error=""))
    return done


def _parallel(library: Library, groups: dict[Subject, list[Obligation]], limits: Limits, jobs: int, progress: Progress | None,
              found: dict[Obligation, Result]) -> None:  # fmt: skip
    context = multiprocessing.get_context("spawn")
    waiting = list(groups.items())
    with ProcessPoolExecutor(min(jobs, len(groups)), context, _start_worker, (library, limits)) as pool:
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


def _start_worker(library: Library, limits: Limits) -> None:
    _Worker.builder, _Worker.limits = Builder(library), limits


def _work(subject: Subject, group: list[Obligation]) -> list[Result]:
    return _decide(_Worker.builder, subject, group, _Worker.limits)


def scope_of(subject: Subject) -> str:
    """For what quantities a proof holds, in one line."""
    threads = f"{len(subject.paths)} VMM thread{'s' * (len(subject.paths) != 1)}"
    return f"any number of pages, frames, table pages and devices of this kind; {threads}, one run from a quiescent state"
