"""Verdicts kept from earlier runs. A key names everything a verdict depends on; what a limit ended is never kept."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mmucheck.engines.verdicts import BOUNDED, PROVED, REFUTED, VACUOUS, Decision
from mmucheck.names.sealed import cache_root, read_sealed, write_sealed
from mmucheck.versions import version

if TYPE_CHECKING:
    from mmucheck.engines.solver import Limits
    from mmucheck.ir.program import PropertyDecl
    from mmucheck.replay.trace import Trace

Kept: TypeAlias = "tuple[Decision, Trace | None]"

KEPT = (PROVED, REFUTED, VACUOUS, BOUNDED)
"""What may be kept: it does not depend on limits. Bounded is what a method came to at its end; what a limit ended is inconclusive."""


class VerdictCache:
    """``warnings`` says what could not be used. Without a root nothing is kept or found. Verdicts of which more was asked
    (Limits.thorough, Limits.confirm) are kept apart."""

    def __init__(self, root: Path | None, thorough: bool = False, confirm: str = "") -> None:
        folder = "-".join(["thorough" if thorough else "verdicts", *([confirm] if confirm else [])])
        self.root = root / folder if root is not None else None
        self.warnings: list[str] = []

    @classmethod
    def of_user(cls, enabled: bool, thorough: bool = False, confirm: str = "") -> VerdictCache:
        """Under the user's cache folder, unless caching is off there (``MMUCHECK_CACHE`` is empty)."""
        found = cls(cache_root() if enabled else None, thorough, confirm)
        if enabled and found.root is None and os.environ.get("MMUCHECK_CACHE") != "":
            found.warnings.append("the cache folder cannot be used (others may write to it, or it cannot be made); going on without it")
        return found

    def find(self, key: str) -> Kept | None:
        """The verdict under this very key; None if there is none or it is damaged."""
        if self.root is None:
            return None
        path = self.root / f"{key}.pickle"
        try:
            named, decision, trace = pickle.loads(read_sealed(path))
            if named != key or not isinstance(decision, Decision):
                raise ValueError("wrong entry")
        except OSError:
            return None
        except Exception:
            self.warnings.append(f"a damaged cache entry is ignored: {path.name}")
            return None
        return decision, trace

    def keep(self, key: str, decision: Decision, trace: Trace | None) -> None:
        if self.root is None or decision.verdict not in KEPT:
            return
        payload = pickle.dumps((key, decision, trace), protocol=5)
        try:
            write_sealed(self.root / f"{key}.pickle", payload)
        except OSError:
            self.root = None
            self.warnings.append("the cache cannot be written; going on without it")


def keys_of(form: bytes, properties: Sequence[PropertyDecl], limits: Limits) -> dict[str, str]:
    """For each property the key of its verdict: the system (``form`` is its digest), the property, the versions of the solvers and the
    tool's own source. A limit of time is left out: it decides whether there is a verdict, not which. A limit of resources is in, with
    all that is decided together: under it the same run must find the same, whatever was kept before."""
    common = hashlib.sha256(tool_digest() + form)
    if limits.rlimit:
        common.update(f"rlimit {limits.rlimit} {sorted(p.name for p in properties)}".encode())
    keys: dict[str, str] = {}
    for prop in properties:
        total = common.copy()
        total.update(repr(prop).encode())
        keys[prop.name] = total.hexdigest()
    return keys


@cache
def tool_digest() -> bytes:
    """Of the tool's own source and the versions of its solvers."""
    total = hashlib.sha256()
    for package, distribution in (("z3", "z3_solver"), ("pysat", "python_sat")):
        total.update(version(package, distribution).encode())
    for name, source in _sources(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), ""):
        total.update(f"{name} {len(source)}\n".encode() + source)
    return total.digest()


def _sources(folder: str, under: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every source file below a folder, in a fixed order: by os, since pathlib takes three times as long."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _sources(entry.path, f"{under}{entry.name}/")
        elif entry.name.endswith((".py", ".lark")):
            with open(entry.path, "rb") as stream:
                yield under + entry.name, stream.read()
