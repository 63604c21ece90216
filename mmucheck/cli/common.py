"""What the commands share: options, exit codes, deciding."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from mmucheck.cli import inputs
from mmucheck.cli.signals import INTERRUPTED, TERMINATED
from mmucheck.cli.signals import code_of as code_of_signal
from mmucheck.records import record

if TYPE_CHECKING:
    from mmucheck.analyses.finished import FinishedRun
    from mmucheck.analyses.run import Progress, Result
    from mmucheck.analyses.subjects import Obligation, Systems
    from mmucheck.analyses.verdict_cache import VerdictCache
    from mmucheck.engines.solver import Limits
    from mmucheck.report.style import Style

AS_EXPECTED, UNEXPECTED, BAD_INPUT, UNDECIDED, INTERNAL = 0, 1, 2, 3, 4
_PRIORITY = (TERMINATED, INTERRUPTED, INTERNAL, BAD_INPUT, UNEXPECTED, UNDECIDED, AS_EXPECTED)
TIMEOUT = 180.0
MEMORY = 4096
"""MiB for each worker process: several times what any shipped spec needs."""
FOLDER = click.Path(file_okay=False, path_type=Path)

F = TypeVar("F", bound=Callable[..., object])


# ---- exit codes


def exit_code(results: Iterable[Result]) -> int:
    """The code of a run: the worst of its results."""
    return worst(code_of(r) for r in results)


def worst(codes: Iterable[int]) -> int:
    """The code that outranks the others: 143, 130, 4, 2, 1, 3, 0."""
    return min(codes, key=_PRIORITY.index, default=AS_EXPECTED)


def code_of(result: Result) -> int:
    """A result's code. Bounded and inconclusive are undecided, whatever was expected; without an expectation any decision is fine."""
    if result.error or result.decision is None:
        return INTERNAL
    if result.decision.verdict in ("bounded", "inconclusive"):
        return UNDECIDED
    return UNEXPECTED if result.as_expected is False else AS_EXPECTED


