"""The user's cache folder, and files in it that are what was written or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path


def cache_root() -> Path | None:
    """The user's cache folder for this tool, made if it is missing; None if caching is off or impossible, and where another user may
    write: what is kept there is unpickled.

    ``MMUCHECK_CACHE`` names another folder, or none if it is empty.
    """
    named = os.environ.get("MMUCHECK_CACHE")
    if named == "":
        return None
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmucheck"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = base.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            return None
    except (OSError, RuntimeError):
        return None
    return base


def read_sealed(path: Path) -> bytes:
    """What was written there. Raises OSError if it cannot be read, ValueError if it is not what was written."""
    data = path.read_bytes()
    digest, payload = data[:32], data[32:]
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("checksum")
    return payload


def write_sealed(path: Path, payload: bytes) -> None:
    """Put the payload there with its checksum, all or nothing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # tempfile alone takes longer to load than all this
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(hashlib.sha256(payload).digest() + payload)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
