"""``mmucheck explain``."""

from __future__ import annotations

from typing import Any

import click

from mmucheck.cli import common, outputs


@click.command()
@click.argument("target", metavar="FILE::SPEC::CHECK")
@click.option("-p", "--property", "prop", default="", metavar="NAME", help="Only this property.")
@common.solving_options
def explain(target: str, prop: str, **options: Any) -> int:
    """Show why: the run that breaks a property as columns, or what was proved for which quantities."""
    from mmucheck.analyses.flush import with_flush

    settings = common.Settings(**options, traces=True)
    outputs.check_output(settings.output)
    decided = common.check_targets([target], "", settings, prop)
    assert decided.systems is not None
    results = decided.results
    if not decided.stopped:
        results = with_flush(decided.systems, results, settings.limits(1))
    if settings.form == "json":
        from mmucheck.report import json

        text = json.render(results, decided.digest, bool(decided.stopped))
    else:
        from mmucheck.report import text as as_text

        blocks = [
            as_text.proof(r, settings.style)
            if as_text.verdict_of(r) == "proved" and as_text.met(r)
            else as_text.explanation(r, settings.style, settings.verbose)
            for r in results
        ]
        text = "\n".join(blocks) + common.remarks(decided, settings)
    outputs.write(text, settings.output)
    return decided.code
