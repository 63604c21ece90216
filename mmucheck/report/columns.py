"""A trace as columns of plain text: who acts, and what changes in the page table, the references and the caches."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import PurePosixPath

from mmucheck.records import record
from mmucheck.replay.trace import Trace, TraceStep
from mmucheck.report.style import WIDTH

GAP = "  "
_NARROWEST = 14


@record
class _Row:
    number: str
    source: str
    actor: str
    action: str
    changes: tuple[tuple[str, str], ...]


def render(trace: Trace, devices: Sequence[str], verbose: bool = False, width: int = WIDTH) -> str:
    """The trace as a table, its first row the start.

    A column for each thread and device, one for page-table entries, one for references, one per cache; a cell is filled only where
    something changes. Steps that change nothing are merged unless ``verbose``, except dispatches, locks and what devices do. Fits
    ``width`` where the text allows.
    """
    names = _Names(trace, verbose)
    rows = _rows(trace, names, devices, verbose)
    actors = [a for a in dict.fromkeys(s.actor for s in trace.steps) if a not in devices and a != "others"] or ["vmm"]
    actors += [d for d in devices if any(s.actor == d for s in trace.steps)]
    actors += ["others"] * any(s.actor == "others" for s in trace.steps)
    state = [c for c in names.columns if any(c == names.column(what) for row in rows for what, _ in row.changes)]
    header = ["#", "source", *actors, *state]
    table = [header]
    for row in rows:
        cells = [row.number, row.source, *(row.action if row.actor == a else "" for a in actors)]
        cells += ["\n".join(names.entry(what, value) for what, value in row.changes if names.column(what) == c) for c in state]
        table.append(cells)
    lines = _draw(table, len(actors), width)
    return "\n".join([*lines, *names.legend()]) + "\n"


def _rows(trace: Trace, names: _Names, devices: Sequence[str], verbose: bool) -> list[_Row]:
    rows = [_Row("", "", "", "", tuple((what, value) for what, value in trace.start if names.shown(what)))]
    hidden: list[TraceStep] = []
    for step in trace.steps:
        if not verbose and hidden and hidden[-1].actor != step.actor:
            rows.append(_merged(hidden, names))
            hidden = []
        if verbose or _speaks(step, devices):
            if hidden:
                rows.append(_merged(hidden, names))
                hidden = []
            changes = tuple((c.what, c.after) for c in step.changes if names.shown(c.what))
            rows.append(_Row(str(step.number), names.place(step), step.actor, _action(step), changes))
        else:
            hidden.append(step)
    if hidden:
        rows.append(_merged(hidden, names))
    return rows


def _speaks(step: TraceStep, devices: Sequence[str]) -> bool:
    """Whether a step is worth a row of its own although it may change nothing."""
    return bool(step.changes) or not step.file or step.actor in devices or step.action.startswith(("call ", "lock ", "unlock ", "with "))


def _merged(steps: list[TraceStep], names: _Names) -> _Row:
    if len(steps) == 1:
        return _Row(str(steps[0].number), names.place(steps[0]), steps[0].actor, _action(steps[0]), ())
    first, last = names.place(steps[0]), names.place(steps[-1]).rsplit(":", 1)
    same_file = first.rsplit(":", 1)[0] == last[0]
    source = (first if first.endswith(":" + last[-1]) else f"{first}-{last[-1]}") if same_file else first
    return _Row(f"{steps[0].number}-{steps[-1].number}", source, steps[0].actor, f"({len(steps)} steps)", ())


def _action(step: TraceStep) -> str:
    text = " ".join(step.action.split()).split(" else ")[0].rstrip(";")
    return f"{step.calls[0]}: {text}" if step.calls and not text.startswith("call ") else text


class _Names:
    """Short names for files and addresses, with a legend; which column a thing belongs to."""

    def __init__(self, trace: Trace, verbose: bool) -> None:
        self._verbose = verbose
        self._start = dict(trace.start)
        self._changing = {c.what for s in trace.steps for c in s.changes}
        self._files = _short_files(sorted({_file_of(s) for s in trace.steps if s.file}))
        self._devices = {s.actor for s in trace.steps}
        addresses = sorted({w.rsplit(" ", 1)[1] for w in self._start if " 0x" in w}, key=lambda a: int(a, 16))
        self._addresses = {a: f"{chr(ord('A') + i)}" for i, a in enumerate(addresses)} if len(addresses) <= 26 else {}
        shown = [w for w in self._start if self.shown(w)]
        self.columns = list(dict.fromkeys(self.column(w) for w in shown))
        self._used = {w.rsplit(" ", 1)[1] for w in shown if " 0x" in w}
        self._crowd = {c: [w for w in shown if self.column(w) == c] for c in self.columns}

    def shown(self, what: str) -> bool:
        """What never changes is left out, but for present lower-level entries and huge mappings."""
        if self._verbose or what in self._changing:
            return True
        value = self._start.get(what, "")
        return what.startswith(("PTE ", "PMD ", "PUD ")) and value.startswith(("frame ", "huge "))

    def column(self, what: str) -> str:
        if what.startswith(("PTE ", "PMD ", "PUD ")):
            return "page table"
        if what.startswith("refs of "):
            return "references"
        return what.split(" ")[0]

    def entry(self, what: str, value: str) -> str:
        """A cell's text: the value, with the thing's name where the column has several."""
        column = self.column(what)
        if column == "references":
            return f"{what.removeprefix('refs of ')}: {value}"
        if " 0x" not in what:
            return value
        if column == "page table":
            head, _, address = what.partition(" ")
            return f"{head} {self._addresses.get(address, address)}: {value}"
        address = what.rsplit(" ", 1)[1]
        return f"{self._addresses.get(address, address)}: {value}" if len(self._crowd[column]) > 1 else value

    def place(self, step: TraceStep) -> str:
        if not step.file:
            return ""
        name, _, line = (step.source or f"{step.file}:{step.line}").rpartition(":")
        return f"{self._files[name]}:{line}"

    def legend(self) -> list[str]:
        short = [f"{s} = {a}" for a, s in self._addresses.items() if a in self._used]
        files = [f"{short} = {name}" for name, short in self._files.items() if short != name]
        return textwrap.wrap("where " + ", ".join([*short, *files]), WIDTH, subsequent_indent="      ") if short or files else []


def _file_of(step: TraceStep) -> str:
    return (step.source or f"{step.file}:{step.line}").rpartition(":")[0]


def _short_files(files: list[str]) -> dict[str, str]:
    """The last part of each name, or the whole of it where two end alike."""
    ends = [PurePosixPath(f).name for f in files]
    return {f: end if ends.count(end) == 1 else f for f, end in zip(files, ends, strict=True)}


def _draw(table: list[list[str]], actors: int, width: int) -> list[str]:
    natural = [max(max(map(len, cell.split("\n")), default=0) for cell in column) for column in zip(*table, strict=True)]
    widths = list(natural)
    flexible = list(range(2, 2 + actors))
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        widest = max(flexible, key=lambda i: widths[i])
        if widths[widest] <= _NARROWEST:
            others = [i for i in range(2 + actors, len(widths)) if widths[i] > _NARROWEST]
            if not others:
                break
            widest = max(others, key=lambda i: widths[i])
        widths[widest] -= 1
    lines: list[str] = []
    for n, row in enumerate(table):
        cells = [_wrap(cell, w) for cell, w in zip(row, widths, strict=True)]
        for i in range(max(map(len, cells))):
            lines.append(GAP.join((c[i] if i < len(c) else "").ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip())
        if n == 0:
            lines.append(GAP.join("-" * w for w in widths))
    return lines


def _wrap(cell: str, width: int) -> list[str]:
    """Lines of at most ``width``, broken at blanks, else behind punctuation, else anywhere; continued lines are indented."""
    lines: list[str] = []
    for text in cell.split("\n"):
        while len(text) > width:
            cut = text.rfind(" ", 2, width + 1)
            if cut < 0:
                cut = max(text.rfind(c, 2, width) + 1 for c in "_(,")
            cut = cut if cut > 1 else width
            lines.append(text[:cut].rstrip())
            text = " " + text[cut:].lstrip()
        lines.append(text)
    return lines
