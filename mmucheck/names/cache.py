"""A cache of parsed files, so that a run parses only what has changed. Losing it costs time, nothing else."""

from __future__ import annotations

import hashlib
import os
import pickle
from functools import cache
from pathlib import Path

from mmucheck.syntax import ast


def cache_root() -> Path | None:
    """The user's cache folder for this tool, made if it is missing; None if caching is off or impossible.

    ``MMUCHECK_CACHE`` names another folder, or none if it is empty.
    """
    named = os.environ.get("MMUCHECK_CACHE")
    if named == "":
        return None
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmucheck"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            return None
    except (OSError, RuntimeError):
        return None
    return base


@cache
def _parser_digest() -> bytes:
    """Of everything that decides what a text is parsed to."""
    total = hashlib.sha256()
    for name in ("grammar.lark", "parser.py", "builder.py", "ast.py", "diagnostics.py"):
        total.update((Path(ast.__file__).parent / name).read_bytes())
    return total.digest()


def _entry(root: Path, text: str, path: str) -> Path:
    key = hashlib.sha256(_parser_digest() + path.encode() + b"\0" + text.encode()).hexdigest()
    return root / "ast" / f"{key}.pickle"


def recall(text: str, path: str) -> ast.File | None:
    """The tree of this very text under this very name, if it was parsed before by this very parser."""
    root = cache_root()
    if root is None:
        return None
    try:
        file = pickle.loads(_entry(root, text, path).read_bytes())
    except Exception:
        return None
    return file if isinstance(file, ast.File) and file.text == text and file.path == path else None


def remember(file: ast.File) -> None:
    """Keep a tree. A cache that cannot be written is no error."""
    root = cache_root()
    if root is None:
        return
    target = _entry(root, file.text, file.path)
    try:
        target.parent.mkdir(exist_ok=True)
        import tempfile

        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as stream:
            pickle.dump(file, stream, protocol=5)
        Path(stream.name).replace(target)
    except OSError:
        return
