"""``mmucheck check``."""

from __future__ import annotations

from typing import Any

import click

from mmucheck.cli import common


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="FILE|DIR|FILE::SPEC|FILE::SPEC::CHECK...")
@click.option("-k", "name", default="", metavar="NAME", help="Only specs and checks with NAME in their name.")
@click.option("-q", "--quiet", is_flag=True, help="Only what is unexpected, and the summary.")
@common.solving_options
def check(targets: tuple[str, ...], name: str, quiet: bool, **options: Any) -> int:
    """Decide the checks of specs and compare with what they expect."""
    settings = common.Settings(**options)
    common.check_output(settings.output)
    checked = common.check_targets(targets, name, settings)
    results = checked.results
    if settings.form == "json":
        from mmucheck.report import json

        text = json.render(results, checked.digest)
    else:
        from mmucheck.report import text as as_text

        text = as_text.render(results, settings.style, quiet, settings.verbose)
    common.write(text, settings.output)
    return common.exit_code(results)
