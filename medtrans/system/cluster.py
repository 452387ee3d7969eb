"""Work in several processes, of this machine or of others, through Dask.

The scheduler is never told of more cases than there are workers: a hundred thousand do not lie in
its memory, and a worker that dies has no other case on it.
"""

from __future__ import annotations

import re
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from medtrans.errors import MedtransError, UsageError, WorkersDiedError
from medtrans.system.progress import say

if TYPE_CHECKING:
    from distributed import Client, Future

Case = TypeVar("Case")
Result = TypeVar("Result")

_MOST_DEATHS = 3  # of workers that had the same case; then it is given up
_LOOK_EVERY_S = 1.0  # for workers that have come or gone
_SAY_AFTER_S = 20.0  # without a worker
_ANSWER_S = 30.0  # in which a scheduler has to answer
_CONFIG = {
    # A worker that dies has one case: this process decides whether another worker tries it.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.preload": [__name__],  # calls `dask_setup`
    "distributed.admin.system-monitor.log-length": 60,
    "distributed.admin.low-level-log-length": 100,
}


@contextmanager
def local_workers(count: int, threads: int) -> Iterator[Client]:
    """Start worker processes on this machine, which end with the block.

    They talk through TLS, with a certificate of their own: who can talk to a worker can run code
    as its user.

    Parameters
    ----------
    count : int
        How many processes; each does one case at a time.
    threads : int
        Of torch, in each.

    Raises
    ------
    UsageError
        When Dask is not installed.
    """
    with _needs_extra():
        import dask
        from distributed import Client, LocalCluster
        from distributed.security import Security

        security = Security.temporary()
    threads_of = {"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads}
    with (
        dask.config.set({**_CONFIG, **threads_of}),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=0,  # Dask would pause a worker for good that holds a large volume
            dashboard_address=None,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            security=security,
            silence_logs="CRITICAL",  # of deaths, which are told as results
        ) as cluster,
        Client(cluster, security=security) as client,
    ):
        yield client


@contextmanager
def workers_of(address: str, version: str) -> Iterator[Client]:
    """Connect to a scheduler that runs already.

    Parameters
    ----------
    address : str
        For instance "tcp://10.0.0.1:8786".
    version : str
        Of medtrans, which every worker must have.

    Raises
    ------
    UsageError
        When Dask is not installed, nobody answers, or a worker has another medtrans.
    """
    with _needs_extra():
        from distributed import Client
    try:
        client = Client(address, timeout=_ANSWER_S)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}). Name the address "
            "that it printed when it started, as tcp://10.0.0.1:8786."
        ) from None
    with client:
        _require_version(client, version)
        yield client


def results_of(
    client: Client, work: Callable[[Case], Result], cases: Iterable[Case]
) -> Iterator[tuple[int, Result | WorkersDiedError]]:
    """Yield the number and the result of each case, in the order in which they are done.

    An error that `work` raises ends the iteration; a worker's death does not. When the iteration
    ends early, cases that no worker has begun are not begun any more.

    Parameters
    ----------
    client : Client
    work : callable
        A function of a module that the workers have.
    cases : iterable
        Taken one by one, when a worker is free.

    Raises
    ------
    MedtransError
        When the scheduler is gone.
    """
    return _Round(client, work, cases).results()


