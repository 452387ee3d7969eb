"""Work on every core, each piece of it computed by a single thread.

torch splits an operation between its threads, and the order of a sum follows the split: with
another number of threads the last bits of a result differ, and in bfloat16 more than the last.
Where pieces of work are independent of each other it is the pieces that are spread over the cores
here, so that what each gives depends on no number of threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def map_on_single_threads(
    work: Callable[[Piece], Result], pieces: Sequence[Piece], at_once: int
) -> list[Result]:
    """Call `work` on every piece, some at once, each call computing on one thread.

    Parameters
    ----------
    work : callable
        Independent from call to call. What it raises is raised here, and no further piece begins.
    pieces : sequence
    at_once : int
        How many calls run at the same time at most.

    Returns
    -------
    list
        The results in the order of the pieces.
    """
    waiting = deque(enumerate(pieces))
    results: dict[int, Result] = {}

    def take_turns() -> None:
        while True:
            try:
                number, piece = waiting.popleft()
            except IndexError:
                return
            results[number] = work(piece)

    pool = _single_threads(os.getpid(), at_once)
    lanes = [pool.submit(take_turns) for _ in range(min(at_once, len(pieces)))]
    try:
        for lane in lanes:
            lane.result()
    finally:  # also when a signal interrupts the waiting
        waiting.clear()
        wait(lanes)
    return [results[number] for number in range(len(pieces))]


@cache
def _single_threads(process: int, count: int) -> ThreadPoolExecutor:
    """Start threads for which torch's number of threads is 1; they stay, one pool a process.

    torch keeps the number for each thread, and another for threads that are yet to start. The
    second, which belongs to the host, is put back at once. `process` keeps a forked child from
    waiting for threads that only its parent has.
    """
    pool = ThreadPoolExecutor(count, "medtrans")
    host, started = torch.get_num_threads(), Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # makes torch set up this thread, which it would else do later
        torch.set_num_threads(1)
        started.wait()  # holds the thread, so that the next submission starts another

    for _ in range(count):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(host)
    return pool
