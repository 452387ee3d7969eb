"""A process that may write files up to a size only: what a full disk or a quota does to it."""

from __future__ import annotations

import os
import resource
import traceback
import warnings
from collections.abc import Callable

from medtrans.errors import MedtransError

DONE = "done"


def writing_at_most(size: int, work: Callable[[], object]) -> str:
    """Do `work` in a child whose files may not grow beyond `size` bytes.

    Returns
    -------
    str
        The sentence of the error that a user gets; `DONE`; or the traceback of a fault of ours.
    """
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside torch's threads
        child = os.fork()
    if child == 0:
        os.close(read)
        os.write(write, _told(size, work).encode()[:60000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def _told(size: int, work: Callable[[], object]) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        work()
    except MedtransError as error:
        return str(error)
    except BaseException:
        return traceback.format_exc()
    return DONE
