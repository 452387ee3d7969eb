"""Work in several processes: bounded, every case once, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medtrans.errors import MedtransError, UsageError, WorkersDiedError
from medtrans.system import cluster
from medtrans.system.cluster import dask_setup, local_workers, results_of, worker_number, workers_of
from medtrans.version import __version__

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")


def double(number: int) -> int:
    return 2 * number


def double_all_but_three(number: int) -> int:
    if number == 3:
        raise UsageError("three")
    return 2 * number


def double_or_die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def one_worker() -> Any:
    """Start a cluster of one worker inside this process."""
    return distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    )


@pytest.fixture(scope="module")
def here() -> Iterator[Any]:
    with one_worker() as one:
        yield one


@pytest.fixture(scope="module")
def client(here: Any) -> Iterator[Any]:
    with distributed.Client(here) as client:
        yield client


def forgets(client: Any) -> bool:
    """Whether a client soon waits for nothing any more; its own thread tells the scheduler."""
    end = time.monotonic() + 5
    while client.futures and time.monotonic() < end:
        time.sleep(0.01)
    return not client.futures


def test_every_result_once(client: Any) -> None:
    assert dict(results_of(client, double, range(20))) == {n: 2 * n for n in range(20)}
    assert list(results_of(client, double, [])) == []


def test_no_more_cases_are_taken_than_there_are_workers(client: Any) -> None:
    taken = iter(range(1000))
    for seen, _ in enumerate(results_of(client, double, taken), 1):
        ahead = next(taken) - seen
        assert ahead <= 1 + seen  # this line takes one each time
        if seen == 20:
            break


def test_an_error_ends_the_work_and_nothing_is_left(client: Any) -> None:
    with pytest.raises(UsageError, match="three"):
        list(results_of(client, double_all_but_three, range(1000)))
    assert forgets(client)


def test_what_is_not_wanted_any_more_is_not_begun(client: Any) -> None:
    with closing(results_of(client, double, range(1000))) as results:
        next(results)
    assert forgets(client)


def test_a_case_that_ends_its_workers_does_not_stop_the_others() -> None:
    with local_workers(2, 1) as client:
        results = dict(results_of(client, double_or_die, range(8)))
    lost = results.pop(3)
    assert isinstance(lost, WorkersDiedError)
    assert "3 worker processes" in str(lost)
    assert results == {n: 2 * n for n in range(8) if n != 3}


def test_an_existing_cluster(here: Any) -> None:
    with workers_of(here.scheduler_address, __version__) as client:
        assert dict(results_of(client, double, [4])) == {0: 8}


def test_workers_of_another_version_are_refused(here: Any) -> None:
    with (
        pytest.raises(UsageError, match=rf"must have medtrans 9\.9.*found {__version__}"),
        workers_of(here.scheduler_address, "9.9"),
    ):
        pass


def test_workers_without_medtrans_are_refused() -> None:
    answers = SimpleNamespace(run=lambda *_, **__: {"tcp://a:1": ModuleNotFoundError("medtrans")})
    with pytest.raises(UsageError, match=r"tcp://a:1 must have medtrans .* found none"):
        cluster._require_version(answers, __version__)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://"])
def test_no_scheduler(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_S", 0.2)
    with (
        pytest.raises(UsageError, match=f"No Dask scheduler answers at {address}"),
        workers_of(address, __version__),
    ):
        pass


def test_the_scheduler_goes_away() -> None:
    with (
        one_worker() as one,
        distributed.Client(one) as client,
    ):
        results = results_of(client, double, range(1000))
        next(results)
        one.close()
        with pytest.raises(MedtransError, match="run the same command again"):
            list(results)


def test_waiting_for_workers_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(cluster, "say", said.append)
    monkeypatch.setattr(cluster, "_SAY_AFTER_S", -1.0)
    monkeypatch.setattr(cluster, "_LOOK_EVERY_S", 0.0)
    crew = cluster._Crew(SimpleNamespace(nthreads=dict))
    assert [crew.size(), crew.size()] == [1, 1]
    assert len(said) == 1
    crew.client.nthreads = lambda: {"a": 1, "b": 1}
    assert crew.size() == 2


@pytest.mark.parametrize(
    ("name", "number"),
    [(3, 3), ("2", 2), ("SLURMCluster-14", 14), ("tcp://10.0.0.1:4033", 0), ("gpu", 0)],
)
def test_number_of_a_worker(name: object, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(name=name))
    assert worker_number() == number


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        dask_setup(None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "start",
    [lambda: local_workers(2, 1), lambda: workers_of("tcp://a", "1")],
    ids=["local", "existing"],
)
def test_without_dask(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'medtrans\[cluster\]'"), start():
        pass


def test_nobody_else_can_give_a_local_worker_work(tmp_path: Path) -> None:
    """Without the certificate of this process a scheduler does not answer."""
    with local_workers(1, 1) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1")
        with pytest.raises((OSError, TypeError, RuntimeError)):
            distributed.Client(address, timeout=1)
