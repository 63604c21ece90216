"""A cache of parsed files, so that a run parses only what has changed. Losing it costs time, nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from functools import cache
from pathlib import Path

from mmucheck.names.sealed import read_sealed, write_sealed
from mmucheck.syntax import ast


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


def recall(root: Path | None, text: str, path: str) -> ast.File | None:
    """The tree of this very text under this very name, if it was parsed before by this very parser. ``root``: see cache_root."""
    if root is None:
        return None
    try:
        file = pickle.loads(read_sealed(_entry(root, text, path)))
    except Exception:
        return None
    return file if isinstance(file, ast.File) and file.text == text and file.path == path else None


def remember(root: Path | None, file: ast.File) -> None:
    """Keep a tree. A cache that cannot be written is no error."""
    if root is None:
        return
    with contextlib.suppress(OSError):
        write_sealed(_entry(root, file.text, file.path), pickle.dumps(file, protocol=5))
