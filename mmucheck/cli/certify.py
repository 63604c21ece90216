"""``mmucheck certify``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmucheck.cli import common, inputs, tasks

if TYPE_CHECKING:
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.subjects import Obligation, Subject
    from mmucheck.analyses.workers import Finished, Work
    from mmucheck.engines.certificate import Evidence
    from mmucheck.names.library import Library

    Task = tuple[Subject, list[Obligation]]

SCHEMA = "mmucheck.certificate/1"


@click.command()
@click.argument("target", metavar="FILE|DIR|FILE::SPEC[::CHECK]")
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Where to write."
)
@tasks.jobs_option
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="Per property.")
def certify(target: str, folder: Path, jobs: int | None, timeout: float) -> int:
    """Write a certificate for every proof the target states: the invariant, and what must be unsatisfiable as SMT-LIB 2."""
    from mmucheck.analyses.subjects import subjects

    parsed = inputs.parse_target(target)
    library = inputs.load_files(inputs.files_of(parsed))
    wanted = [o for o in inputs.select(library, [parsed]) if o.expected == "proved"]
    done = tasks.each(list(subjects(wanted).items()), partial(_workshop, library, folder, timeout), jobs, lambda task: str(task[0]))
    failed = 0
    for (subject, group), said in done:
        for name, text, certified in said:
            click.echo(f"{name}: {text}")
            failed += not certified
        missing = len(group) - len(said)
        failed += missing
        if missing:
            click.echo(f"{subject}: {missing} not certified: the process that was to do it died")
    click.echo(f"{len(wanted) - failed} of {len(wanted)} proofs certified in {folder}")
    return common.UNDECIDED if failed else common.AS_EXPECTED


def _workshop(library: Library, folder: Path, timeout: float) -> Work[Task, tuple[str, str, bool]]:
    """What certifies all that is asked of one subject; says name, what came of it, and whether there is a certificate."""
    from mmucheck.analyses.plan import Builder
    from mmucheck.analyses.workers import Finished
    from mmucheck.engines.certificate import certify as prove
    from mmucheck.engines.solver import Limits

    builder, digest = Builder(library), library.digest()

    def work(task: Task, say: Callable[[tuple[str, str, bool]], None]) -> Finished:
        subject, group = task
        properties = builder.properties(subject, [o.property for o in group])
        asking = {p.name: [o for o in group if o.property == p.name] for p in properties}
        for prop, decision, evidence in prove(builder.system(subject), properties, Limits(timeout)):
            for obligation in asking[prop.name]:
                name = f"{obligation.spec}.{obligation.check}.{'+'.join(subject.devices)}.{prop.name}"
                if evidence is None:
                    say((name, f"not certified: {decision.verdict} {decision.reason}", False))
                else:
                    _write(folder / name, obligation, evidence, digest, lowered(builder, subject))
                    say((name, f"{evidence.method}, {len(evidence.texts)} obligation(s)", True))
        return Finished()

    return work


def _write(home: Path, obligation: Obligation, evidence: Evidence, digest: str, form: str) -> None:
    from mmucheck import __version__
    from mmucheck.engines.solver import version

    home.mkdir(parents=True, exist_ok=True)
    for part, text in evidence.texts:
        (home / f"{part}.smt2").write_text(text, encoding="utf-8")
    record = {
        "schema": SCHEMA,
        "tool": {"mmucheck": __version__, "z3": version()},
        "target": obligation.target,
        "subject": str(obligation.subject),
        "devices": list(obligation.subject.devices),
        "property": obligation.property,
        "decided_with": list(evidence.together),
        "method": evidence.method,
        "model": digest,
        "lowered": form,
        "obligations": [{"file": f"{part}.smt2", "sha256": sha(text), "must_be": "unsat"} for part, text in evidence.texts],
        "invariant": [{"line": line, "clauses": [[list(x) for x in c] for c in clauses]} for line, clauses in evidence.invariant],
        "cells": [list(members) for members in evidence.cells],
    }
    (home / "certificate.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lowered(builder: Builder, subject: Subject) -> str:
    """The hash of what was decided: the subject with its macros expanded and its changes made."""
    return sha(repr(builder.system(subject)))
