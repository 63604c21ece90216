"""Signals while foreign code is at work: they end the call at once, not when it comes back by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.05
"""Seconds after which the call is told again, should it not have begun when it was first told."""


@contextlib.contextmanager
def interruptible(interrupt: Callable[[], None]) -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM call ``interrupt`` (from another thread), so that the block returns and Python's
    handler of the signal can run. Where no handler is, or not in this thread, nothing is watched."""
    if threading.current_thread() is not threading.main_thread() or not any(callable(signal.getsignal(s)) for s in SIGNALS):
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    done = threading.Event()

    def watch() -> None:
        while number := os.read(read, 1):
            while number[0] in SIGNALS and not done.is_set():
                interrupt()
                done.wait(AGAIN)

    watcher = threading.Thread(target=watch, daemon=True)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        with contextlib.suppress(RuntimeError):  # no thread to be had: then a signal waits until the call comes back
            watcher.start()
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(before)
        os.close(write)
        if watcher.ident is not None:
            watcher.join()
        os.close(read)
