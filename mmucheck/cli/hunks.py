"""``mmucheck hunks``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mmucheck.cli import common, inputs, outputs

DEVICES = ("ats", "hw_start_end", "kvm")
PROPERTIES = ("no_freed_page", "no_freed_table", "no_stale_translation", "no_stale_write", "quiescent")


@click.command()
@click.argument("change", metavar="CHANGE")
@click.option(
    "--device", "devices", multiple=True, default=("ats", "hw_start_end", "kvm"), show_default=True, metavar="NAME", help="May be repeated."
)
@click.option("--property", "properties", multiple=True, default=PROPERTIES, metavar="NAME")
@click.option(
    "--library", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Models, instead of the shipped ones."
)
@common.solving_options
def hunks(change: str, devices: tuple[str, ...], properties: tuple[str, ...], files: tuple[Path, ...], **options: Any) -> int:
    """For each hunk of a change: leave it out alone, and say which properties are lost on which device."""
    from mmucheck.analyses.hunks import hunks_needed
    from mmucheck.analyses.verdict_cache import VerdictCache
    from mmucheck.cli.progress import Progress
    from mmucheck.names.places import models_root
    from mmucheck.report import hunks as report
    from mmucheck.syntax.diagnostics import UsageError, suggest

    settings = common.Settings(**options)
    outputs.check_output(settings.output)
    library = inputs.load_files(files or sorted(models_root().rglob("*.mmu")))
    for names, known in (((change,), library.changes), (devices, library.devices), (properties, library.properties)):
        for name in names:
            if name not in known:
                raise UsageError(f"there is no `{name}`; {suggest(name, known) or 'there are ' + ', '.join(known)}")
    kept = VerdictCache.of_user(not settings.no_cache)
    with Progress(sys.stderr) as progress:
        jobs = settings.jobs or 1
        needs = hunks_needed(library, change, devices, properties, settings.limits(jobs), jobs, progress, kept)
    text = report.render(needs, change) if settings.form == "json" else report.markdown(needs, change, devices, properties)
    outputs.write(text, settings.output)
    return common.UNDECIDED if any(n.undecided for n in needs) else common.AS_EXPECTED
