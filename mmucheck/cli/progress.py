"""Progress on a terminal, from the second second on."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import Any, TextIO

DELAY = 1.0


class Progress(AbstractContextManager["Progress"]):
    """Call it with (done, total, what is being decided); it draws nothing on what is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._task: Any = None
        self._latest = (0, 0, "")
        self._lock = threading.Lock()
        self._timer = threading.Timer(DELAY, self._show) if stream.isatty() else None

    def __enter__(self) -> Progress:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
            self._timer = None

    def __call__(self, done: int, total: int, what: str) -> None:
        with self._lock:
            self._latest = (done, total, what)
            self._draw()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        with self._lock:
            if self._timer is None:
                return
            parts = (MofNCompleteColumn(), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
            self._bar = Bar(*parts, console=Console(file=self._stream), transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
            self._draw()

    def _draw(self) -> None:
        if self._bar is not None:
            done, total, what = self._latest
            self._bar.update(self._task, completed=done, total=total or None, description=what)
