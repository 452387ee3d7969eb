"""Independent pieces of work, each on one thread."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from medtrans.system.workers import map_on_single_threads


def test_results_come_in_the_order_of_the_pieces() -> None:
    def square(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number**2

    assert map_on_single_threads(square, range(20), 4) == [n**2 for n in range(20)]
    assert map_on_single_threads(square, [], 4) == []


def test_each_call_has_one_thread_and_so_many_run_at_once() -> None:
    at_once, running, most = 3, set(), 0
    together = threading.Barrier(at_once)

    def work(_: int) -> int:
        nonlocal most
        running.add(threading.get_ident())
        most = max(most, len(running))
        together.wait(10)  # none goes on before as many as may run do
        running.discard(threading.get_ident())
        return torch.get_num_threads()

    assert map_on_single_threads(work, range(6), at_once) == [1] * 6
    assert most == at_once


def test_the_hosts_threads_stay_as_they_are() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert map_on_single_threads(lambda _: torch.get_num_threads(), range(3), 5) == [1] * 3
        assert torch.get_num_threads() == 4
        torch.set_num_threads(2)  # nor does the host change the workers
        assert map_on_single_threads(lambda _: torch.get_num_threads(), range(3), 5) == [1] * 3
    finally:
        torch.set_num_threads(before)


def test_an_error_is_raised_and_nothing_further_begins() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError("second piece")

    with pytest.raises(ValueError, match="second piece"):
        map_on_single_threads(work, range(100), 1)
    assert begun == [0, 1]
