"""Which kernel version a name without one means: the version that is visible in the file where it is written.

So a spec or change means the same whether its file is loaded alone or together with others.
"""

from __future__ import annotations

from dataclasses import replace

from mmucheck.names.library import Library
from mmucheck.syntax import ast


def qualify(library: Library) -> None:
    """Give every path name in specs and changes its version where the file's own uses leave one only.

    What stays ambiguous stays as written; the checks of declarations say so.
    """
    homes: dict[str, list[tuple[str, str]]] = {}
    for (name, version), versioned in sorted(library.code.items()):
        homes.setdefault(name, []).append((version, versioned.declaration.span.file))
    seen: dict[str, frozenset[str]] = {}

    def resolved(name: ast.QName) -> ast.QName:
        candidates = homes.get(name.name, [])
        if name.version or len(candidates) < 2:
            return name
        file = name.span.file
        if file not in seen:
            seen[file] = _visible(library, file)
        near = [version for version, home in candidates if home in seen[file]]
        return replace(name, version=near[0]) if len(near) == 1 else name

    for key, spec in library.specs.items():
        checks = tuple(replace(c, threads=tuple(map(resolved, c.threads))) for c in spec.checks)
        library.specs[key] = replace(spec, checks=checks)
    for key, change in library.changes.items():
        hunks = tuple(replace(h, target=resolved(h.target)) for h in change.hunks)
        library.changes[key] = replace(change, hunks=hunks)


def _visible(library: Library, file: str) -> frozenset[str]:
    """The file and all it uses, directly or not."""
    found, todo = {file}, [file]
    while todo:
        for target in library.uses.get(todo.pop(), ()):
            if target not in found:
                found.add(target)
                todo.append(target)
    return frozenset(found)
