"""Parsing the library when the tool is packed, so that its users need not."""

from __future__ import annotations

from pathlib import Path

from mmucheck.names.cache import Parsed
from mmucheck.syntax.parser import parse


def pack(models: Path, target: Path) -> None:
    """Put the trees of all files below ``models`` and the grammar's tables into the folder ``target``, under the names that the files
    have for users. Raises InputError for a file that does not parse, OSError if one cannot be read."""
    parsed = Parsed(None, target)
    for file in sorted(models.rglob("*.mmu")):
        name = (Path(models.name) / file.relative_to(models)).as_posix()
        parsed.keep_tree(parse(file.read_text(encoding="utf-8"), name, parsed))
