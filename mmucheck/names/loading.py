"""Loading: `use` followed through files, every declaration in one place, two things of one name refused."""

from __future__ import annotations

import os
from pathlib import Path

from mmucheck.names.builtins import OF_THE_WORLD, RESERVED
from mmucheck.names.cache import Parsed
from mmucheck.names.library import Library, Versioned
from mmucheck.names.places import models_root, parsed_root
from mmucheck.names.qualify import qualify
from mmucheck.names.sealed import cache_root
from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span, UsageError, suggest, whole_file
from mmucheck.syntax.limits import MAX_BYTES


def shown_name(path: Path, root: Path | None = None) -> str:
    """A short, stable name: of the library's files relative to its folder's parent, wherever the tool is installed, of others to the
    working directory, of what is beside the library as if it were there, of the rest as asked for. No two files have the same name."""
    return _shown(str(path), os.path.realpath(path), os.getcwd(), os.path.realpath(root or models_root()))


def _shown(path: str, real: str, here: str, root: str) -> str:
    beside, library = os.path.split(root)
    inside = _below(real, root)
    if inside:
        return f"{library}/{inside}"
    own, other = _below(real, here), _below(real, beside)
    if not own and other and not os.path.lexists(os.path.join(here, other)):
        return other
    name = own or path
    return f"./{name}" if name.startswith(f"{library}/") else name  # a folder of the user's that is called as the library's


def _below(real: str, folder: str) -> str:
    """The path relative to a folder, "" if it is not below it."""
    prefix = folder if folder.endswith(os.sep) else folder + os.sep
    return real[len(prefix) :].replace(os.sep, "/") if real.startswith(prefix) else ""


def load(paths: list[Path], root: Path | None = None, cached: bool = True) -> Library:
    """Read the files and all they use.

    ``root``: where ``use <...>`` looks (default: the shipped library); ``cached``: whether what was parsed before is taken from the
    user's cache, and what is parsed now put there; what came parsed with the tool is used in any case. Raises InputError with every
    diagnostic, UsageError for a file that cannot be read at all.
    """

    loader = _Loader((root or models_root()).resolve(), Parsed(parsed_root(), cache_root() if cached else None))
    for path in paths:
        loader.visit(path, None, path.resolve().parent, ())
    if loader.diagnostics:
        raise InputError(loader.diagnostics)
    qualify(loader.library)
    return loader.library


class _Loader:
    def __init__(self, root: Path, parsed: Parsed) -> None:
        self.root = root
        self.library = Library()
        self.diagnostics: list[Diagnostic] = []
        self._seen: set[Path] = set()
        self._here = os.getcwd()
        self._located: dict[Path, tuple[Path, str]] = {}
        self._parsed = parsed

    def _locate(self, path: Path) -> tuple[Path, str]:
        """The real path and the shown name."""
        found = self._located.get(path)
        if found is None:
            real = os.path.realpath(path)
            found = self._located[path] = (Path(real), _shown(str(path), real, self._here, str(self.root)))
        return found

    def visit(self, path: Path, at: Span | None, base: Path, chain: tuple[Path, ...]) -> None:
        real, shown = self._locate(path)
        if real in chain:
            names = " -> ".join(p.name for p in (*chain[chain.index(real) :], real))
            self._say("E102", f"files use each other in a circle: {names}", at, "move the shared part into a file of its own")
            return
        if real in self._seen:
            return
        self._seen.add(real)
        text = self._read(path, at)
        if text is None:
            return
        try:
            file = self._parsed.tree(text, shown)
            if file is None:
                from mmucheck.syntax.parser import parse

                file = parse(text, shown, self._parsed)
                self._parsed.keep_tree(file)
        except InputError as error:
            self.diagnostics.extend(error.diagnostics)
            return
        for use in file.uses:
            target = self._target(use, real, base)
            if target is not None:
                self.library.uses[shown] = (*self.library.uses.get(shown, ()), self._locate(target)[1])
                self.visit(target, use.span, base if not use.system else self.root, (*chain, real))
        self.library.files[shown] = file
        self.library.places[shown] = (path.absolute(), real)
        self._index(file)

    def _read(self, path: Path, at: Span | None) -> str | None:
        try:
            if at is not None and path.exists() and not path.is_file() and not path.is_dir():
                raise OSError(0, "this is no regular file")  # a pipe would be waited for
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except OSError as error:
            reason = {"FileNotFoundError": "there is no such file", "IsADirectoryError": "this is a directory"}.get(
                type(error).__name__, (error.strerror or "it cannot be read").lower()
            )
            if at is None:
                raise UsageError(f"{path}: {reason}") from None
            near = suggest(path.name, (p.name for p in path.parent.glob("*.mmu"))) if path.parent.is_dir() else ""
            self._say("E101", f"cannot use {path.name}: {reason}", at, near)
            return None
        if len(data) > MAX_BYTES:
            span = whole_file(self._locate(path)[1])
            self.diagnostics.append(
                Diagnostic("E003", f"the file is larger than {MAX_BYTES // 1024} KiB", span, "this is hardly a model; split it if it is")
            )
            return None
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self.diagnostics.append(Diagnostic("E002", "this is not a text file", whole_file(self._locate(path)[1])))
            return None

    def _target(self, use: ast.Use, file: Path, base: Path) -> Path | None:
        root = self.root if use.system else base
        target = (root if use.system else file.parent) / use.target
        if not self._locate(target)[0].is_relative_to(root):
            where = "the library" if use.system else "the folder of the file being checked"
            self._say("E103", f"`use` may not leave {where}", use.span)
            return None
        return target

    def _index(self, file: ast.File) -> None:
        library = self.library
        tables: tuple[tuple[type[ast.Declaration], dict[str, ast.Declaration]], ...] = (
            (ast.Const, library.consts), (ast.Shared, library.shared), (ast.Lock, library.locks), (ast.Device, library.devices),
            (ast.Protocol, library.protocols), (ast.Property, library.properties), (ast.Change, library.changes),
            (ast.Spec, library.specs),
        )  # type: ignore[assignment]  # fmt: skip
        for item in file.items:
            if item.name in RESERVED:
                self._say("E105", f"`{item.name}` is a word of the language", item.span, "choose another name")
            elif isinstance(item, ast.Device | ast.Lock) and item.name in OF_THE_WORLD:
                self._say("E105", f"`{item.name}` is what the checker calls a part of its world", item.span, "choose another name")
            elif isinstance(item, ast.Path | ast.Macro):
                known = library.code.get((item.name, file.kernel))
                if known:
                    self._twice(item, known.declaration)
                else:
                    library.code[item.name, file.kernel] = Versioned(item, file.kernel)
            else:
                table = next(t for kind, t in tables if isinstance(item, kind))
                if item.name in table:
                    self._twice(item, table[item.name])
                else:
                    table[item.name] = item
                    if isinstance(item, ast.Spec):
                        library.spec_files[item.name] = file.path

    def _twice(self, item: ast.Declaration, first: ast.Declaration) -> None:
        self.diagnostics.append(
            Diagnostic("E104", f"`{item.name}` is defined twice", item.span, "rename one", (("first defined here", first.span),))
        )

    def _say(self, code: str, message: str, at: Span | None, hint: str = "") -> None:
        self.diagnostics.append(Diagnostic(code, message, at or whole_file(""), hint))
