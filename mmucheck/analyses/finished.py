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
from typing import TYPE_CHECKING

from mmucheck.analyses.verdict_cache import DECIDED, tool_digest
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

    def results(self) -> list[Result] | None:
        """The results, without traces, if every file that was read then is the same now, byte for byte; else None."""
        if self._path is None:
            return None
        try:
            files, results = pickle.loads(read_sealed(self._path))
            same = all(_stamp(name) == stamp for name, stamp in files)
        except Exception:
            return None
        return results if same else None

    def keep(self, library: Library, results: Sequence[Result]) -> None:
        """Keep the results if all were decided, and as expected where something was."""
        settled = all(
            r.decision is not None and not r.error and r.decision.verdict in DECIDED and r.as_expected is not False for r in results
        )
        if self._path is None or not settled:
            return
        files = [
            (str(asked), (str(real), hashlib.sha256(library.files[name].text.encode()).digest()))
            for name, (asked, real) in library.places.items()
        ]
        bare = [replace(r, trace=None) for r in results]
        try:
            write_sealed(self._path, pickle.dumps((files, bare), protocol=5))
        except OSError:
            return


def _stamp(name: str) -> tuple[str, bytes]:
    """Where a file really is, and its content."""
    return os.path.realpath(name), hashlib.sha256(Path(name).read_bytes()).digest()
