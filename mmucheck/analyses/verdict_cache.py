"""Verdicts kept from earlier runs. A key names everything a verdict depends on; what was not decided is never kept."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mmucheck.engines.verdicts import PROVED, REFUTED, VACUOUS, Decision
from mmucheck.ir.program import PropertyDecl, System
from mmucheck.names.cache import cache_root
from mmucheck.replay.trace import Trace

Kept = tuple[Decision, Trace | None]


class VerdictCache:
    """``warnings`` says what could not be used. Without a root nothing is kept or found. Verdicts of which more was asked
    (Limits.thorough) are kept apart."""

    def __init__(self, root: Path | None, thorough: bool = False) -> None:
        self.root = root / ("thorough" if thorough else "verdicts") if root is not None else None
        self.warnings: list[str] = []

    @classmethod
    def of_user(cls, enabled: bool, thorough: bool = False) -> VerdictCache:
        return cls(cache_root() if enabled else None, thorough)

    def find(self, key: str) -> Kept | None:
        """The verdict under this very key; None if there is none or it is damaged."""
        if self.root is None:
            return None
        path = self.root / f"{key}.pickle"
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            digest, payload = data[:32], data[32:]
            if hashlib.sha256(payload).digest() != digest:
                raise ValueError("checksum")
            named, decision, trace = pickle.loads(payload)
            if named != key or not isinstance(decision, Decision):
                raise ValueError("wrong entry")
        except Exception:
            self.warnings.append(f"a damaged cache entry is ignored: {path.name}")
            return None
        return decision, trace

    def keep(self, key: str, decision: Decision, trace: Trace | None) -> None:
        if self.root is None or decision.verdict not in (PROVED, REFUTED, VACUOUS):
            return
        payload = pickle.dumps((key, decision, trace), protocol=5)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            import tempfile

            with tempfile.NamedTemporaryFile(dir=self.root, delete=False) as stream:
                stream.write(hashlib.sha256(payload).digest() + payload)
            Path(stream.name).replace(self.root / f"{key}.pickle")
        except OSError:
            self.root = None
            self.warnings.append("the cache cannot be written; going on without it")


def keys_of(system: System, properties: Sequence[PropertyDecl]) -> dict[str, str]:
    """For each property the key of its verdict: the lowered form with its places, the property, the versions of the solvers and the
    tool's own source. Limits are left out: they decide whether there is a verdict, not which."""
    common = hashlib.sha256(_tool_digest() + repr(system).encode())
    keys: dict[str, str] = {}
    for prop in properties:
        total = common.copy()
        total.update(repr(prop).encode())
        keys[prop.name] = total.hexdigest()
    return keys


@cache
def _tool_digest() -> bytes:
    from importlib import metadata

    total = hashlib.sha256()
    for package in ("z3-solver", "python-sat"):
        total.update(metadata.version(package).encode())
    root = Path(__file__).resolve().parent.parent
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.digest()
