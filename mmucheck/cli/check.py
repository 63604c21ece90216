"""``mmucheck check``."""

from __future__ import annotations

from typing import Any

import click

from mmucheck.cli import common, outputs


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="FILE|DIR|FILE::SPEC|FILE::SPEC::CHECK...")
@click.option("-k", "name", default="", metavar="NAME", help="Only specs and checks with NAME in their name.")
@click.option("-q", "--quiet", is_flag=True, help="Only what is unexpected, and the summary.")
@common.seeds_option
@common.solving_options
def check(targets: tuple[str, ...], name: str, quiet: bool, **options: Any) -> int:
    """Decide the checks of specs and compare with what they expect."""
    settings = common.Settings(**options)
    outputs.check_output(settings.output)
    decided = common.check_targets(targets, name, settings)
    if settings.form == "json":
        from mmucheck.report import json

        text = json.render(decided.results, decided.digest, bool(decided.stopped))
    else:
        from mmucheck.report import text as as_text

        text = as_text.render(decided.results, settings.style, quiet, settings.verbose) + common.remarks(decided, settings)
    outputs.write(text, settings.output)
    return decided.code
