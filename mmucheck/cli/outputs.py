"""Reports that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def check_output(path: Path | None) -> None:
    """Refuse before a long run what could not be written after it. Raises UsageError."""
    from mmucheck.syntax.diagnostics import UsageError

    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a directory")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: there is no directory {path.parent}")
    if not os.access(path if path.exists() and not path.is_file() else folder, os.W_OK):
        raise UsageError(f"cannot write {path}: permission denied")


def write(text: str, path: Path | None) -> None:
    """The report to stdout, or to a file that is replaced as a whole or not at all. Raises UsageError if it cannot be written."""
    from mmucheck.syntax.diagnostics import UsageError

    try:
        if path is None:
            _to_stdout(text)
        elif path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path.resolve(), text)
    except OSError as error:
        raise UsageError(f"cannot write {path or 'the report'}: {(error.strerror or str(error)).lower()}") from None


def _to_stdout(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def _replace(path: Path, text: str) -> None:
    import tempfile

    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
