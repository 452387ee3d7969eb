"""A process that may not write: because the disk is full, or because it has no right to."""

from __future__ import annotations

import os
import resource
import traceback
from collections.abc import Callable
from pathlib import Path

from medtrans.errors import MedtransError
from tests.faults.children import fork

DONE = "done"


def writing_at_most(size: int, work: Callable[[], object]) -> str:
    """Do `work` in a child whose files may not grow beyond `size` bytes, as on a full disk.

    Returns
    -------
    str
        The sentence of the error that a user gets; `DONE`; or the traceback of a fault of ours.
    """
    limits = (size, resource.RLIM_INFINITY)
    return _answer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits), work)


def with_memory(size: int, work: Callable[[], object]) -> str:
    """Do `work` in a child that may have `size` bytes of memory more than it has."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + size
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    return _answer(limit, work)


def without_rights(work: Callable[[], object]) -> str:
    """Do `work` in a child that the permissions of files bind also where the tests are root's."""
    return _answer(_become_nobody, work)


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)


def _answer(limit: Callable[[], None], work: Callable[[], object]) -> str:
    read, write = os.pipe()
    child = fork(lambda: os.write(write, _told(limit, work).encode()[:60000]))
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def _told(limit: Callable[[], None], work: Callable[[], object]) -> str:
    limit()
    try:
        work()
    except MedtransError as error:
        return str(error)
    except BaseException:
        return traceback.format_exc()
    return DONE
