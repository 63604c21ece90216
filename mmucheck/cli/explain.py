"""``mmucheck explain``."""

from __future__ import annotations

from typing import Any

import click

from mmucheck.cli import common


@click.command()
@click.argument("target", metavar="FILE::SPEC::CHECK")
@click.option("-p", "--property", "prop", default="", metavar="NAME", help="Only this property.")
@common.solving_options
def explain(target: str, prop: str, **options: Any) -> int:
    """Show why: the run that breaks a property as columns, or what was proved for which quantities."""
    from mmucheck.analyses.flush import with_flush
    from mmucheck.engines.solver import Limits

    settings = common.Settings(**options, traces=True)
    common.check_output(settings.output)
    checked = common.check_targets([target], "", settings, prop)
    assert checked.systems is not None
    results = with_flush(checked.systems, checked.results, Limits(settings.timeout, settings.rlimit))
    if settings.form == "json":
        from mmucheck.report import json

        text = json.render(results, checked.digest)
    else:
        from mmucheck.report import text as as_text

        blocks = [
            as_text.proof(r, settings.style)
            if as_text.verdict_of(r) == "proved" and as_text.met(r)
            else as_text.explanation(r, settings.style, settings.verbose)
            for r in results
        ]
        text = "\n".join(blocks)
    common.write(text, settings.output)
    return common.exit_code(results)
