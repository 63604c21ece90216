"""Results as text: a line for each obligation, what is unexpected explained, and a summary."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence

from mmucheck.analyses.run import Result
from mmucheck.engines.verdicts import BOUNDED, INCONCLUSIVE, PROVED, VERDICTS
from mmucheck.report.style import WIDTH, Style

MAX_TRACES = 3
"""Traces printed for unexpected refutations in one run; the others are a command away."""


def render(results: Sequence[Result], style: Style, quiet: bool = False, verbose: bool = False) -> str:
    """The report of a run. ``quiet``: only what is unexpected, and the summary; ``verbose``: notes, methods, unmerged traces."""
    parts: list[str] = []
    if not quiet:
        parts.append("\n".join(_lines(results, style, verbose)) + "\n")
    traces = 0
    for result in results:
        if not met(result):
            with_trace = traces < MAX_TRACES or verbose
            traces += result.trace is not None
            parts.append(explanation(result, style, verbose, with_trace))
    parts += _exercised_by_subject([r for r in results if r.strict], style)
    scopes = [] if quiet else _scopes(results)
    parts.append("\n".join([*scopes, summary_line(results, style)]) + "\n")
    return "\n".join(parts)


def met(result: Result) -> bool:
    """Whether the result needs no explanation: decided, and as expected if anything was expected."""
    if result.error or result.decision is None:
        return False
    return result.as_expected if result.as_expected is not None else result.decision.verdict not in (BOUNDED, INCONCLUSIVE)


def verdict_of(result: Result) -> str:
    return result.decision.verdict if result.decision is not None and not result.error else "error"


def seconds_of(result: Result) -> float:
    return result.decision.seconds if result.decision is not None else 0.0


def exercise_of(result: Result) -> list[str]:
    """What a proof exercises: the count, what no run takes, by line, and whether the devices' drops matter."""
    decision = result.decision
    if decision is None or decision.exercised is None:
        return []
    e = decision.exercised
    lines = [f"{e.reached} of {e.total} steps exercised" + (", but never:" if e.missing else "")]
    lines += [f"  {m.file}:{m.line}: {m.what} ({m.why}{', in the path itself' if m.dead else ''})" for m in e.missing]
    if decision.needs_flush is not None:
        names = " and ".join(result.obligation.subject.devices)
        drops = "drops" if len(result.obligation.subject.devices) == 1 else "drop"
        told = f"it fails if {names} {drops} nothing" if decision.needs_flush else f"it holds even if {names} {drops} nothing"
        lines.append(told)
    return lines


def _exercised_by_subject(results: Sequence[Result], style: Style) -> list[str]:
    """For each subject of a proof what no run of it takes, and which of its proofs need no drop."""
    blocks: dict[str, dict[str, None]] = {}
    for result in results:
        told = exercise_of(result)
        if not told:
            continue
        assert result.decision is not None
        lines = blocks.setdefault(str(result.obligation.subject), {})
        if result.decision.exercised is not None and result.decision.exercised.missing:
            lines.update(dict.fromkeys(told[: 1 + len(result.decision.exercised.missing)]))
        if result.decision.needs_flush is False:
            lines[f"{result.obligation.property}: {told[-1]}"] = None
    return ["\n".join([style.strong(subject), *(f"  {line}" for line in lines)]) + "\n" for subject, lines in blocks.items() if lines]


def _steps_of(result: Result) -> str:
    e = result.decision.exercised if result.decision is not None and verdict_of(result) == PROVED else None
    return f"{e.reached} of {e.total} steps" if e is not None else ""


def _lines(results: Sequence[Result], style: Style, verbose: bool) -> list[str]:
    if not results:
        return []
    names = [f"{r.obligation.target}  {r.obligation.property} on {' + '.join(r.obligation.subject.devices)}" for r in results]
    width = max(map(len, names))
    steps = max(len(_steps_of(r)) for r in results)
    lines: list[str] = []
    for name, result in zip(names, results, strict=True):
        verdict = verdict_of(result)
        mark = _mark(result, style)
        expected = "" if met(result) or not result.obligation.expected else f"  expected {result.obligation.expected}"
        told = f"{name:<{width}}  {_steps_of(result):>{steps}}  {seconds_of(result):6.2f}s{expected}"
        lines.append(f"{mark} {_colour(result, style)(f'{verdict:<12}')} {told}")
        if verbose:
            lines += [f"          {line}" for line in [*_details(result), *([] if result.strict else exercise_of(result))]]
    return lines


