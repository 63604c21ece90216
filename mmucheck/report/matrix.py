"""A matrix of verdicts: rows are paths, columns devices. As a text table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmucheck.analyses.run import Result
from mmucheck.records import record
from mmucheck.report import json as results_json
from mmucheck.report.style import WIDTH, Style
from mmucheck.report.text import verdict_of

SCHEMA = "mmucheck.matrix/1"
REFUSED, OPEN = "refused", "open"


@record
class Matrix:
    """``decided`` is the property; ``cells`` by (path, device): a result, why the combination cannot be (a registration that fails,
    say), or None if the run ended before it was decided."""

    title: str
    decided: str
    protocol: str
    change: str
    side: str
    paths: tuple[str, ...]
    devices: tuple[str, ...]
    cells: dict[tuple[str, str], Result | str | None]

    @property
    def results(self) -> list[Result]:
        return [c for c in self.cells.values() if isinstance(c, Result)]

    def verdict(self, path: str, device: str) -> str:
        cell = self.cells[path, device]
        if cell is None:
            return OPEN
        return verdict_of(cell) if isinstance(cell, Result) else REFUSED


def render_text(matrix: Matrix, style: Style) -> str:
    """A table; with more devices than fit beside each other the columns are numbered and the verdicts are letters."""
    first = max(map(len, matrix.paths), default=0)
    widths = [max(len(d), *(len(matrix.verdict(p, d)) for p in matrix.paths)) for d in matrix.devices]
    wide = first + sum(w + 2 for w in widths) > WIDTH
    heads = [str(i + 1) for i in range(len(matrix.devices))] if wide else list(matrix.devices)
    widths = [max(map(len, heads))] * len(heads) if wide else widths
    lines = [style.strong(matrix.title), ""]
    lines.append("  ".join([" " * first, *(h.ljust(w) for h, w in zip(heads, widths, strict=True))]).rstrip())
    for path in matrix.paths:
        verdicts = [matrix.verdict(path, d) for d in matrix.devices]
        cells = [_paint(v, (_letter(v) if wide else v).ljust(w), style) for v, w in zip(verdicts, widths, strict=True)]
        lines.append("  ".join([path.ljust(first), *cells]).rstrip())
    if wide:
        used = dict.fromkeys(matrix.verdict(p, d) for p in matrix.paths for d in matrix.devices)
        lines += ["", ", ".join(f"{_letter(v)} {v}" for v in sorted(used)), *legend(heads, matrix.devices)]
    said = dict.fromkeys(f"{d}: {c}" for (_, d), c in matrix.cells.items() if isinstance(c, str))
    said |= dict.fromkeys(f"{p} on {d}: {c.error}" for (p, d), c in matrix.cells.items() if isinstance(c, Result) and c.error)
    said |= dict.fromkeys(f"note: {n}" for c in matrix.results for n in c.notes)
    if said:
        lines += ["", *said]
    return "\n".join(lines) + "\n"


def _letter(verdict: str) -> str:
    letters = {"proved": "+", "refuted": "R", "bounded": "b", "inconclusive": "?", "vacuous": "v", "error": "E", REFUSED: "x", OPEN: "."}
    return letters[verdict]


def _paint(verdict: str, text: str, style: Style) -> str:
    return {"proved": style.good, "refuted": style.bad, "error": style.bad, REFUSED: style.faint}.get(verdict, style.doubtful)(text)


def legend(heads: Sequence[str], devices: Sequence[str]) -> list[str]:
    """What the numbered columns are."""
    items = [f"{h:>2} {d}" for h, d in zip(heads, devices, strict=True)]
    width = max(map(len, items)) + 2
    each = max(1, WIDTH // width)
    return ["".join(i.ljust(width) for i in items[n : n + each]).rstrip() for n in range(0, len(items), each)]


def render_json(matrix: Matrix, digest: str) -> str:
    """The table as verdicts by path and device, with the results it was made from (as in `results.schema.json`)."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": results_json.tool(digest),
        "incomplete": None in matrix.cells.values(),
        "property": matrix.decided,
        "protocol": matrix.protocol,
        "change": matrix.change or None,
        "side": matrix.side or None,
        "paths": list(matrix.paths),
        "devices": list(matrix.devices),
        "cells": {p: {d: matrix.verdict(p, d) for d in matrix.devices} for p in matrix.paths},
        "refused": [{"path": p, "device": d, "why": c} for (p, d), c in matrix.cells.items() if isinstance(c, str)],
        "results": [results_json.record(r) for r in matrix.results],
        "summary": results_json.summary(matrix.results),
    }
    return results_json.dump(document)
