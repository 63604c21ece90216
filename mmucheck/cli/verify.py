"""``mmucheck verify-certificate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmucheck.cli import common, inputs, tasks
from mmucheck.cli.certify import lowered, sha

if TYPE_CHECKING:
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.workers import Finished, Work


@click.command("verify-certificate")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--solver", default="z3", type=click.Choice(["z3", "cvc5"]), show_default=True, help="Who decides.")
@tasks.jobs_option
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="Per obligation.")
def verify_certificate(folder: Path, solver: str, jobs: int | None, timeout: float) -> int:
    """Check certificates: make their obligations again from the models and have them decided."""
    from mmucheck.engines.second import SolverMissing, decide_text
    from mmucheck.engines.solver import Limits
    from mmucheck.syntax.diagnostics import UsageError

    homes = sorted(p.parent for p in folder.rglob("certificate.json"))
    if not homes:
        raise UsageError(f"{folder}: there is no certificate here")
    try:
        decide_text("(set-logic QF_BV)(check-sat)", solver, Limits(timeout))
    except SolverMissing as error:
        raise UsageError(str(error)) from None
    failed = 0
    for home, said in tasks.each(homes, partial(_workshop, solver, timeout), jobs, lambda home: home.name):
        problem = said[0] if said else "the process that was to check it died"
        failed += bool(problem)
        click.echo(f"{home.name}: {'REJECTED: ' + problem if problem else 'confirmed by ' + solver}")
    click.echo(f"{len(homes) - failed} of {len(homes)} certificates confirmed by {solver}")
    return common.UNEXPECTED if failed else common.AS_EXPECTED


def _workshop(solver: str, timeout: float) -> Work[Path, str]:
    """What checks one certificate; says what is wrong with it, or an empty string. Sources are read once, not from any cache."""
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.workers import Finished

    known: dict[tuple[Path, ...], Builder] = {}

    def builder_of(files: list[Path]) -> Builder:
        key = tuple(files)
        if key not in known:
            known[key] = Builder(inputs.load_files(files, cached=False))
        return known[key]

    def work(home: Path, say: Callable[[str], None]) -> Finished:
        say(_verify(home, solver, timeout, builder_of))
        return Finished()

    return work


def _verify(home: Path, solver: str, timeout: float, builder_of: Callable[[list[Path]], Builder]) -> str:
    """What is wrong with a certificate, or an empty string."""
    from mmucheck.engines.certificate import CannotRederive, rederive
    from mmucheck.engines.second import decide_text
    from mmucheck.engines.solver import Limits
    from mmucheck.syntax.diagnostics import InputError, UsageError

    try:
        record: dict[str, Any] = json.loads((home / "certificate.json").read_text(encoding="utf-8"))
        parsed = inputs.parse_target(record["target"])
        builder = builder_of(inputs.files_of(parsed))
        wanted = [
            o
            for o in inputs.select(builder.library, [parsed])
            if o.property == record["property"] and list(o.subject.devices) == record["devices"] and str(o.subject) == record["subject"]
        ]
        invariant = [(entry["line"], [tuple((n, s) for n, s in c) for c in entry["clauses"]]) for entry in record["invariant"]]
        cells = [[{str(n): int(v) for n, v in member.items()} for member in members] for members in record["cells"]]
        files = {entry["file"]: entry["sha256"] for entry in record["obligations"]}
        together = sorted({record["property"], *record["decided_with"]}, key=record["decided_with"].index)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError, UsageError) as error:
        return f"it cannot be read: {error}"
    if len(wanted) != 1:
        return "the spec it names no longer states this"
    subject = wanted[0].subject
    if record.get("lowered") != lowered(builder, subject):
        return "the lowered form of the model is another one"
    unknown = [name for name in together if name not in builder.library.properties]
    if unknown:
        return f"there is no property `{unknown[0]}`"
    properties = builder.properties(subject, together)
    try:
        prop = next(p for p in properties if p.name == record["property"])
        evidence = rederive(builder.system(subject), properties, prop, invariant, cells, Limits(timeout))
    except CannotRederive as error:
        return str(error)
    if sorted(files) != sorted(f"{name}.smt2" for name, _ in evidence.texts):
        return "it does not have the obligations this model needs"
    for name, text in evidence.texts:
        try:
            kept = (home / f"{name}.smt2").read_text(encoding="utf-8")
        except OSError:
            return f"{name}.smt2 is missing"
        if kept != text or files[f"{name}.smt2"] != sha(text):
            return f"{name}.smt2 is not what the model gives"
        answer = decide_text(text, solver, Limits(timeout))
        if answer != "unsat":
            return f"{name}.smt2 is {answer}"
    return ""
