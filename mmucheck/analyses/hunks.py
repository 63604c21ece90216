"""What each hunk of a change is needed for: the change without it, against the change as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mmucheck.analyses.plan import Builder
from mmucheck.analyses.run import Progress, run
from mmucheck.analyses.subjects import Obligation, Subject
from mmucheck.analyses.verdict_cache import VerdictCache
from mmucheck.engines.solver import Limits
from mmucheck.engines.verdicts import PROVED, REFUTED
from mmucheck.ir.program import Program
from mmucheck.names.library import Library
from mmucheck.records import record


@record
class Need:
    """A hunk, a path that it touches, and per device the properties that hold with it and are refuted without it. ``undecided``:
    (device, property) pairs of which one side is neither proved nor refuted."""

    hunk: str
    path: str
    broken: tuple[tuple[str, tuple[str, ...]], ...]
    undecided: tuple[tuple[str, str], ...]


def hunks_needed(
    library: Library,
    change: str,
    devices: Sequence[str],
    properties: Sequence[str],
    limits: Limits,
    jobs: int,
    progress: Progress | None,
    kept: VerdictCache,
) -> list[Need]:
    """For every hunk of the change and every path that runs code it edits. A hunk that no path runs has one entry with path ""."""
    builder = Builder(library)
    versions = _versions(library, change)
    paths = [(v.declaration.name, v.version) for v in library.paths() if v.version in versions]
    whole = {path: _subject(library, change, path, devices[0]) for path in paths}
    programs = {path: builder.system(subject).threads[0] for path, subject in whole.items()}
    pairs: list[tuple[str, tuple[str, str]]] = []
    idle: list[str] = []
    for hunk in library.changes[change].hunks:
        touched = [path for path, program in programs.items() if path[0] == hunk.target.name or runs(program, hunk.target.name)]
        pairs.extend((hunk.target.name, path) for path in touched)
        idle.extend([] if touched else [hunk.target.name])
    wanted: list[Obligation] = []
    for hunk_name, path in pairs:
        for device in devices:
            subject = replace(whole[path], devices=(device,))
            for prop in properties:
                wanted += [Obligation(subject, prop), Obligation(replace(subject, excepted=(hunk_name,)), prop)]
    wanted = list(dict.fromkeys(wanted))
    verdicts = {r.obligation: r.decision.verdict if r.decision else "error" for r in run(builder, wanted, limits, jobs, progress, kept)}
    found = [_need(hunk_name, path, whole[path], devices, properties, verdicts) for hunk_name, path in pairs]
    return [*found, *(Need(name, "", (), ()) for name in idle)]


def _need(hunk: str, path: tuple[str, str], whole: Subject, devices: Iterable[str], properties: Iterable[str],
          verdicts: dict[Obligation, str]) -> Need:  # fmt: skip
    broken: list[tuple[str, tuple[str, ...]]] = []
    undecided: list[tuple[str, str]] = []
    for device in devices:
        lost: list[str] = []
        for prop in properties:
            subject = replace(whole, devices=(device,))
            with_it = verdicts[Obligation(subject, prop)]
            without = verdicts[Obligation(replace(subject, excepted=(hunk,)), prop)]
            if with_it == PROVED and without == REFUTED:
                lost.append(prop)
            elif not {with_it, without} <= {PROVED, REFUTED, "vacuous"}:
                undecided.append((device, prop))
        if lost:
            broken.append((device, tuple(lost)))
    return Need(hunk, path[0], tuple(broken), tuple(undecided))


def runs(program: Program, name: str) -> bool:
    """Whether the macro is expanded somewhere in the program."""
    return any(frame.name == name for node in program.nodes for frame in node.step.origin.frames)


def _subject(library: Library, change: str, path: tuple[str, str], device: str) -> Subject:
    return Subject((path,), (device,), library.changes[change].after, change, "after")


def _versions(library: Library, change: str) -> frozenset[str]:
    """The kernel versions whose code the change edits; of other paths nothing is said."""
    return frozenset(
        v.version for h in library.changes[change].hunks for v in library.named(h.target.name) if h.target.version in ("", v.version)
    )
