"""What was parsed before, so that a run parses only what has changed: shipped with the tool, and in the user's cache. Losing either
costs time, nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mmucheck.names.sealed import read_sealed, write_sealed
from mmucheck.records import record
from mmucheck.syntax import ast


@record
class Parsed:
    """Trees of files and tables of the grammar. ``shipped``: a folder that came with the tool, never written to; ``own``: the user's,
    see cache_root. What is found is of this very text, name, parser and Python, whoever kept it."""

    shipped: Path | None
    own: Path | None

    def tree(self, text: str, path: str) -> ast.File | None:
        """The tree of this text under this name, if it was parsed before."""
        for payload in self._payloads(_entry(text, path)):
            with contextlib.suppress(Exception):
                file = pickle.loads(payload)
                if isinstance(file, ast.File) and file.text == text and file.path == path:
                    return file
        return None

    def keep_tree(self, file: ast.File) -> None:
        """Keep a tree for the user. A cache that cannot be written is no error."""
        self._keep(_entry(file.text, file.path), pickle.dumps(file, protocol=5))

    def tables(self, key: bytes) -> bytes | None:
        """The grammar's tables kept under this key."""
        return next(iter(self._payloads(_tables(key))), None)

    def keep_tables(self, key: bytes, make: Callable[[], bytes]) -> None:
        """Keep what ``make`` gives, which is asked only if there is a place for it."""
        if self.own is not None:
            self._keep(_tables(key), make())

    def _payloads(self, name: str) -> list[bytes]:
        found: list[bytes] = []
        for root in (self.shipped, self.own):
            if root is not None and not found:
                with contextlib.suppress(OSError, ValueError):
                    found.append(read_sealed(root / name))
        return found

    def _keep(self, name: str, payload: bytes) -> None:
        if self.own is not None:
            with contextlib.suppress(OSError):
                write_sealed(self.own / name, payload)


@cache
def _parser_digest() -> bytes:
    """Of everything that decides what a text is parsed to, and how it is kept."""
    total = hashlib.sha256(repr(sys.version_info[:2]).encode())
    syntax = Path(ast.__file__).parent
    for name in (*sorted(name for name in os.listdir(syntax) if name.endswith((".py", ".lark"))), "../records.py"):
        source = (syntax / name).read_bytes()
        total.update(f"{name} {len(source)}\n".encode() + source)
    return total.digest()


def _entry(text: str, path: str) -> str:
    key = hashlib.sha256(_parser_digest() + path.encode() + b"\0" + text.encode()).hexdigest()
    return f"ast/{key}.pickle"


def _tables(key: bytes) -> str:
    return f"tables/{hashlib.sha256(_parser_digest() + key).hexdigest()}.pickle"
