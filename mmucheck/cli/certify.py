"""``mmucheck certify`` and ``mmucheck verify-certificate``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click

from mmucheck.cli import common, inputs

SCHEMA = "mmucheck.certificate/1"


@click.command()
@click.argument("target", metavar="FILE|DIR|FILE::SPEC[::CHECK]")
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Where to write."
)
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="Per property.")
def certify(target: str, folder: Path, timeout: float) -> int:
    """Write a certificate for every proof the target states: the invariant, and what must be unsatisfiable as SMT-LIB 2."""
    from mmucheck.analyses.plan import Builder
    from mmucheck.engines.certificate import prove
    from mmucheck.engines.solver import Limits, version

    parsed = inputs.parse_target(target)
    library = inputs.load_files(inputs.files_of(parsed))
    wanted = [o for o in inputs.select(library, [parsed]) if o.expected == "proved"]
    builder = Builder(library)
    failed = 0
    for obligation in wanted:
        prop = builder.properties(obligation.subject, [obligation.property])[0]
        decision, evidence = prove(builder.system(obligation.subject), prop, Limits(timeout))
        name = f"{obligation.spec}.{obligation.check}.{'+'.join(obligation.subject.devices)}.{obligation.property}"
        if evidence is None:
            click.echo(f"{name}: not certified: {decision.verdict} {decision.reason}")
            failed += 1
            continue
        home = folder / name
        home.mkdir(parents=True, exist_ok=True)
        for part, text in evidence.texts:
            (home / f"{part}.smt2").write_text(text, encoding="utf-8")
        record = {
            "schema": SCHEMA,
            "tool": {"mmucheck": _own_version(), "z3": version()},
            "target": obligation.target,
            "subject": str(obligation.subject),
            "devices": list(obligation.subject.devices),
            "property": obligation.property,
            "method": evidence.method,
            "model": library.digest(),
            "obligations": [{"file": f"{part}.smt2", "sha256": _sha(text), "must_be": "unsat"} for part, text in evidence.texts],
            "invariant": [{"line": line, "clauses": [[list(x) for x in c] for c in clauses]} for line, clauses in evidence.invariant],
        }
        (home / "certificate.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{name}: {evidence.method}, {len(evidence.texts)} obligation(s)")
    click.echo(f"{len(wanted) - failed} of {len(wanted)} proofs certified in {folder}")
    return common.UNDECIDED if failed else common.AS_EXPECTED


@click.command("verify-certificate")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--solver", default="z3", type=click.Choice(["z3", "cvc5"]), show_default=True, help="Who decides.")
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="Per obligation.")
def verify_certificate(folder: Path, solver: str, timeout: float) -> int:
    """Check certificates: make their obligations again from the models and have them decided."""
    from mmucheck.syntax.diagnostics import UsageError

    homes = sorted(p.parent for p in folder.rglob("certificate.json"))
    if not homes:
        raise UsageError(f"{folder}: there is no certificate here")
    failed = 0
    for home in homes:
        problem = _verify(home, solver, timeout)
        failed += bool(problem)
        click.echo(f"{home.name}: {'REJECTED: ' + problem if problem else 'confirmed by ' + solver}")
    click.echo(f"{len(homes) - failed} of {len(homes)} certificates confirmed by {solver}")
    return common.UNEXPECTED if failed else common.AS_EXPECTED


def _verify(home: Path, solver: str, timeout: float) -> str:
    """What is wrong with a certificate, or an empty string."""
    from mmucheck.analyses.plan import Builder
    from mmucheck.engines.certificate import CannotRederive, rederive
    from mmucheck.engines.second import SolverMissing, decide_text
    from mmucheck.engines.solver import Limits
    from mmucheck.syntax.diagnostics import InputError, UsageError

    try:
        record: dict[str, Any] = json.loads((home / "certificate.json").read_text(encoding="utf-8"))
        parsed = inputs.parse_target(record["target"])
        library = inputs.load_files(inputs.files_of(parsed), cached=False)
        wanted = [
            o
            for o in inputs.select(library, [parsed])
            if o.property == record["property"] and list(o.subject.devices) == record["devices"] and str(o.subject) == record["subject"]
        ]
        invariant = [(entry["line"], [tuple((n, s) for n, s in c) for c in entry["clauses"]]) for entry in record["invariant"]]
        files = {entry["file"]: entry["sha256"] for entry in record["obligations"]}
    except (OSError, ValueError, KeyError, TypeError, InputError, UsageError) as error:
        return f"it cannot be read: {error}"
    if len(wanted) != 1:
        return "the spec it names no longer states this"
    builder = Builder(library)
    prop = builder.properties(wanted[0].subject, [wanted[0].property])[0]
    try:
        evidence = rederive(builder.system(wanted[0].subject), prop, invariant, Limits(timeout))
    except CannotRederive as error:
        return str(error)
    if sorted(files) != sorted(f"{name}.smt2" for name, _ in evidence.texts):
        return "it does not have the obligations this model needs"
    for name, text in evidence.texts:
        try:
            kept = (home / f"{name}.smt2").read_text(encoding="utf-8")
        except OSError:
            return f"{name}.smt2 is missing"
        if kept != text or files[f"{name}.smt2"] != _sha(text):
            return f"{name}.smt2 is not what the model gives"
        try:
            answer = decide_text(text, solver, Limits(timeout))
        except SolverMissing as error:
            raise UsageError(str(error)) from None
        if answer != "unsat":
            return f"{name}.smt2 is {answer}"
    return ""


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _own_version() -> str:
    from mmucheck import __version__

    return __version__
