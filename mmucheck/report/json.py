"""Results as JSON, in the form `results.schema.json` describes."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from mmucheck import __version__
from mmucheck.analyses.run import Result
from mmucheck.engines.verdicts import VERDICTS, Exercised
from mmucheck.replay.trace import Trace, TraceStep

SCHEMA = "mmucheck.results/1"


def render(results: Sequence[Result], digest: str, incomplete: bool = False) -> str:
    """The whole document. ``digest`` is the library's: equal inputs have equal digests; ``incomplete``: the run was interrupted."""
    return dump(
        {
            "schema": SCHEMA,
            "tool": tool(digest),
            "incomplete": incomplete,
            "results": [record(r) for r in results],
            "summary": summary(results),
        }
    )


def dump(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def tool(digest: str) -> dict[str, Any]:
    """Versions of everything that took part. Seconds are not among them: two runs differ only there."""
    return {
        "name": "mmucheck",
        "version": __version__,
        "z3": metadata.version("z3-solver"),
        "lark": metadata.version("lark"),
        "python": platform.python_version(),
        "input_sha256": digest,
    }


def record(result: Result) -> dict[str, Any]:
    """One result. ``verdict`` is null exactly when ``error`` is set."""
    o, decision = result.obligation, result.decision
    failed = bool(result.error) or decision is None
    found: dict[str, Any] = {
        "file": o.span.file if o.span else None,
        "line": o.span.line if o.span else None,
        "spec": o.spec or None,
        "check": o.check or None,
        "paths": list(o.subject.path_names),
        "again": o.subject.again,
        "devices": list(o.subject.devices),
        "protocol": o.subject.protocol,
        "change": o.subject.change or None,
        "side": o.subject.side or None,
        "except": list(o.subject.excepted),
        "property": o.property,
        "verdict": None if failed or decision is None else decision.verdict,
        "expected": o.expected or None,
        "as_expected": result.as_expected,
        "scope": result.scope,
        "method": decision.method if decision is not None else None,
        "reason": decision.reason if decision is not None else "",
        "seconds": round(decision.seconds, 3) if decision is not None else 0.0,
        "exercised": exercised(decision.exercised) if decision is not None and decision.exercised is not None else None,
        "confirmed_by": (decision.confirmed or None) if decision is not None else None,
        "needs_flush": decision.needs_flush if decision is not None else None,
        "notes": list(result.notes),
        "error": result.error or None,
    }
    if decision is not None and decision.invariant:
        found["invariant"] = list(decision.invariant)
    if result.trace is not None:
        found |= trace(result.trace)
    return found


def exercised(value: Exercised) -> dict[str, Any]:
    """``missing``: what no run takes, and how that is known."""
    missing = [{"file": m.file, "line": m.line, "what": m.what, "why": m.why, "dead": m.dead} for m in value.missing]
    return {"reached": value.reached, "total": value.total, "missing": missing}


def trace(value: Trace) -> dict[str, Any]:
    """``start``: what held before; ``trace``: the steps; ``why``: one sentence; ``witness``: the property's names in this run."""
    return {
        "why": value.why,
        "witness": dict(value.witness),
        "start": dict(value.start),
        "trace": [_step(s) for s in value.steps],
    }


def _step(step: TraceStep) -> dict[str, Any]:
    return {
        "number": step.number,
        "actor": step.actor,
        "action": step.action,
        "file": step.file or None,
        "line": step.line or None,
        "source": step.source or None,
        "calls": list(step.calls),
        "changes": [{"what": c.what, "before": c.before, "after": c.after} for c in step.changes],
    }


def summary(results: Sequence[Result]) -> dict[str, int]:
    counts = Counter(r.decision.verdict for r in results if r.decision is not None and not r.error)
    return {
        "total": len(results),
        **{v: counts[v] for v in VERDICTS},
        "errors": sum(bool(r.error) or r.decision is None for r in results),
        "as_expected": sum(r.as_expected is True for r in results),
        "unexpected": sum(r.as_expected is False for r in results),
    }
