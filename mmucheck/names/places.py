"""Where the shipped library lies, and what was parsed of it when the tool was packed."""

from __future__ import annotations

from pathlib import Path


def models_root() -> Path:
    """The shipped library: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).resolve().parent.parent / "models"
    return inside if inside.is_dir() else inside.parent.parent / "models"


def parsed_root() -> Path | None:
    """The trees and tables that an installed package brings along (mmucheck.names.packing); a checkout has none."""
    inside = Path(__file__).resolve().parent.parent / "parsed"
    return inside if inside.is_dir() else None
