"""``mmucheck matrix``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmucheck.cli import common, inputs, outputs

if TYPE_CHECKING:
    from mmucheck.analyses.subjects import Subject
    from mmucheck.names.library import Library


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE|DIR]...", type=click.Path(path_type=Path))
@click.option("--protocol", default="", metavar="P", help="The protocol.  [default: v3_17]")
@click.option("--change", default="", metavar="C", help="A change instead, with --side.")
@click.option("--side", type=click.Choice(["before", "after"]), help="The side of the change.  [default: after]")
@click.option("--property", "prop", default="no_freed_page", show_default=True, metavar="P", help="What is decided.")
@click.option("--path", "paths", multiple=True, metavar="NAME", help="Only this path (repeat for more).")
@click.option("--device", "devices", multiple=True, metavar="NAME", help="Only this device (repeat for more).")
@click.option("--all", "everything", is_flag=True, help="All paths, devices, protocols, changes and properties.")
@click.option("--pairs", is_flag=True, help="Every two paths at the same time, on one device.")
@click.option("--kernel", default="", metavar="V", help="The paths' kernel version.  [default: the protocol's]")
@common.seeds_option
@common.solving_options
def matrix(files: tuple[Path, ...], protocol: str, change: str, side: str | None, prop: str, paths: tuple[str, ...],
           devices: tuple[str, ...], everything: bool, pairs: bool, kernel: str, **options: Any) -> int:  # fmt: skip
    """Decide one property for every path on every device; no spec is needed. Without files: the shipped library."""
    from mmucheck.names.places import models_root
    from mmucheck.syntax.diagnostics import UsageError

    if protocol and change:
        raise UsageError("name a protocol or a change, not both")
    if everything and (protocol or change or kernel):
        raise UsageError("--all is every protocol and every change; leave out --protocol, --change and --kernel")
    if pairs and (everything or len(devices) != 1):
        raise UsageError("--pairs is on one device: name it with --device, and leave out --all")
    if side and not change:
        raise UsageError("--side needs --change")
    settings = common.Settings(**options)
    outputs.check_output(settings.output)
    roots = [inputs.Target(f) for f in files] or [inputs.Target(models_root())]
    read = [f for t in roots for f in inputs.files_of(t)]
    named = [str(everything), str(pairs), protocol, change, side or "", prop, kernel, *paths, "", *devices, "", *map(str, read)]
    before = common.earlier_run("matrix", [*named, settings.form, str(settings.style), str(settings.verbose)], settings)
    known = before.found()
    if known is not None:
        text, code = known
        outputs.write(text, settings.output)
        return int(code)
    library = inputs.load_files(read)
    if everything:
        decided, text = _everything(library, settings, paths, devices)
    elif pairs:
        decided, text = _pairs(library, settings, _frame(library, protocol, change, side or "after"), prop, paths, devices[0], kernel)
    else:
        decided, text = _table(library, settings, _frame(library, protocol, change, side or "after"), prop, paths, devices, kernel)
    outputs.write(text, settings.output)
    if not decided.stopped:
        before.keep(library, decided.results, (text, decided.code))
    return decided.code


def _table(library: Library, settings: common.Settings, subject: Subject, prop: str, paths: tuple[str, ...], devices: tuple[str, ...],
           kernel: str) -> tuple[common.Decided, str]:  # fmt: skip
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.subjects import Obligation, Subject
    from mmucheck.analyses.survey import kernel_of
    from mmucheck.report import matrix as report
    from mmucheck.syntax.diagnostics import InputError

    version = kernel or kernel_of(library, subject.protocol)
    rows = _choose("path", paths, [v.declaration.name for v in library.paths() if v.version in (version, "")])
    _known("property", prop, library.properties)
    own = library.properties[prop].device
    columns = _choose("device", (own,) if own else devices, list(library.devices))
    builder = Builder(library)
    cells: dict[tuple[str, str], Any] = {}
    wanted: dict[tuple[str, str], Obligation] = {}
    for row in rows:
        code = library.find(row, version)
        assert code is not None
        for column in columns:
            one = Subject(((row, code.version),), (column,), subject.protocol, subject.change, subject.side)
            cells[row, column] = ""
            try:
                builder.system(one)
                wanted[row, column] = Obligation(one, prop)
            except InputError as error:
                cells[row, column] = error.diagnostics[0].message
    decided = common.decide(builder, list(wanted.values()), settings)
    found = {r.obligation: r for r in decided.results}
    cells |= {cell: found.get(o) for cell, o in wanted.items()}
    where = f"{subject.side} {subject.change}" if subject.change else f"under {subject.protocol}"
    title = f"{prop}: paths of {version or 'no kernel version'} {where}"
    table = report.Matrix(title, prop, subject.protocol, subject.change, subject.side, rows, columns, cells)
    if settings.form == "json":
        return decided, report.render_json(table, library.digest())
    return decided, report.render_text(table, settings.style) + common.remarks(decided, settings)


def _pairs(library: Library, settings: common.Settings, subject: Subject, prop: str, paths: tuple[str, ...], device: str,
           kernel: str) -> tuple[common.Decided, str]:  # fmt: skip
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.subjects import Obligation, Subject
    from mmucheck.analyses.survey import kernel_of
    from mmucheck.ir.overlap import excluding
    from mmucheck.report import pairs as report

    version = kernel or kernel_of(library, subject.protocol)
    rows = _choose("path", paths, [v.declaration.name for v in library.paths() if v.version in (version, "")])
    _known("property", prop, library.properties)
    _known("device", device, library.devices)
    builder = Builder(library)
    found = [(row, code.version) for row in rows if (code := library.find(row, version)) is not None]
    cells: dict[tuple[str, str], Any] = {}
    wanted: dict[tuple[str, str], Obligation] = {}
    for i, one in enumerate(found):
        for other in found[i:]:
            if builder.levels(one) != builder.levels(other):
                cells[one[0], other[0]] = report.Apart(report.LEVELS)
                continue
            both = Subject((one, other), (device,), subject.protocol, subject.change, subject.side)
            system = builder.system(both)
            apart = excluding(system.threads[0], system.threads[1], system.locks)
            cells[one[0], other[0]] = report.Apart(apart) if apart else None
            if not apart:
                wanted[one[0], other[0]] = Obligation(both, prop)
    decided = common.decide(builder, list(wanted.values()), settings, traces=False, pairs=True)
    results = {r.obligation: r for r in decided.results}
    cells |= {cell: results.get(o) for cell, o in wanted.items()}
    where = f"{subject.side} {subject.change}" if subject.change else f"under {subject.protocol}"
    table = report.Pairs(f"{prop} on {device}: two paths of {version or 'no kernel version'} at once {where}", prop, device, rows, cells)
    if settings.form == "json":
        return decided, report.render_json(table, library.digest(), bool(decided.stopped))
    return decided, report.render_text(table, settings.style) + common.remarks(decided, settings)


def _frame(library: Library, protocol: str, change: str, side: str) -> Subject:
    """What all cells have in common."""
    from mmucheck.analyses.subjects import Subject

    if change:
        _known("change", change, library.changes)
        found = library.changes[change]
        return Subject((), (), found.before if side == "before" else found.after, change, side)
    protocol = protocol or "v3_17"
    _known("protocol", protocol, library.protocols)
    return Subject((), (), protocol)


def _everything(
    library: Library, settings: common.Settings, paths: tuple[str, ...], devices: tuple[str, ...]
) -> tuple[common.Decided, str]:
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.run import Result
    from mmucheck.analyses.subjects import Nameless
    from mmucheck.analyses.survey import Frame, Survey, frames, questions
    from mmucheck.engines.verdicts import INCONCLUSIVE, Decision
    from mmucheck.report import survey as report

    for path in paths:
        _known("path", path, {v.declaration.name for v in library.paths()})
    asked = [f if not paths else Frame(f.protocol, f.change, f.kernel, tuple(p for p in f.paths if p[0] in paths)) for f in frames(library)]
    asked = [f for f in asked if f.paths]
    columns, properties = _choose("device", devices, list(library.devices)), tuple(library.properties)
    systems = Nameless(Builder(library)) if common.verdicts_suffice(settings) else Builder(library)
    wanted, refused = questions(systems, asked, columns, properties)
    decided = common.decide(systems, wanted, settings, verdicts_only=True)
    results = {o: Result(o, Decision(INCONCLUSIVE, "none", "interrupted"), "") for o in wanted}  # what the run did not come to
    results |= {r.obligation: r for r in decided.results}
    survey = Survey(tuple(asked), columns, properties, refused, results)
    if settings.form == "json":
        return decided, report.render_json(survey, library.digest(), bool(decided.stopped))
    return decided, report.render_text(survey, settings.style) + common.remarks(decided, settings)


def _known(what: str, name: str, known: Any) -> None:
    from mmucheck.syntax.diagnostics import UsageError, suggest

    if name not in known:
        raise UsageError(f"there is no {what} `{name}`; {suggest(name, known) or 'there are ' + ', '.join(sorted(known))}")


def _choose(what: str, wanted: tuple[str, ...], known: list[str]) -> tuple[str, ...]:
    from mmucheck.syntax.diagnostics import UsageError

    for name in wanted:
        _known(what, name, known)
    if not known:
        raise UsageError(f"nothing selected: there is no {what}")
    return tuple(dict.fromkeys(wanted or sorted(known)))
