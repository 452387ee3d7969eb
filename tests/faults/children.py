"""A forked child of the tests: what it does to itself, the tests survive."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

import torch


def fork(work: Callable[[], object]) -> int:
    """Do work in a child, which exits with 0 where it ends well; returns the child's process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside torch's threads
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them
        work()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def in_child(work: Callable[[], object]) -> int:
    """Do work in a child, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])