def failure(error: Exception) -> int:
    """Say on stderr what went wrong and return its code. MMUCHECK_TRACEBACK=1 shows where an internal error came from."""
    from mmucheck.syntax.diagnostics import Diagnostic, InputError, UsageError, whole_file

    if isinstance(error, RecursionError):
        error = InputError([Diagnostic("E004", "the input is nested too deeply", whole_file(""), "move inner parts into macros")])
    if isinstance(error, InputError):
        from mmucheck.report.diagnostics import render

        click.echo(render(error.diagnostics, inputs.read_shown, style("auto", sys.stderr.isatty())), err=True, nl=False)
        return BAD_INPUT
    if isinstance(error, UsageError):
        click.echo(f"mmucheck: error: {error}", err=True)
        return BAD_INPUT
    if os.environ.get("MMUCHECK_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    click.echo(f"mmucheck: internal error: {type(error).__name__}: {error}", err=True)
    click.echo("this is a fault of the tool and no verdict; MMUCHECK_TRACEBACK=1 shows where it came from", err=True)
    return INTERNAL


# ---- options


def seeds_option(command: F) -> F:
    """For commands that state verdicts."""
    return click.option("--seeds", type=click.IntRange(min=0), default=0, metavar="N",
                        help="Decide again with N other solver seeds; a verdict that moves is an error.")(command)  # fmt: skip


def solving_options(command: F) -> F:
    """Limits, processes and output, as every deciding command has them."""
    for option in reversed(
        (
            click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to report."),
            click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the report there, all or nothing."),
            click.option("-j", "--jobs", type=click.IntRange(min=1), metavar="N",
                         help="Worker processes.  [default: one per CPU for larger runs]"),
            click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS",
                         help=f"Per obligation; 0 for none.  [default: {TIMEOUT:.0f}, none with --rlimit]"),
            click.option("--rlimit", type=click.IntRange(min=0, max=(1 << 31) - 1), default=0, metavar="UNITS",
                         help="Solver resources per obligation: the same on every machine; 0 for no limit."),
            click.option("--memory", type=click.IntRange(min=0), metavar="MIB",
                         help=f"Address space of each worker process; 0 for no limit.  [default: {MEMORY}]"),
            click.option("--no-cache", is_flag=True, help="Decide everything anew; keep nothing."),
            click.option("--confirm", type=click.Choice(["cvc5"]), metavar="SOLVER",
                         help="Let another solver (cvc5) decide every proof, too; what it does not decide is not proved."),
            click.option("--strict", is_flag=True, help="Fail on what is vacuous or has dead code; list what no run takes."),
            click.option("-v", "--verbose", is_flag=True, help="Methods, notes, traces step by step."),
            click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto",
                         help="NO_COLOR is respected by auto."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@record
class Settings:
    """The shared options' values. ``output`` None is stdout; ``jobs`` None is by the size of the run; ``timeout`` and ``memory`` None
    are by the other options."""

    form: str
    output: Path | None
    jobs: int | None
    timeout: float | None
    rlimit: int
    memory: int | None
    no_cache: bool
    confirm: str | None
    strict: bool
    verbose: bool
    color: str
    seeds: int = 0
    traces: bool = False
    """Whether traces are shown of what is as expected, too."""

    @property
    def style(self) -> Style:
        return style(self.color, self.output is None and sys.stdout.isatty())

    def limits(self, jobs: int) -> Limits:
        """For a run by so many processes. A limit of resources takes the place of one of time, so that no load changes a verdict."""
        from importlib.util import find_spec

        from mmucheck.engines.solver import Limits
        from mmucheck.syntax.diagnostics import UsageError

        if self.confirm and find_spec(self.confirm) is None:
            raise UsageError(f"{self.confirm} is not installed: pip install 'mmucheck[{self.confirm}]'")
        timeout = self.timeout if self.timeout is not None else (0.0 if self.rlimit else TIMEOUT)
        memory = self.memory if self.memory is not None else (MEMORY if jobs > 1 else 0)
        return Limits(timeout, self.rlimit, memory=memory, thorough=self.strict, confirm=self.confirm or "")


def style(color: str, terminal: bool) -> Style:
    """Colour if asked for, or on a terminal that wants it (https://no-color.org)."""
    from mmucheck.report.style import Style

    wanted = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(color == "always" or (color == "auto" and wanted))


# ---- running


@record
class Decided:
    """What came of a run: ``results`` of the ``total`` obligations wanted, in their order; ``stopped`` is the exit code for the
    signal that ended it early, 0 if none did. ``digest`` is the library's, where it was asked for. Without ``systems`` the results were
    taken as a whole from an earlier run."""

    results: list[Result]
    total: int
    stopped: int = 0
    digest: str = ""
    systems: Systems | None = None

    @property
    def code(self) -> int:
        return self.stopped or exit_code(self.results)


def remarks(decided: Decided, settings: Settings) -> str:
    """What a text report says below everything else: that it is not the whole, that other seeds were asked."""
    if decided.stopped:
        return f"interrupted: {len(decided.results)} of {decided.total} decided\n"
    if not settings.seeds:
        return ""
    from mmucheck.analyses.seeds import moved

    count = sum(map(moved, decided.results))
    return f"{settings.seeds} other seed{'s' * (settings.seeds > 1)}: {count or 'no'} verdict{'s' * (count > 1)} moved\n"


def check_targets(targets: Sequence[str], name: str, settings: Settings, prop: str = "") -> Decided:
    """What is decided of what the targets state, or of ``prop`` only. Taken as a whole from an earlier run if nothing has changed and
    nobody asks for more than verdicts. Raises what loading, selecting and deciding raise."""
    parsed = [inputs.parse_target(t) for t in targets]
    files = [f for t in parsed for f in inputs.files_of(t)]
    before = earlier_run("check", [*targets, "", *map(str, files), "", name, prop], settings)
    if settings.form == "text" and not settings.traces:
        known = before.found()
        if known is not None:
            return Decided(known, len(known))
    from mmucheck.analyses.plan import Builder

    library = inputs.load_files(files, not settings.no_cache)
    builder = Builder(library)
    decided = decide(builder, _only(inputs.select(library, parsed, name), prop), settings)
    if not decided.stopped:
        before.keep(library, decided.results)
    return replace(decided, digest=library.digest(), systems=builder)


def earlier_run(command: str, arguments: Sequence[str], settings: Settings) -> FinishedRun:
    """Where the same was run before, if the settings let it be taken as a whole."""
    from mmucheck.analyses.finished import FinishedRun
    from mmucheck.names.places import models_root
    from mmucheck.names.sealed import cache_root

    asked = f"{'strict' if settings.strict else ''} {settings.confirm or ''}"
    anew = settings.no_cache or settings.rlimit or settings.seeds  # what is asked is then whether it can be decided so
    return FinishedRun(None if anew else cache_root(), models_root(), [command, *arguments, asked])


def _only(wanted: list[Obligation], prop: str) -> list[Obligation]:
    from mmucheck.syntax.diagnostics import UsageError, suggest

    stated = sorted({o.property for o in wanted})
    if prop and prop not in stated:
        raise UsageError(f"nothing is said on `{prop}` here; {suggest(prop, stated) or 'there is ' + ', '.join(stated)}")
    return [o for o in wanted if not prop or o.property == prop]


def decide(systems: Systems, wanted: Sequence[Obligation], settings: Settings, traces: bool = True,
           verdicts_only: bool = False, pairs: bool = False) -> Decided:  # fmt: skip
    """Decide, with progress on a terminal once it takes longer than a second. ``traces``, ``verdicts_only``: see run. ``pairs``: what is
    wanted are pairs of the same paths, of which many may be decided together."""
    from mmucheck.analyses.run import Interrupted, run
    from mmucheck.analyses.subjects import subjects
    from mmucheck.analyses.verdict_cache import VerdictCache
    from mmucheck.cli.progress import Progress
    from mmucheck.cli.tasks import processes

    jobs = processes(settings.jobs, len(subjects(wanted)))
    kept = VerdictCache.of_user(not settings.no_cache, settings.strict, settings.confirm or "")
    stopped = 0
    try:
        with Progress(sys.stderr) as progress:
            if pairs and not (settings.rlimit or settings.confirm) and verdicts_suffice(settings):
                results = _together(systems, wanted, settings, jobs, progress, kept)
            elif verdicts_only and verdicts_suffice(settings):
                results = run(systems, wanted, settings.limits(jobs), jobs, progress, kept, verdicts_only=True)
            else:
                results = _with_seeds(systems, wanted, settings, jobs, progress, kept, traces and not verdicts_only)
    except Interrupted as stop:
        results, stopped = stop.results, code_of_signal(stop)
    for warning in dict.fromkeys(kept.warnings):
        click.echo(f"mmucheck: warning: {warning}", err=True)
    if stopped:
        click.echo(f"mmucheck: interrupted: {len(results)} of {len(wanted)} decided", err=True)
    return Decided([replace(r, strict=True) for r in results] if settings.strict else results, len(wanted), stopped)


def _together(systems: Systems, wanted: Sequence[Obligation], settings: Settings, jobs: int, progress: Progress,
              kept: VerdictCache) -> list[Result]:  # fmt: skip
    """First what all pairs together tell, then the others one by one. Raises Interrupted."""
    from mmucheck.analyses.run import Interrupted, run
    from mmucheck.analyses.together import together

    limits = settings.limits(jobs)
    known = together(systems, wanted, limits, jobs, lambda text: progress(0, len(wanted), text), kept)
    found = {r.obligation: r for r in known}
    left = [o for o in wanted if o not in found]
    try:
        results = run(systems, left, limits, jobs, progress, kept, traces=False)
    except Interrupted as stop:
        found |= {r.obligation: r for r in stop.results}
        raise Interrupted([found[o] for o in wanted if o in found], len(wanted)) from stop
    found |= {r.obligation: r for r in results}
    return [found[o] for o in wanted]


def verdicts_suffice(settings: Settings) -> bool:
    """Whether nothing is asked that needs places in the sources, or that every verdict is the solver's."""
    return not (settings.seeds or settings.strict)


def _with_seeds(systems: Systems, wanted: Sequence[Obligation], settings: Settings, jobs: int, progress: Progress,
                kept: VerdictCache, traces: bool) -> list[Result]:  # fmt: skip
    from mmucheck.analyses.run import Interrupted, run
    from mmucheck.analyses.seeds import compared

    limits = settings.limits(jobs)
    if not settings.seeds:
        return run(systems, wanted, limits, jobs, progress, kept, traces)
    first = run(systems, wanted, limits, jobs, progress, None, traces)  # a kept verdict would be compared with itself
    again: list[list[Result]] = []
    try:
        for seed in range(1, settings.seeds + 1):
            again.append(run(systems, wanted, replace(limits, seed=seed), jobs, progress, None, traces))
    except Interrupted as stop:
        raise Interrupted(compared(first, again), len(first)) from stop
    return compared(first, again)
