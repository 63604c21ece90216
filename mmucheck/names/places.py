"""Where the shipped library lies."""

from __future__ import annotations

from pathlib import Path


def models_root() -> Path:
    """The shipped library: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).resolve().parent.parent / "models"
    return inside if inside.is_dir() else inside.parent.parent / "models"
