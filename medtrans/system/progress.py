"""How long work tells a person where it stands: always on stderr, so that stdout stays data."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_S = 30.0  # where stderr is a file, a line now and then instead of a bar

_silent = threading.Event()


class Update(Protocol):
    """What `track` gives: units done so far, units in all, a few words on how it goes."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def be_silent() -> None:
    """Say nothing in this process from now on, since another one says the same."""
    _silent.set()


def say(text: str) -> None:
    """Print one line for the person at the terminal."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=_silent.is_set())
    console.print(text, markup=False)


@contextmanager
def track(title: str) -> Iterator[Update]:
    """Show a bar with the time left; in a log file, a line every half minute.

    Parameters
    ----------
    title
        What is being done, in a word or two.

    Returns
    -------
    Update
        To be called as the work goes on.
    """
    if _silent.is_set() or not sys.stderr.isatty():
        yield _lines(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total, note=note)

        yield update


def _lines(title: str) -> Update:
    start = last = time.monotonic()
    first: int | None = None  # a resumed run starts above 0

    def update(done: int, total: int, note: str = "") -> None:
        nonlocal first, last
        now = time.monotonic()
        first = done - 1 if first is None else first
        if done >= total or now - last >= _LINE_EVERY_S:
            last = now
            left = (now - start) / max(done - first, 1) * (total - done)
            say(f"{title}: {done}/{total}, {left:.0f} s left {note}".rstrip())

    return update
