"""Everything against everything: each path on each device under each protocol, and after each change, for each property."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmucheck.analyses.plan import path_of
from mmucheck.analyses.run import Result
from mmucheck.analyses.subjects import Obligation, Subject, Systems
from mmucheck.names.library import Library
from mmucheck.records import record
from mmucheck.syntax.diagnostics import InputError

Path = tuple[str, str]
"""A path's name and its kernel version."""


@record
class Frame:
    """What the subjects of one table share. Before a change everything is as under its first protocol, which has a table of its
    own."""

    protocol: str
    change: str
    kernel: str
    paths: tuple[Path, ...]

    def subject(self, path: Path, device: str) -> Subject:
        return Subject((path,), (device,), self.protocol, self.change, "after" if self.change else "")

    def __str__(self) -> str:
        where = f"after {self.change}" if self.change else f"under {self.protocol}"
        return f"paths of {self.kernel or 'no kernel version'} {where}"


@record
class Survey:
    """``refused``: combinations that cannot be, and why. ``results`` by what was asked."""

    frames: tuple[Frame, ...]
    devices: tuple[str, ...]
    properties: tuple[str, ...]
    refused: dict[Subject, str]
    results: dict[Obligation, Result]


def kernel_of(library: Library, protocol: str) -> str:
    """The kernel version of a protocol's paths: its own, or that of the nearest protocol it extends which has paths."""
    versions = {v.version for v in library.paths()}
    names = [p.name.replace("_", ".") for p in reversed(library.protocol_chain(protocol))]
    return next((n for n in names if n in versions), "")


def frames(library: Library) -> tuple[Frame, ...]:
    """One for each protocol and one for each change."""

    def frame(protocol: str, change: str) -> Frame:
        kernel = kernel_of(library, protocol)
        return Frame(protocol, change, kernel, tuple(path_of(v) for v in library.paths() if v.version in (kernel, "")))

    under = [frame(p, "") for p in sorted(library.protocols)]
    after = [frame(c.after, name) for name, c in sorted(library.changes.items())]
    return tuple(f for f in (*under, *after) if f.paths)


def questions(
    systems: Systems, asked: Iterable[Frame], devices: Sequence[str], properties: Sequence[str]
) -> tuple[list[Obligation], dict[Subject, str]]:
    """Every question that can be asked, and the subjects that cannot be put together with the reason."""
    wanted: list[Obligation] = []
    refused: dict[Subject, str] = {}
    for frame in asked:
        for path in frame.paths:
            for device in devices:
                subject = frame.subject(path, device)
                try:
                    systems.form(subject)
                except InputError as error:
                    refused[subject] = error.diagnostics[0].message
                    continue
                wanted += [Obligation(subject, p) for p in properties if systems.library.properties[p].device in ("", device)]
    return wanted, refused


def restoring(survey: Survey, frame: Frame, prop: str, verdicts: Mapping[Obligation, str]) -> list[str]:
    """The devices on which the property is proved of every path of the frame that can be."""
    found = []
    for device in survey.devices:
        said = [verdicts.get(Obligation(frame.subject(p, device), prop), "") for p in frame.paths]
        if any(said) and all(v in ("", "proved", "vacuous") for v in said):
            found.append(device)
    return found
