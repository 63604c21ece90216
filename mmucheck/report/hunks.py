"""What each hunk is needed for, as a Markdown table (readable as it stands) or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmucheck.analyses.hunks import Need


def markdown(needs: Sequence[Need], change: str, devices: Sequence[str], properties: Sequence[str]) -> str:
    """One row per hunk and path. A dash: with and without the hunk the verdicts are the same."""
    lines = [
        f"Each hunk of `{change}` left out alone: properties ({', '.join(properties)}) that are proved with it and refuted without.",
        "",
        "| hunk left out | path | " + " | ".join(devices) + " |",
        "|---|---|" + "---|" * len(devices),
    ]
    for need in needs:
        if not need.path:
            lines.append(f"| `{need.hunk}` | no path runs it |" + " |" * len(devices))
            continue
        broken = dict(need.broken)
        cells = [_cell(broken.get(d, ()), [p for x, p in need.undecided if x == d]) for d in devices]
        lines.append(f"| `{need.hunk}` | `{need.path}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(lost: Sequence[str], undecided: Sequence[str]) -> str:
    text = ", ".join(lost) or "-"
    return f"{text} (undecided: {', '.join(undecided)})" if undecided else text


def render(needs: Sequence[Need], change: str) -> str:
    rows = [
        {"hunk": n.hunk, "path": n.path, "needed_for": {d: list(p) for d, p in n.broken}, "undecided": [list(u) for u in n.undecided]}
        for n in needs
    ]
    return json.dumps({"schema": "mmucheck.hunks/1", "change": change, "hunks": rows}, indent=1) + "\n"
