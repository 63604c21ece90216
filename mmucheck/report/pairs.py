"""Verdicts on pairs of paths that run at the same time, as a triangle and as JSON."""

from __future__ import annotations

from typing import Any

from mmucheck.analyses.run import Result
from mmucheck.records import record
from mmucheck.report import json as results_json
from mmucheck.report.matrix import OPEN
from mmucheck.report.style import Style
from mmucheck.report.text import verdict_of

SCHEMA = "mmucheck.pairs/1"
_LETTERS = {"proved": "+", "refuted": "R", "bounded": "b", "inconclusive": "?", "vacuous": "v", "error": "E", OPEN: "."}


LEVELS = "levels"


@record
class Apart:
    """Why nothing is asked of two paths: the lock for which they never run at the same time, or LEVELS: they work on different levels of
    the page table."""

    by: str


@record
class Pairs:
    """``cells`` by (path, path), the first not after the second in ``paths``: a result, why nothing is asked of the two, or None if the
    run ended before it was decided."""

    title: str
    decided: str
    device: str
    paths: tuple[str, ...]
    cells: dict[tuple[str, str], Result | Apart | None]

    @property
    def results(self) -> list[Result]:
        return [c for c in self.cells.values() if isinstance(c, Result)]

    def verdict(self, one: str, other: str) -> str:
        """OPEN if there is none."""
        cell = self.cells[one, other]
        return verdict_of(cell) if isinstance(cell, Result) else OPEN


def render_text(pairs: Pairs, style: Style) -> str:
    """A triangle: the columns are the rows' numbers."""
    heads = [str(i + 1) for i in range(len(pairs.paths))]
    width, first = max(map(len, heads)), max(map(len, pairs.paths))
    lines = [style.strong(pairs.title), ""]
    lines.append("  ".join([" " * (first + width + 1), *(h.rjust(width) for h in heads)]).rstrip())
    for i, row in enumerate(pairs.paths):
        cells = [" " * width] * i
        for column in pairs.paths[i:]:
            cell = pairs.cells[row, column]
            letter = ("-" if cell.by == LEVELS else "x") if isinstance(cell, Apart) else _LETTERS[pairs.verdict(row, column)]
            paint = {"+": style.good, "R": style.bad, "E": style.bad, "x": style.faint, "-": style.faint}.get(letter, style.doubtful)
            cells.append(paint(letter.rjust(width)))
        lines.append("  ".join([f"{heads[i].rjust(width)} {row.ljust(first)}", *cells]).rstrip())
    lines += ["", "+ proved, R refuted, b bounded, ? inconclusive, v vacuous, x never at the same time, - other levels, . not decided"]
    excluded: dict[str, list[str]] = {}
    strangers: dict[str, list[str]] = {}
    for (one, other), cell in pairs.cells.items():
        if isinstance(cell, Apart) and cell.by == LEVELS:
            strangers.setdefault(one, []).append(other)
        elif isinstance(cell, Apart):
            excluded.setdefault(f"{one} (both hold {cell.by} throughout)", []).append(other)
    lines += _listed("Never at the same time:", excluded)
    lines += _listed("Not asked, since they work on different levels of the page table:", strangers)
    wrong = [f"{one} || {other}: {c.error}" for (one, other), c in pairs.cells.items() if isinstance(c, Result) and c.error]
    return "\n".join([*lines, *wrong]) + "\n"


def _listed(title: str, found: dict[str, list[str]]) -> list[str]:
    return ["", title, *(f"  {one}: {', '.join(others)}" for one, others in found.items())] if found else []


def render_json(pairs: Pairs, digest: str, incomplete: bool) -> str:
    """Every pair with its verdict or what keeps the two apart (a lock, or LEVELS), and the results (as in `results.schema.json`)."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": results_json.tool(digest),
        "incomplete": incomplete,
        "property": pairs.decided,
        "device": pairs.device,
        "paths": list(pairs.paths),
        "pairs": [
            {
                "paths": [one, other],
                "verdict": None if isinstance(cell, Apart) else pairs.verdict(one, other),
                "excluded_by": cell.by if isinstance(cell, Apart) else None,
            }
            for (one, other), cell in pairs.cells.items()
        ],
        "results": [results_json.record(r) for r in pairs.results],
        "summary": results_json.summary(pairs.results),
    }
    return results_json.dump(document)
