"""What `medtrans translate` does with a manifest or a single input before torch is imported."""

from __future__ import annotations

from pathlib import Path

from medtrans.config.terms import Task
from medtrans.inference.input_checks import check_values
from medtrans.inference.jobs import Job, ReadJob, read_job, uncertainty_map
from medtrans.package.folder import error_entries


def jobs_as_bids(manifest: Path, task: Task, out_dir: Path, *, overwrite: bool) -> list[Job]:
    """List a manifest's volumes for a BIDS derivative, and describe that in its folder."""
    from medtrans.inference.bids import bids_jobs, save_description  # with pandas

    jobs = bids_jobs(manifest, task, out_dir)
    save_description(out_dir, manifest, jobs, overwrite=overwrite)
    return jobs


def read_checked(job: Job, task: Task, samples: int, model: Path) -> ReadJob:
    """Read the only input, and refuse it if need be, while nothing heavy is imported.

    `model` is the package's folder.
    """
    read = read_job(job, task, uncertainty_map(samples, error_entries(model)))
    check_values(read.image.voxels, task, read.source)  # its warnings come with the translation
    return read
