"""Many volumes on the workers of a cluster, each of which loads the model once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from medtrans.errors import FaultError, MedtransError, PackageError, UsageError
from medtrans.inference.cohort import OnDone, Result, alone, outcome_of, remove_temporary, stops
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.system.cluster import (
    carry_causes,
    local_workers,
    results_of,
    worker_number,
    workers_of,
)
from medtrans.system.devices import tune_process, usable_cores
from medtrans.version import __version__

if TYPE_CHECKING:
    from distributed import Client

# Of a process, whatever number of threads Dask gives it: memory and cores are for one volume.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class SharedModel:
    """A model that every worker loads for itself.

    Attributes
    ----------
    name : str
        A shipped model's, or the absolute path of a package's folder, which every worker can read.
    sha256 : str
        What the hash of the package has to be.
    device, precision : str
        As for `Translator.load`.
    """

    name: str
    sha256: str
    device: str
    precision: str


@dataclass(frozen=True)
class Case:
    """What a worker is told of one volume."""

    job: Job
    settings: Settings
    model: SharedModel


def workers_here(count: int, device: str) -> AbstractContextManager[Client]:
    """Start workers on this machine when entered, which share its cores.

    Raises
    ------
    UsageError
        When there are fewer GPUs than workers.
    """
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if 0 < gpus < count:
        raise UsageError(
            f"{count} workers were asked for, but this machine has {gpus} GPUs, and each takes one "
            f"worker. Use --workers {gpus}, or --device cpu."
        )
    return local_workers(count, threads=max(1, usable_cores() // count))


def workers_at(address: str) -> AbstractContextManager[Client]:
    """Connect to the workers of a Dask scheduler when entered."""
    return workers_of(address, __version__)


def translate_on_workers(
    crew: AbstractContextManager[Client],
    model: SharedModel,
    jobs: Sequence[Job],
    settings: Settings,
    *,
    strict: bool,
    on_done: OnDone,
    on_volumes: Callable[[int, int], None],
) -> None:
    """Translate every job on the workers of a cluster; the files are those of `translate_cohort`.

    A volume whose worker is ended has another try on another worker. What is done already is left,
    and the folder kept for this process, as in `translate_cohort`.

    Parameters
    ----------
    crew : context manager
        Gives a client while the work lasts.
    model : SharedModel
    jobs : sequence of Job
        Their paths are the same on all machines.
    settings : Settings
    strict : bool
        Raise the first error instead of going on.
    on_done : callable
        Told of each job's result or error, in the order in which they are done.
    on_volumes : callable
        Told how many volumes are done, of how many.

    Raises
    ------
    PackageError
        When a worker has another model of that name, or none.
    OutputError
        When another process translates into the folder.
    """
    cases = (Case(_absolute(job), settings, model) for job in jobs)
    with alone(jobs):
        try:
            with crew as client:
                for done, (number, result) in enumerate(results_of(client, translate_case, cases)):
                    if isinstance(result, MedtransError) and stops(result, jobs, strict=strict):
                        raise result
                    on_done(jobs[number], result)
                    on_volumes(done + 1, len(jobs))
        finally:
            remove_temporary(jobs, idle_s=0)  # of workers that were ended; nobody else writes here


def translate_case(case: Case) -> Result:
    """Translate one volume in a worker.

    Raises
    ------
    PackageError
        When the model is another one here than where the cohort was started.
    """
    with _one_at_a_time:
        result = outcome_of(_translator(case.model), case.job, case.settings)
    return _portable(result) if isinstance(result, FaultError) else result


@lru_cache(maxsize=1)
def _translator(model: SharedModel) -> Translator:
    """Load the model, once in each worker."""
    tune_process()
    translator = Translator.load(model.name, device_of_worker(model.device), model.precision)
    if translator.package.sha256 != model.sha256:
        raise PackageError(
            f"The model {model.name} on this worker is not the one of the process that started the "
            "cohort: their hashes differ. Install the same medtrans, or name a folder that all "
            "machines share."
        )
    return translator


def device_of_worker(wanted: str) -> str:
    """Choose the GPU of this worker by its number, where it sees several."""
    count = torch.cuda.device_count()
    if wanted not in ("auto", "cuda") or count < 2:
        return wanted
    return f"cuda:{worker_number() % count}"


def _absolute(job: Job) -> Job:
    """Name a job's files for a worker that may run in another folder."""
    return replace(job, path=job.path.absolute(), out=job.out and job.out.absolute())


def _portable(fault: FaultError) -> FaultError:
    """Give a fault's cause a type that any process can read; its message stays behind."""
    cause = fault.__cause__
    stand_in = RuntimeError(type(cause).__name__)
    fault.__cause__ = stand_in.with_traceback(cause.__traceback__ if cause else None)
    carry_causes(fault)
    return fault
