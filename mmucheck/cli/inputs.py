"""What a command line names: files, specs and checks, and the library they come to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmucheck.records import record

if TYPE_CHECKING:
    from mmucheck.analyses.subjects import Obligation
    from mmucheck.names.library import Library


@record
class Target:
    """A file or directory, and what of it: a spec, a check, or ("") everything."""

    path: Path
    spec: str = ""
    check: str = ""


def parse_target(text: str) -> Target:
    """FILE, DIR, FILE::SPEC or FILE::SPEC::CHECK. Raises UsageError for more parts or empty ones."""
    from mmucheck.syntax.diagnostics import UsageError

    parts = text.split("::")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"{text}: a target is FILE, DIR, FILE::SPEC or FILE::SPEC::CHECK")
    return Target(Path(parts[0]), *parts[1:])


def files_of(target: Target) -> list[Path]:
    """The target's files: itself, or every .mmu below a directory in sorted order. Raises UsageError if there are none."""
    from mmucheck.syntax.diagnostics import UsageError

    if not target.path.is_dir():
        return [target.path]
    if target.spec:
        raise UsageError(f"{target.path} is a directory; a spec is named in a file: FILE::{target.spec}")
    found = sorted(p for p in target.path.rglob("*.mmu") if p.is_file())
    if not found:
        raise UsageError(f"{target.path}: there is no .mmu file in this directory")
    home = target.path.resolve()
    for path in found:
        if not path.resolve().is_relative_to(home):
            raise UsageError(f"{path}: this link leaves {target.path}; name the file itself if it is meant")
    return found


def load_files(files: Sequence[Path], cached: bool = True) -> Library:
    """Load and check; in whatever order files are named, what comes of them is the same. ``cached``: see load.

    Raises InputError with every diagnostic, UsageError for what cannot be read.
    """
    from mmucheck.names.declarations import check
    from mmucheck.names.loading import load, shown_name

    library = load(sorted(dict.fromkeys(files), key=shown_name), cached=cached)
    check(library)
    return library


def select(library: Library, targets: Sequence[Target], name: str = "") -> list[Obligation]:
    """The obligations of the targets whose spec or check has ``name`` in its name.

    Raises UsageError for a spec or check that is not there, and if nothing is selected.
    """
    from mmucheck.analyses.plan import obligations
    from mmucheck.names.loading import shown_name
    from mmucheck.syntax.diagnostics import UsageError, suggest

    wanted: dict[str, set[str]] = {}
    for target in targets:
        files = {shown_name(f) for f in files_of(target)}
        specs = {s: library.specs[s] for s, file in library.spec_files.items() if file in files}
        if not specs:
            raise UsageError(f"{target.path}: there is no spec in {'these files' if target.path.is_dir() else 'this file'}")
        if target.spec and target.spec not in specs:
            raise UsageError(_missing(f"{target.path} has no spec", target.spec, suggest(target.spec, specs), specs))
        for spec in [specs[target.spec]] if target.spec else specs.values():
            checks = [c.name for c in spec.checks]
            if target.check and target.check not in checks:
                raise UsageError(_missing(f"spec {spec.name} has no check", target.check, suggest(target.check, checks), checks))
            wanted.setdefault(spec.name, set()).update([target.check] if target.check else checks)
    chosen = []
    for spec_name, spec in library.specs.items():
        names = {c for c in wanted.get(spec_name, ()) if name in spec_name or name in c}
        if names:
            chosen.append(replace(spec, checks=tuple(c for c in spec.checks if c.name in names)))
    if not chosen:
        raise UsageError(f"nothing selected: no spec or check has `{name}` in its name")
    return obligations(library, chosen)


def _missing(what: str, name: str, hint: str, known: Iterable[str]) -> str:
    return f"{what} `{name}`; {hint or 'there are ' + ', '.join(known)}"


def read_shown(name: str) -> str | None:
    """The text of a file by its shown name: shipped, below the working directory, or beside the library."""
    from mmucheck.names.places import models_root

    root = models_root()
    for base in (root.parent,) if name.startswith(f"{root.name}/") else (Path(), root.parent):
        with contextlib.suppress(OSError), (base / name).open("rb") as stream:
            return stream.read(1 << 20).decode("utf-8", "replace")
    return None
