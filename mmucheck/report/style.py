"""Colour, or none: the only place that knows escape sequences."""

from __future__ import annotations

from mmucheck.records import record

WIDTH = 120
"""Columns that a report may use."""


@record
class Style:
    """Marks pieces of text. With ``colour`` off every method returns its text unchanged."""

    colour: bool = False

    def _mark(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def good(self, text: str) -> str:
        return self._mark(text, "32")

    def bad(self, text: str) -> str:
        return self._mark(text, "1;31")

    def doubtful(self, text: str) -> str:
        return self._mark(text, "33")

    def strong(self, text: str) -> str:
        return self._mark(text, "1")

    def faint(self, text: str) -> str:
        return self._mark(text, "2")
