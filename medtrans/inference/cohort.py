"""Many volumes with one loaded model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medtrans.errors import FaultError, Interrupted, MedtransError, UnusualInputError
from medtrans.inference.jobs import Job, ReadJob
from medtrans.inference.reruns import earlier_outputs
from medtrans.inference.sampling import OnSlices
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from medtrans.system.atomic import remove_leftovers
from medtrans.system.locks import only_one_in

_IDLE_S = 3600.0  # what was not written to for so long, a killed process has left
# One for all results: an array each, however small, would stay where a volume's memory was freed,
# and keep the next volume from using it again.
_NO_VOXELS = np.zeros((0, 0, 0), np.float32)


@dataclass(frozen=True)
class Unchanged:
    """A result that an earlier run left, of the same input, model and settings.

    Attributes
    ----------
    outputs : list of Path
        The image first.
    """

    outputs: list[Path]


Result = Written | Unchanged | MedtransError
OnDone = Callable[[Job, Result], None]
"""Called with each job and its result or error."""


def translate_cohort(
    translator: Translator,
    jobs: Sequence[Job | ReadJob],
    settings: Settings,
    *,
    strict: bool,
    on_done: OnDone,
    on_slices: OnSlices | None = None,
) -> list[Result]:
    """Translate every job; one that fails does not stop the others unless `strict`.

    One of several that is refused as unusual (`settings.strict`) never stops the others.

    A result that is there already, of the same input, model and settings, is left as it is. A job
    that was read before, or that says overwrite, is translated in any case.
    Meanwhile no other process translates several volumes into the same folder. Of several volumes
    the results have no voxels: those are in the files.

    Parameters
    ----------
    translator : Translator
    jobs : sequence of Job or ReadJob
    settings : Settings
    strict : bool
        Raise the first error instead of going on.
    on_done : callable
        Told of each job's result or error.
    on_slices : callable, optional
        Told of each volume's progress.

    Raises
    ------
    OutputError
        When another process translates into the folder, with its number and its machine.
    """
    with alone([job.job if isinstance(job, ReadJob) else job for job in jobs]):
        return _translated(translator, jobs, settings, strict, on_done, on_slices)


def alone(jobs: Sequence[Job]) -> AbstractContextManager[None]:
    """Keep others out of the folder that the results of several jobs have in common.

    Results that have nothing but the root of the file system in common have no such folder.
    """
    common = Path(os.path.commonpath(_places(jobs))) if len(jobs) > 1 else None
    if common is None or common == common.parent:
        return nullcontext()
    if not os.access(common, os.W_OK) or not common.is_dir():
        return nullcontext()
    remove_temporary(jobs, idle_s=_IDLE_S)
    return only_one_in(common, "translation")


def remove_temporary(jobs: Sequence[Job], idle_s: float) -> None:
    """Remove what killed processes were writing and have not written to for so many seconds."""
    for place in _places(jobs):
        remove_leftovers(place, idle_s=idle_s)


def _places(jobs: Sequence[Job]) -> set[Path]:
    """Folders of the results."""
    places = {job.out or job.path.parent for job in jobs}
    return {(place if place.is_dir() else place.parent).absolute() for place in places}


def _translated(
    translator: Translator,
    jobs: Sequence[Job | ReadJob],
    settings: Settings,
    strict: bool,
    on_done: OnDone,
    on_slices: OnSlices | None,
) -> list[Result]:
    results: list[Result] = []
    for job in jobs:
        result = _outcome(translator, job, settings, on_slices)
        if isinstance(result, MedtransError) and stops(result, jobs, strict=strict):
            raise (
                result.__cause__ if isinstance(result, FaultError) and result.__cause__ else result
            )
        if len(jobs) > 1:
            result = _without_voxels(result)
        results.append(result)
        on_done(job.job if isinstance(job, ReadJob) else job, result)
    return results


def stops(error: MedtransError, jobs: Sequence[Job | ReadJob], *, strict: bool) -> bool:
    """Whether an error is raised; of several inputs a refused, unusual one never stops the rest."""
    return strict and not (isinstance(error, UnusualInputError) and len(jobs) > 1)


def outcome_of(translator: Translator, job: Job, settings: Settings) -> Result:
    """Translate one job of several: its result without voxels, or its error."""
    return _without_voxels(_outcome(translator, job, settings, None))


def _outcome(
    translator: Translator,
    job: Job | ReadJob,
    settings: Settings,
    on_slices: OnSlices | None,
) -> Result:
    try:
        return _translate(translator, job, settings, on_slices)
    except Interrupted:
        raise
    except MedtransError as error:
        return error
    except Exception as error:
        return FaultError.of(error)


def _translate(
    translator: Translator,
    job: Job | ReadJob,
    settings: Settings,
    on_slices: OnSlices | None,
) -> Written | Unchanged:
    read = translator.read(job, settings)
    if isinstance(job, Job) and not job.overwrite:
        label = translator.expected_label(read, settings)
        outputs = earlier_outputs(read, label, translator.precision, strict=settings.strict)
        if outputs is not None:
            return Unchanged(outputs)
    return translator.translate_file(read, settings, on_slices)


def _without_voxels(result: Result) -> Result:
    """Drop what is on the disk, or was read in vain: of a thousand volumes it fills the memory."""
    if isinstance(result, MedtransError):
        return result.with_traceback(None)
    if isinstance(result, Unchanged):
        return result
    return replace(
        result,
        translation=replace(
            result.translation, voxels=_NO_VOXELS, spread=None, support=None, error=None
        ),
    )
