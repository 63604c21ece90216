"""The cost of paths as a table or JSON, alone or as the difference between two sides of a change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from mmucheck.analyses.cost import Count

Row = tuple[str, Mapping[str, Count], Mapping[str, Count] | None]
"""Path, counts, and the other side's counts if two are compared."""

_HEADS = ("path", "callback", "fewest", "most", "per round", "under lock", "doubled")
_FIELDS = ("least", "most", "per_round", "under_lock", "doubled")
NOTE = "Per device that listens to everything; with no notifier registered every count is 0."


def table(rows: Sequence[Row]) -> str:
    """Aligned columns; ``a > b`` where the two sides differ."""
    cells: list[tuple[str, ...]] = [_HEADS]
    for path, counts, other in rows:
        for i, callback in enumerate(sorted({*counts, *(other or {})})):
            cells.append((path if i == 0 else "", callback, *_values(counts.get(callback), other, callback)))
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, "", NOTE]) + "\n"


def _values(count: Count | None, other: Mapping[str, Count] | None, callback: str) -> list[str]:
    zero = Count(0, 0, 0, 0, 0)
    first = asdict(count or zero)
    if other is None:
        return [str(first[f]) for f in _FIELDS]
    second = asdict(other.get(callback, zero))
    return [str(first[f]) if first[f] == second[f] else f"{first[f]} > {second[f]}" for f in _FIELDS]


def render(rows: Sequence[Row], sides: Sequence[str]) -> str:
    """JSON: one entry per path and side."""
    paths = []
    for path, first, second in rows:
        known = {name: side for name, side in zip(sides, (first, second), strict=False) if side is not None}
        paths.append({"path": path, "sides": {n: {c: asdict(x) for c, x in side.items()} for n, side in known.items()}})
    return json.dumps({"schema": "mmucheck.cost/1", "note": NOTE, "paths": paths}, indent=1) + "\n"
