"""``mmucheck cost``."""

from __future__ import annotations

from pathlib import Path

import click

from mmucheck.cli import common, inputs, outputs


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--protocol", default="", metavar="P", help="Under this protocol.")
@click.option("--change", default="", metavar="C", help="Both sides of this change.")
@click.option("--path", "paths", multiple=True, metavar="NAME", help="Only this path; may be repeated.")
@click.option("--kernel", default="v3.17", show_default=True, metavar="VERSION", help="Paths of this kernel version.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to report.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the report there, all or nothing.")
def cost(files: tuple[Path, ...], protocol: str, change: str, paths: tuple[str, ...], kernel: str, form: str, output: Path | None) -> int:
    """Count the callbacks each path dispatches: fewest, most, per round of a loop, under a spin lock, doubled."""
    from mmucheck.analyses.cost import Count, cost
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.subjects import Subject
    from mmucheck.names.places import models_root
    from mmucheck.report import cost as report
    from mmucheck.syntax.diagnostics import InputError, UsageError, suggest

    library = inputs.load_files(files or sorted(models_root().rglob("*.mmu")))
    if bool(protocol) == bool(change):
        raise UsageError("name either --protocol or --change")
    for name, known in ((protocol, library.protocols), (change, library.changes)):
        if name and name not in known:
            raise UsageError(f"there is no `{name}`; {suggest(name, known) or 'there are ' + ', '.join(known)}")
    chosen = [v for v in library.paths() if v.version == kernel and (not paths or v.declaration.name in paths)]
    if not chosen:
        raise UsageError(f"no path of {kernel} selected")
    builder = Builder(library)
    spinlocks = frozenset(lock.name for lock in library.locks.values() if lock.kind == "spinlock")
    sides = [("", protocol)] if protocol else [("before", library.changes[change].before), ("after", library.changes[change].after)]
    rows: list[report.Row] = []
    for versioned in chosen:
        counts: list[dict[str, Count]] = []
        for side, under in sides:
            subject = Subject(((versioned.declaration.name, versioned.version),), (), under, change, side)
            try:
                counts.append(cost(builder.system(subject).threads[0], spinlocks))
            except InputError as error:
                click.echo(f"mmucheck: {versioned.declaration.name}: {error}", err=True)
                break
        if len(counts) == len(sides):
            rows.append((versioned.declaration.name, counts[0], counts[1] if len(counts) > 1 else None))
    text = report.table(rows) if form == "text" else report.render(rows, [side or under for side, under in sides])
    outputs.write(text, output)
    return common.AS_EXPECTED
