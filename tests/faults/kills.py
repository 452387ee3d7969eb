"""A process that is killed just before it changes the disk for the n-th time.

Between two changes of the disk a kill at one moment leaves what a kill at any other does, so that
every n together stand for every moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from tests.faults.children import in_child

_CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR
_MOST = 2000  # changes of the disk that a test may make


def kills(work: Callable[[], object], step: int = 1) -> Iterator[int]:
    """Do `work` in a child that is killed before its n-th change of the disk, for n = 1, 2, …

    Yields n after each kill, so that the caller looks at what is left; ends, without yielding, when
    a child has done all of its work. A `step` above 1 leaves moments out, where `work` is slow.
    """
    for n in count(1, step):
        assert n < _MOST
        status = in_child(partial(_killed, work, n))
        if status == 0:
            return
        assert status == -signal.SIGKILL, "the work failed by itself"
        yield n


def _killed(work: Callable[[], object], n: int) -> None:
    _be_killed_before_change(n)
    work()


def _be_killed_before_change(n: int) -> None:
    left = n

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _CHANGES or (event == "open" and _writes(arguments)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & _WRITES)