def dask_setup(_: object) -> None:
    """Leave Ctrl-C to the process that started a worker; Dask calls this in each, by this name."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def carry_causes(error: BaseException) -> None:
    """Let an error take its causes and their tracebacks along from a worker."""
    from tblib import pickling_support

    pickling_support.install(error, *filter(None, (error.__cause__,)))


def worker_number() -> int:
    """Return the number of the worker that runs this, from 0; 0 where it has none."""
    from distributed import get_worker

    number = re.fullmatch(r"(?:.*-)?(\d+)", str(get_worker().name))
    return int(number[1]) if number else 0


class _Round(Generic[Case, Result]):
    """The cases that wait, that workers have, and that a worker died of."""

    def __init__(
        self, client: Client, work: Callable[[Case], Result], cases: Iterable[Case]
    ) -> None:
        self.client, self.work = client, work
        self.waiting = iter(enumerate(cases))
        self.again: deque[tuple[int, Case]] = deque()
        self.flying: dict[Future, tuple[int, Case]] = {}
        self.ended: SimpleQueue[Future] = SimpleQueue()
        self.deaths: Counter[int] = Counter()
        self.crew = _Crew(client)

    def results(self) -> Iterator[tuple[int, Result | WorkersDiedError]]:
        try:
            with _lost_connection():
                while True:
                    self._submit()
                    if not self.flying:
                        return
                    yield from self._landed(self._ended())
        finally:
            if self.flying and self.client.status == "running":
                self.client.cancel(list(self.flying), force=True)

    def _submit(self) -> None:
        """Give every free worker a case."""
        free = self.crew.size() - len(self.flying)
        cases = [self.again.popleft() for _ in range(min(free, len(self.again)))]
        cases += islice(self.waiting, max(0, free - len(cases)))
        if not cases:
            return
        futures = self.client.map(self.work, [case for _, case in cases], pure=False)
        for future, case in zip(futures, cases, strict=True):
            self.flying[future] = case
            future.add_done_callback(self.ended.put)

    def _ended(self) -> list[Future]:
        """Wait a moment for a case to end; with it come all others that have."""
        ended: list[Future] = []
        with suppress(Empty):
            ended.append(self.ended.get(timeout=_LOOK_EVERY_S))
            while True:
                ended.append(self.ended.get_nowait())
        return ended

    def _landed(self, ended: list[Future]) -> Iterator[tuple[int, Result | WorkersDiedError]]:
        try:
            done = [future for future in ended if future.status == "finished"]
            results = dict(zip(done, self.client.gather(done), strict=True))  # in one message
            for future in ended:
                number, case = self.flying.pop(future)
                if future in results:
                    yield number, results[future]
                elif (error := self._death(future, number)) is not None:
                    yield number, error
                else:
                    self.again.append((number, case))
        finally:
            for future in ended:
                future.release()

    def _death(self, future: Future, number: int) -> WorkersDiedError | None:
        """Count the workers that a case has had; raises what is not a worker's death."""
        from distributed import KilledWorker

        try:
            future.result()
        except KilledWorker as error:
            self.deaths[number] += error.allowed_failures + 1
        died = self.deaths[number]
        return WorkersDiedError.of(died) if died >= _MOST_DEATHS else None


class _Crew:
    """How many workers there are, asked for now and then."""

    def __init__(self, client: Client) -> None:
        self.client, self.count, self.asked = client, 0, -_LOOK_EVERY_S
        self.seen, self.told = time.monotonic(), False

    def size(self) -> int:
        """Count the workers; 1 where there is none yet, so that a cluster sees work and grows."""
        now = time.monotonic()
        if now - self.asked >= _LOOK_EVERY_S:
            self.count, self.asked = len(self.client.nthreads()), now
            self.seen = now if self.count else self.seen
            if now - self.seen > _SAY_AFTER_S and not self.told:
                self.told = True
                say("The scheduler has no worker at the moment; waiting for one.")
        return max(self.count, 1)


def _require_version(client: Client, version: str) -> None:
    """Refuse workers without medtrans, or with another version of it."""
    from importlib import metadata

    answers: dict[str, Any] = client.run(metadata.version, "medtrans", on_error="return")
    for worker, answer in answers.items():
        if answer != version:
            found = answer if isinstance(answer, str) else "none"
            raise UsageError(
                f"The worker {worker} must have medtrans {version}, as this process; found {found}."
                " Install the same version there."
            )


@contextmanager
def _lost_connection() -> Iterator[None]:
    from distributed.client import CancelledError, ClosedClientError
    from distributed.comm import CommClosedError

    try:
        yield
    except (ClosedClientError, CommClosedError, CancelledError):
        raise MedtransError(
            "The connection to the Dask scheduler is lost. Results that were written are whole: "
            "start the scheduler and its workers, and run the same command again."
        ) from None


@contextmanager
def _needs_extra() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise UsageError(
            "Work in several processes needs Dask. Install it with: pip install 'medtrans[cluster]'"
        ) from None
