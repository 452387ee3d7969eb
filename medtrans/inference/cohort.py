"""Many volumes with one loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtrans.data.manifest import Manifest
from medtrans.errors import Interrupted, MedtransError, UsageError
from medtrans.inference.sampling import OnSlices
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from medtrans.system.atomic import make_folder
from medtrans.volumes.source import ITK_OUTPUT, KNOWN_SUFFIXES, split_suffix

_SYNTHETIC = "-synthetic"


@dataclass(frozen=True)
class Job:
    """One translation of a cohort.

    Attributes
    ----------
    path : Path
        File or DICOM folder to read.
    out : Path or None
        File to write, or an existing folder to write into; None: beside the input.
    """

    path: Path
    out: Path | None


def jobs_from_inputs(inputs: Iterable[Path], out: Path | None) -> list[Job]:
    """Turn the inputs of the command line into jobs.

    A folder that holds volumes (NIfTI, MHA, NRRD) stands for each of them, earlier outputs of
    medtrans left out; a folder that holds DICOM is one volume. With several inputs `out` is a
    folder, which is made.
    """
    paths = [found for given in inputs for found in _expand(given)]
    if not paths:
        raise UsageError("No input: name a NIfTI, MHA or NRRD file, or a DICOM folder.")
    _require_distinct_outputs(paths, out)
    if out is not None and len(paths) > 1:
        if split_suffix(out)[1].lower() in KNOWN_SUFFIXES:
            raise UsageError(
                f"-o {out} names one file, but there are {len(paths)} inputs. Name a folder."
            )
        make_folder(out)
    return [Job(path, out) for path in paths]


def jobs_from_manifest(manifest: Manifest, contrast: str, out_dir: Path) -> list[Job]:
    """One job for every volume of the source contrast, into `out_dir`/subject[/session]."""
    entries = manifest.entries(contrast=contrast)
    if not entries:
        raise UsageError(
            f"The manifest {manifest.path} lists no {contrast} volume to translate; it has "
            f"{manifest.summary()}."
        )
    return [Job(e.path, make_folder(out_dir / e.subject / e.session)) for e in entries]


def translate_cohort(
    translator: Translator,
    jobs: list[Job],
    settings: Settings,
    *,
    strict: bool,
    on_done: Callable[[Job, Written | MedtransError], None],
    on_slices: OnSlices | None = None,
    **options: Any,
) -> list[Written | MedtransError]:
    """Translate every job; one that fails does not stop the others unless `strict`.

    Parameters
    ----------
    translator : Translator
    jobs : list of Job
    settings : Settings
    strict : bool
        Raise the first error instead of going on.
    on_done : callable
        Told of each job's result or error.
    on_slices : callable, optional
        Told of each volume's progress.
    **options
        Passed to `Translator.translate_file`.
    """
    results: list[Written | MedtransError] = []
    for job in jobs:
        result: Written | MedtransError
        try:
            result = translator.translate_file(
                job.path, settings, out=job.out, on_slices=on_slices, **options
            )
        except Interrupted:
            raise
        except MedtransError as error:
            if strict:
                raise
            result = error
        results.append(result)
        on_done(job, result)
    return results


def _require_distinct_outputs(paths: list[Path], out: Path | None) -> None:
    """Refuse inputs whose results would replace each other."""
    first: dict[tuple[Path, str, str], Path] = {}
    for path in paths:
        stem, suffix = split_suffix(path)
        key = (out or path.absolute().parent, stem, ITK_OUTPUT.get(suffix, ".nii.gz"))
        other = first.setdefault(key, path)
        if other is not path:
            raise UsageError(
                f"The results of {other} and {path} would have the same name. Translate them into "
                "different folders, or list them in a manifest and use --manifest with --out-dir."
            )


def _expand(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    volumes = sorted(
        path
        for path in given.iterdir()
        if path.name.lower().endswith((".nii", ".nii.gz", ".mha", ".nrrd"))
        and _SYNTHETIC not in path.name
    )
    return volumes or [given]
