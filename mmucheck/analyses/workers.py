"""Worker processes: each decides one subject at a time and tells every result as it falls. One that dies takes only what it was
deciding with it; none outlives the run, however that ends."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process
from typing import Generic, TypeVar

from mmucheck.records import record

Task = TypeVar("Task")
Said = TypeVar("Said")


@record
class Finished:
    """A task is done. ``warnings``: what the user should hear; ``spent``: the worker takes no further task (it ran out of memory)."""

    warnings: tuple[str, ...] = ()
    spent: bool = False


Work = Callable[[Task, Callable[[Said], None]], Finished]
"""Does a task, saying its results one by one."""


@dataclass
class _Worker(Generic[Task]):
    process: BaseProcess
    pipe: Connection
    task: Task


class Crew(Generic[Task, Said]):
    """Up to ``size`` processes that do tasks. ``make`` is called once in each and gives what does the work; ``memory``: MiB of address
    space each may have, 0 for no limit."""

    def __init__(self, size: int, make: Callable[[], Work[Task, Said]], memory: int = 0) -> None:
        self._size, self._make, self._memory = size, make, memory
        self._context = multiprocessing.get_context("spawn")
        self._busy: list[_Worker[Task]] = []

    def run(self, tasks: list[Task], heard: Callable[[Task, Said], None], ended: Callable[[Task, Finished | str], None]) -> None:
        """Do all tasks. ``heard`` gets each result; ``ended`` the end of each task: regular, or in words how its process died."""
        waiting = deque(tasks)
        resource_tracker.ensure_running()  # before signals are blocked: it would unblock them
        try:
            while waiting or self._busy:
                while waiting and len(self._busy) < self._size:
                    self._busy.append(self._start(waiting.popleft()))
                ready = wait([w.pipe for w in self._busy])
                for worker in [w for w in self._busy if w.pipe in ready]:
                    try:
                        message = worker.pipe.recv()
                    except (EOFError, OSError, pickle.UnpicklingError):
                        self._gone(worker, ended)
                        continue
                    if not isinstance(message, Finished):
                        heard(worker.task, message)
                        continue
                    ended(worker.task, message)
                    self._next(worker, None if message.spent or not waiting else waiting.popleft(), waiting)
        finally:
            for worker in self._busy:
                worker.process.kill()
            for worker in self._busy:
                worker.process.join()

    def _start(self, task: Task) -> _Worker[Task]:
        own, theirs = self._context.Pipe()
        process = self._context.Process(target=_main, args=(theirs, self._make, self._memory), daemon=True)
        with _signals_blocked():  # inherited: a Ctrl-C on the terminal is the parent's affair, from the worker's first moment on
            process.start()
        theirs.close()
        with contextlib.suppress(OSError):  # it died already: the next look at the pipe says so
            own.send(task)
        return _Worker(process, own, task)

    def _next(self, worker: _Worker[Task], task: Task | None, waiting: deque[Task]) -> None:
        if task is not None:
            try:
                worker.pipe.send(task)
                worker.task = task
                return
            except OSError:
                waiting.appendleft(task)
        self._busy.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()

    def _gone(self, worker: _Worker[Task], ended: Callable[[Task, Finished | str], None]) -> None:
        self._busy.remove(worker)
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        why = f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended with code {code}"
        if code == errno.ENOMEM or (self._memory and -code == signal.SIGABRT):  # a library that gets no memory aborts
            why = "out of memory"
        ended(worker.task, why)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _main(pipe: Connection, make: Callable[[], Work[Task, Said]], memory: int) -> None:
    """A worker's life: until the other end of the pipe is closed, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if memory:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = memory << 20
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        work = make()
        while True:
            pipe.send(work(pipe.recv(), pipe.send))
    except (EOFError, OSError):
        return
    except MemoryError:
        os._exit(errno.ENOMEM)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
