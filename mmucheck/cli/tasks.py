"""Tasks of which each stands for itself, done here or by several processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import click

from mmucheck.cli.progress import Progress

if TYPE_CHECKING:
    from mmucheck.analyses.workers import Finished, Work

PARALLEL_FROM = 8
"""From so many tasks on, starting processes pays."""

F = TypeVar("F", bound=Callable[..., object])
Task = TypeVar("Task")
Said = TypeVar("Said")


def jobs_option(command: F) -> F:
    """How many processes."""
    return click.option("-j", "--jobs", type=click.IntRange(min=1), metavar="N",
                        help="Worker processes.  [default: one per CPU for larger runs]")(command)  # fmt: skip


def processes(wanted: int | None, tasks: int) -> int:
    """As many as wanted; if nobody said, one for a few tasks."""
    return wanted if wanted is not None else (os.cpu_count() or 1) if tasks >= PARALLEL_FROM else 1


def each(
    tasks: Sequence[Task], make: Callable[[], Work[Task, Said]], jobs: int | None, name: Callable[[Task], str]
) -> list[tuple[Task, list[Said]]]:
    """What was said of each task, in their order; of one whose process died, what it had said before. ``make`` gives what does the
    work, ``name`` what progress shows."""
    from mmucheck.analyses.workers import Crew

    size = processes(jobs, len(tasks))
    said: list[list[Said]] = [[] for _ in tasks]
    with Progress(sys.stderr) as progress:
        if size == 1:
            work = make()
            for i, task in enumerate(tasks):
                progress(i, len(tasks), name(task))
                work(task, said[i].append)
            return list(zip(tasks, said, strict=True))
        ended: list[int] = []

        def end(numbered: tuple[int, Task], how: Finished | str) -> None:
            ended.append(numbered[0])
            progress(len(ended), len(tasks), name(numbered[1]))

        crew: Crew[tuple[int, Task], Said] = Crew(size, _Numbered(make))
        crew.run(list(enumerate(tasks)), lambda numbered, one: said[numbered[0]].append(one), end)
    return list(zip(tasks, said, strict=True))


class _Numbered(Generic[Task, Said]):
    """In a worker: the work, on numbered tasks."""

    def __init__(self, make: Callable[[], Work[Task, Said]]) -> None:
        self._make = make

    def __call__(self) -> Work[tuple[int, Task], Said]:
        work = self._make()
        return lambda numbered, say: work(numbered[1], say)
