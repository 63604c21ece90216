"""SIGINT and SIGTERM: both end a run in the same orderly way, with codes of their own."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def code_of(error: BaseException | None) -> int:
    """The exit code for what a signal raised, here or in a cause of it."""
    while error is not None:
        if isinstance(error, Terminated):
            return TERMINATED
        error = error.__cause__
    return INTERRUPTED


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """SIGTERM raises Terminated as SIGINT raises KeyboardInterrupt; either is raised again if it came where Python cannot pass it on
    (in a destructor). SIGINT is left alone where it is ignored (a job in the background)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook
    terminated, interrupted = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, terminated)
        signal.signal(signal.SIGINT, interrupted)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _again(lost: Any) -> None:
    if isinstance(lost.exc_value, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(lost.exc_value, Terminated) else signal.SIGINT
        threading.Timer(0.01, signal.raise_signal, (number,)).start()
    else:
        sys.__unraisablehook__(lost)
