"""A survey as text and as JSON: for each frame a table of paths and devices, in each cell what breaks there."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmucheck.analyses.subjects import Obligation, Subject
from mmucheck.analyses.survey import Frame, Survey, restoring
from mmucheck.engines.verdicts import PROVED, REFUTED, VACUOUS
from mmucheck.report import json as results_json
from mmucheck.report.matrix import legend
from mmucheck.report.style import WIDTH, Style
from mmucheck.report.text import verdict_of

SCHEMA = "mmucheck.survey/1"
QUIESCENT = "quiescent"


def render_text(survey: Survey, style: Style) -> str:
    """Letters for what is refuted, small ones for what is not decided."""
    letters = letters_of(survey.properties)
    verdicts = {o: verdict_of(r) for o, r in survey.results.items()}
    lines: list[str] = []
    for frame in survey.frames:
        lines += [style.strong(str(frame)), "", *_table(survey, frame, letters, verdicts, style), ""]
        if QUIESCENT in survey.properties:
            devices = restoring(survey, frame, QUIESCENT, verdicts)
            lines += [f"every path restores quiescence on: {', '.join(devices) or 'no device'}", ""]
    lines += [f"{letter} {name}" for name, letter in letters.items()]
    lines += [". nothing refuted, x refused, small letter: not decided", ""]
    for why in dict.fromkeys(survey.refused.values()):
        lines.append(f"refused: {why}")
    errors = [f"internal error: {o.subject}: {o.property}: {r.error}" for o, r in survey.results.items() if r.error]
    counts = Counter(verdicts.values())
    said = ", ".join(f"{n} {v}" for v, n in sorted(counts.items()))
    return "\n".join([*lines, *errors, f"{len(verdicts)} verdicts on {len({o.subject for o in verdicts})} subjects: {said}"]) + "\n"


def _table(survey: Survey, frame: Frame, letters: dict[str, str], verdicts: dict[Obligation, str], style: Style) -> list[str]:
    rows = {p[0]: [cell(survey, frame.subject(p, d), letters, verdicts) for d in survey.devices] for p in frame.paths}
    heads = [str(i + 1) for i in range(len(survey.devices))]
    first = max(map(len, rows))
    widths = [max(len(h), *(len(r[i]) for r in rows.values())) for i, h in enumerate(heads)]
    lines: list[str] = []
    for part in _parts(widths, WIDTH - first):
        lines.append("  ".join([" " * first, *(heads[i].ljust(widths[i]) for i in part)]).rstrip())
        for name, row in rows.items():
            shown = [(style.bad if row[i][0].isalpha() else style.good)(row[i].ljust(widths[i])) for i in part]
            lines.append("  ".join([name.ljust(first), *shown]).rstrip())
        lines.append("")
    return [*lines, *legend(heads, survey.devices)]


def _parts(widths: list[int], room: int) -> list[list[int]]:
    """Columns that fit beside each other."""
    parts: list[list[int]] = [[]]
    for i in range(len(widths)):
        if parts[-1] and sum(widths[j] + 2 for j in (*parts[-1], i)) > room:
            parts.append([])
        parts[-1].append(i)
    return parts


def cell(survey: Survey, subject: Subject, letters: dict[str, str], verdicts: dict[Obligation, str]) -> str:
    """The letters of what is refuted of a subject, and in small of what is not decided."""
    if subject in survey.refused:
        return "x"
    found = ""
    for prop, letter in letters.items():
        verdict = verdicts.get(Obligation(subject, prop))
        if verdict == REFUTED:
            found += letter
        elif verdict not in (None, PROVED, VACUOUS):
            found += letter.lower()
    return found or "."


def letters_of(properties: tuple[str, ...]) -> dict[str, str]:
    """A letter for each property: the first of its own that is free, else any."""
    found: dict[str, str] = {}
    for name in properties:
        words = name.replace("no_", "").replace("_", "").upper()
        free = [c for c in words + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in found.values()]
        found[name] = free[0]
    return found


def render_json(survey: Survey, digest: str, incomplete: bool = False) -> str:
    """Every verdict: by frame, property, path, in the order of the devices; null where there is none. ``incomplete``: the run was
    interrupted."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": results_json.tool(digest),
        "incomplete": incomplete,
        "devices": list(survey.devices),
        "frames": [
            {
                "protocol": frame.protocol,
                "change": frame.change or None,
                "kernel": frame.kernel,
                "verdicts": {
                    prop: {path[0]: [_verdict(survey, frame.subject(path, d), prop) for d in survey.devices] for path in frame.paths}
                    for prop in survey.properties
                },
            }
            for frame in survey.frames
        ],
        "refused": [{"subject": str(s), "why": why} for s, why in survey.refused.items()],
        "summary": results_json.summary(list(survey.results.values())),
    }
    return results_json.dump(document)


def _verdict(survey: Survey, subject: Subject, prop: str) -> str | None:
    result = survey.results.get(Obligation(subject, prop))
    return verdict_of(result) if result is not None else None
