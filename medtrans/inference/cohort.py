"""Many volumes with one loaded model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medtrans.errors import Interrupted, MedtransError
from medtrans.inference.jobs import Job, ReadJob
from medtrans.inference.sampling import OnSlices
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written

Result = Written | MedtransError
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
    """
    results: list[Result] = []
    for job in jobs:
        result: Result
        try:
            result = translator.translate_file(job, settings, on_slices)
        except Interrupted:
            raise
        except MedtransError as error:
            if strict:
                raise
            result = error
        results.append(result)
        on_done(job.job if isinstance(job, ReadJob) else job, result)
    return results
