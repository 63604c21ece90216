"""Build hook: the wheel carries the library parsed (mmucheck/names/packing.py)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ParsedLibrary(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":  # an editable install reads the checkout, whose files change
            return
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self.root)
        sys.path.insert(0, str(root))
        from mmucheck.names.packing import pack

        pack(root / "models", Path(self._folder.name))
        build_data["force_include"][self._folder.name] = "mmucheck/parsed"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version == "standard":
            self._folder.cleanup()