def _mark(result: Result, style: Style) -> str:
    if met(result):
        return style.good("ok  ")
    return style.doubtful("??  ") if _undecided(result) else style.bad("FAIL")


def _colour(result: Result, style: Style) -> Callable[[str], str]:
    if met(result):
        return style.good
    return style.doubtful if _undecided(result) else style.bad


def _undecided(result: Result) -> bool:
    return verdict_of(result) in (BOUNDED, INCONCLUSIVE)


def _details(result: Result) -> list[str]:
    found = [str(result.obligation.subject)]
    if result.decision is not None:
        found.append(f"by {result.decision.method}" + (f": {result.decision.reason}" if result.decision.reason else ""))
    found += [f"note: {note}" for note in result.notes]
    return found


def explanation(result: Result, style: Style, verbose: bool = False, with_trace: bool = True) -> str:
    """What was expected, what was found, one sentence why, and the trace of a refutation."""
    o, verdict = result.obligation, verdict_of(result)
    place = f"{o.span.file}:{o.span.line}: " if o.span else ""
    name = f"{o.spec}::{o.check}: " if o.check else ""
    lines = [style.strong(f"{place}{name}{o.property}"), f"  {o.subject}"]
    if o.doc:
        lines += textwrap.wrap(o.doc, WIDTH, initial_indent="  ", subsequent_indent="  ")
    expected = f"expected {o.expected}{f' ({o.reason})' if o.reason else ''}, found " if o.expected else ""
    lines.append(f"  {expected}{_colour(result, style)(verdict)}")
    lines += textwrap.wrap(f"why: {why(result)}", WIDTH, initial_indent="  ", subsequent_indent="       ")
    lines += [f"  note: {note}" for note in result.notes]
    if result.trace is not None:
        if with_trace:
            from mmucheck.report import columns

            table = columns.render(result.trace, o.subject.devices, verbose, WIDTH - 2)
            lines += ["", *(f"  {line}".rstrip() for line in table.rstrip("\n").split("\n"))]
        else:
            lines.append(f"  the trace: mmucheck explain {o.target} --property {o.property}")
    return "\n".join(lines) + "\n"


def why(result: Result) -> str:
    """One sentence on the verdict."""
    if result.error or result.decision is None:
        return f"internal error: {result.error}; this is no verdict"
    if result.trace is not None:
        return result.trace.why
    if result.hollow:
        return result.hollow
    if result.decision.verdict == PROVED:
        return f"no run breaks it ({result.decision.method}; {result.scope})"
    return result.decision.reason or result.decision.method


def proof(result: Result, style: Style) -> str:
    """What a proof says: of what, for which quantities, by which method, with which invariant."""
    o = result.obligation
    assert result.decision is not None
    lines = [
        style.strong(f"{o.span.file}:{o.span.line}: {o.spec}::{o.check}: {o.property}" if o.span else o.property),
        f"  {o.subject}",
        *(textwrap.wrap(o.doc, WIDTH, initial_indent="  ", subsequent_indent="  ") if o.doc else []),
        f"  {_colour(result, style)(result.decision.verdict)} by {result.decision.method}"
        + (f", confirmed by {result.decision.confirmed}" if result.decision.confirmed else ""),
        f"  for {result.scope}",
        *(f"  {line}" for line in exercise_of(result)),
        *(f"  note: {note}" for note in result.notes),
    ]
    if result.decision.invariant:
        lines += ["  invariant:", *(f"    {clause}" for clause in result.decision.invariant)]
    return "\n".join(lines) + "\n"


def _scopes(results: Sequence[Result]) -> list[str]:
    scopes = dict.fromkeys(r.scope for r in results if verdict_of(r) == PROVED)
    confirmed = Counter(r.decision.confirmed for r in results if r.decision is not None and r.decision.confirmed)
    told = [f"{n} proofs confirmed by {solver}" for solver, n in sorted(confirmed.items())]
    return [*(f"proved means: for {scope}" for scope in scopes), *told]


def summary_line(results: Sequence[Result], style: Style) -> str:
    """Counts by verdict, and how many are as expected."""
    counts = Counter(verdict_of(r) for r in results)
    said = [f"{counts[v]} {v}" for v in VERDICTS] + ([f"{counts['error']} internal errors"] if counts["error"] else [])
    good, expecting = sum(met(r) for r in results), sum(bool(r.obligation.expected) for r in results)
    tail = f"{good} of {len(results)} as expected" if expecting else f"{len(results)} decided"
    paint = style.good if good == len(results) else style.bad
    return paint(f"{', '.join(said)}; {tail}") + f" ({sum(map(seconds_of, results)):.1f}s solving)"
