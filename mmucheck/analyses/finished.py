"""Runs that had nothing to report: while no file they read has changed, the same command line need not be gone through again.

Kept under the arguments, the working directory, the place of the library, the tool's own source and the solvers' versions. Losing
it costs time, nothing else.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmucheck.analyses.verdict_cache import KEPT, tool_digest
from mmucheck.names.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    from mmucheck.analyses.run import Result
    from mmucheck.names.library import Library


class FinishedRun:
    """The place of one run below a cache folder; without a root nothing is kept or found. ``library``: where ``use <...>`` looks,
    since the same tool may be run with its installed models or with those of a checkout; ``arguments`` name the run."""

    def __init__(self, root: Path | None, library: Path, arguments: Sequence[str]) -> None:
        self._path: Path | None = None
        if root is not None:
            named = "\0".join([os.getcwd(), str(library.resolve()), *arguments])
            self._path = root / "runs" / f"{hashlib.sha256(tool_digest() + named.encode()).hexdigest()}.pickle"

    def found(self) -> Any:
        """What was kept, if every file that was read then is the same now, byte for byte; else None."""
        if self._path is None:
            return None
        try:
            files, kept = pickle.loads(read_sealed(self._path))
            same = all(_stamp(name) == stamp for name, stamp in files)
        except Exception:
            return None
        return kept if same else None

    def keep(self, library: Library, results: Sequence[Result], instead: object = None) -> None:
        """Keep the results (without traces), or what is to be kept ``instead`` of them, if no limit ended any, and all are as expected
        where something was."""
        if self._path is None or not all(map(_settled, results)):
            return
        files = [
            (str(asked), (str(real), hashlib.sha256(library.files[name].text.encode()).digest()))
            for name, (asked, real) in library.places.items()
        ]
        kept = instead if instead is not None else [replace(r, trace=None) for r in results]
        try:
            write_sealed(self._path, pickle.dumps((files, kept), protocol=5))
        except OSError:
            return


def _settled(result: Result) -> bool:
    decided = result.decision is not None and not result.error and result.decision.verdict in KEPT
    return decided and result.as_expected is not False


def _stamp(name: str) -> tuple[str, bytes]:
    """Where a file really is, and its content."""
    return os.path.realpath(name), hashlib.sha256(Path(name).read_bytes()).digest()
