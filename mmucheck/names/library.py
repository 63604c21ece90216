"""Every declaration of the loaded files in one place, and how names in it are found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from mmucheck.records import record
from mmucheck.syntax import ast


@record
class Versioned:
    """A path or macro with the kernel version of its file ("" if the file has none)."""

    declaration: ast.Path | ast.Macro
    version: str


@dataclass
class Library:
    """Every declaration of the loaded files. Filled by ``load``; not changed afterwards."""

    files: dict[str, ast.File] = field(default_factory=dict)
    consts: dict[str, ast.Const] = field(default_factory=dict)
    shared: dict[str, ast.Shared] = field(default_factory=dict)
    locks: dict[str, ast.Lock] = field(default_factory=dict)
    code: dict[tuple[str, str], Versioned] = field(default_factory=dict)
    devices: dict[str, ast.Device] = field(default_factory=dict)
    protocols: dict[str, ast.Protocol] = field(default_factory=dict)
    properties: dict[str, ast.Property] = field(default_factory=dict)
    changes: dict[str, ast.Change] = field(default_factory=dict)
    specs: dict[str, ast.Spec] = field(default_factory=dict)
    spec_files: dict[str, str] = field(default_factory=dict)
    uses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    places: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    """Of each file, as it was asked for and where it really is."""

    def find(self, name: str, version: str) -> Versioned | None:
        """A macro or path as seen from a file of ``version``: the own version's first, then one without a version."""
        return self.code.get((name, version)) or self.code.get((name, ""))

    def named(self, name: str) -> list[Versioned]:
        """Every version of a macro or path."""
        return [v for (n, _), v in sorted(self.code.items()) if n == name]

    def paths(self) -> list[Versioned]:
        return [v for _, v in sorted(self.code.items()) if isinstance(v.declaration, ast.Path)]

    def protocol_chain(self, name: str) -> list[ast.Protocol]:
        """The protocol and its bases, base first. Unknown bases and cycles end the chain (they are diagnosed elsewhere)."""
        chain: list[ast.Protocol] = []
        while name in self.protocols and self.protocols[name] not in chain:
            chain.append(self.protocols[name])
            name = chain[-1].base
        return chain[::-1]

    def callbacks(self, protocol: str) -> dict[str, ast.Callback]:
        found: dict[str, ast.Callback] = {}
        for level in self.protocol_chain(protocol):
            for gone in level.without:
                found.pop(gone.name, None)
            found.update({c.name: c for c in level.callbacks})
        return found

    def functions(self, protocol: str) -> dict[str, ast.Routine]:
        found: dict[str, ast.Routine] = {}
        for level in self.protocol_chain(protocol):
            for gone in level.without:
                found.pop(gone.name, None)
            found.update({f.name: f for f in level.functions})
        return found

    def digest(self) -> str:
        """Of every file's text, in a fixed order: equal libraries have equal digests."""
        total = hashlib.sha256()
        for path in sorted(self.files):
            total.update(hashlib.sha256(self.files[path].text.encode()).digest())
        return total.hexdigest()
