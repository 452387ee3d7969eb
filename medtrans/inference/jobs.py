"""What is to be translated: files and folders, named one by one or by a manifest.

Nothing here needs torch, so that the command line can refuse a wrong input at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtrans.config.terms import Contrast, Kind, Task
from medtrans.errors import OutputError, UsageError
from medtrans.system.atomic import make_folder
from medtrans.system.names import require_inside
from medtrans.volumes import (
    output_path,
    require_other_file,
    require_same_grid,
    require_writable_output,
)
from medtrans.volumes.files import load
from medtrans.volumes.sidecar import Claim, image_files, read_sidecar, require_own_files, sidecar_of
from medtrans.volumes.source import (
    KNOWN_SUFFIXES,
    Source,
    list_volumes,
    split_suffix,
)
from medtrans.volumes.stream import require_sha256
from medtrans.volumes.voxels import Loaded, Mask

if TYPE_CHECKING:
    from medtrans.data.manifest import Entry

Entries = Mapping[str, object]
"""Entries of a sidecar."""

CONTENT = "Content"  # of a sidecar: what the file is, where it is not the translated image
SPREAD = "standard deviation over samples"
EXPECTED_ERROR = "expected absolute error"
SUPPORT = "mask of what was translated"
LOOK_ENTRY = "InputLook"  # of a sidecar: what was seen of the input
AXES_ENTRY = "SlicedAlong"  # of a sidecar: of several axes the result is the mean
STRIPPED_ENTRY = "SkullStripped"  # as BIDS spells it
_SYNTHETIC = "-synthetic"


@dataclass(frozen=True)
class Job:
    """One file or DICOM folder to translate.

    Attributes
    ----------
    path : Path
        File or DICOM folder to read.
    out : Path or None
        The file (for DICOM the folder) to write, or an existing folder to write into; None: beside
        the input. Names that are not given say synthetic.
    mask : Path or None
        A volume on the input's grid; voxels above 0 are translated.
    uncertainty : Path or None
        Gets the expected absolute error, or of a model that does not know it the standard
        deviation over the samples, which needs `Settings.samples` above 1.
    save_mask : Path or None
        Gets the mask of what was translated.
    kind : {"nifti", "dicom", "itk", "mgh"} or None
        What to write, instead of the input's kind.
    series : str or None
        Which series of a DICOM folder.
    volume : int or None
        Which volume of a 4D file, from 0.
    overwrite : bool
        Replace files that medtrans did not write for this result; its own are always replaced.
    sha256 : str
        What the hash of the file at `path` has to be; empty where nothing states it.
    """

    path: Path
    out: Path | None = None
    mask: Path | None = None
    uncertainty: Path | None = None
    save_mask: Path | None = None
    kind: Kind | None = None
    series: str | None = None
    volume: int | None = None
    overwrite: bool = False
    sha256: str = ""

    def further(self, uncertainty: Entries | None) -> tuple[tuple[Path, Entries], ...]:
        """List what is written beside the image, as NIfTI: each file with its sidecar's entries.

        `uncertainty` are those of the uncertainty map, as `uncertainty_map` gives them.
        """
        files = [(self.uncertainty, uncertainty), (self.save_mask, {CONTENT: SUPPORT})]
        return tuple((path, entries) for path, entries in files if path is not None and entries)


@dataclass(frozen=True)
class ReadJob:
    """A job whose files have been read, and whose outputs can be written.

    Attributes
    ----------
    job : Job
    image : Loaded
        Voxels (X, Y, Z) float32, with their affine and source.
    mask : array of bool or None
        Shape (X, Y, Z).
    mask_sha256 : str or None
        Of the mask's file.
    output : Path
        The file or folder that will be written.
    further : tuple of (Path, mapping)
        What is written beside it, as NIfTI: each file with its sidecar's entries.
    """

    job: Job
    image: Loaded
    mask: Mask | None
    mask_sha256: str | None
    output: Path
    further: tuple[tuple[Path, Entries], ...]

    @property
    def source(self) -> Source:
        """Where the image came from."""
        return self.image.source

    @property
    def wants_uncertainty(self) -> bool:
        """Whether a map of it is to be written."""
        return self.job.uncertainty is not None


def uncertainty_map(samples: int, known: Entries | None) -> Entries | None:
    """Say what an uncertainty map is, as entries of its sidecar; None where there can be none.

    Parameters
    ----------
    samples : int
        How many draws there will be.
    known : mapping or None
        What a model that has learnt its error says of that.
    """
    if known is not None:
        return {CONTENT: EXPECTED_ERROR, **known}
    return {CONTENT: SPREAD} if samples > 1 else None


def read_job(job: Job, task: Task, uncertainty: Entries | None) -> ReadJob:
    """Read a job's image and mask, and refuse outputs that could not be written.

    Parameters
    ----------
    job : Job
    task : Task
        Names the output.
    uncertainty : mapping or None
        What `uncertainty_map` says.

    Raises
    ------
    FileError
        When a file cannot be read as a volume, or an output would replace another file of the job,
        or one that medtrans did not write for this result.
    UsageError
        When an uncertainty map is asked for and there can be none.
    """
    if job.uncertainty is not None and uncertainty is None:
        raise UsageError(
            "This model has not learnt how far off it is, so that an uncertainty map needs more "
            "than one sample: add --samples 8."
        )
    if job.sha256:
        require_sha256(job.path, job.sha256)
    image = load(job.path, job.series, job.volume)
    mask = mask_sha256 = None
    if job.mask is not None:
        marked = load(job.mask, None, None)
        require_same_grid(marked, image, f"The mask {job.mask} and the image")
        mask, mask_sha256 = np.asarray(marked.voxels > 0), marked.source.sha256
    output = _output(job.out, output_path(image.source, str(task), job.kind))
    read = ReadJob(job, image, mask, mask_sha256, output, job.further(uncertainty))
    _require_outputs(read, Claim(image.source, str(task), volume=job.volume))
    return read


def jobs_from_inputs(inputs: Iterable[Path], out: Path | None) -> list[Job]:
    """Turn the inputs of the command line into jobs.

    A folder that holds volumes (NIfTI, MHA, NRRD, MGH) stands for each of them, earlier outputs of
    medtrans left out; a folder that holds DICOM is one volume. With several inputs `out` is a
    folder, which is made.

    Raises
    ------
    UsageError
        When there is no input, or two results would have one name.
    """
    paths = [path for given in inputs for path in _expand(given)]
    if not paths:
        raise UsageError("No input: name a NIfTI, MHA, NRRD or MGZ file, or a DICOM folder.")
    _require_distinct_outputs(paths, out)
    if out is not None and len(paths) > 1:
        if split_suffix(out)[1].lower() in KNOWN_SUFFIXES:
            raise UsageError(
                f"-o {out} names one file, but there are {len(paths)} inputs. Name a folder."
            )
        make_folder(out)
    return [Job(path, out) for path in paths]


def jobs_from_manifest(path: Path, contrast: Contrast, out_dir: Path) -> list[Job]:
    """One job for every volume of the source contrast, into `out_dir`/subject[/session].

    Raises
    ------
    ManifestError, UsageError
        When the CSV has a problem, or lists no such volume.
    OutputError
        When a link leads an output out of `out_dir`.
    """
    entries = source_entries(path, contrast)
    folders = [out_dir / entry.subject / entry.session for entry in entries]
    for folder in folders:
        require_inside(folder, out_dir)
    return [
        Job(entry.path, make_folder(folder), series=entry.series, sha256=entry.sha256)
        for entry, folder in zip(entries, folders, strict=True)
    ]


def source_entries(path: Path, contrast: Contrast) -> list[Entry]:
    """List the volumes of the source contrast in a manifest; errors as of `jobs_from_manifest`."""
    from medtrans.data.manifest import Manifest  # with pandas, which a single file does not need

    manifest = Manifest.read(path, check_files=False)  # a missing file fails alone, when it is read
    entries = manifest.entries(contrast=contrast)
    if not entries:
        raise UsageError(
            f"The manifest {path} lists no {contrast} volume to translate; it has "
            f"{manifest.summary()}."
        )
    return entries


def _output(out: Path | None, default: Path) -> Path:
    """Where to write: beside the input, into a folder under the default name, or as named.

    A name without a suffix is a folder, which is made, unless it becomes a DICOM series itself, or
    is one that an earlier run derived.
    """
    if out is None:
        return default
    if default.suffix and not out.suffix:
        make_folder(out)
    is_series = not default.suffix and read_sidecar(sidecar_of(out, "dicom")) is not None
    return out / default.name if out.is_dir() and not is_series else out


def _require_outputs(read: ReadJob, claim: Claim) -> None:
    """Refuse outputs that could not be written, or would replace another file or each other."""
    job, output = read.job, read.output
    outputs = [(output, job.kind or claim.source.kind, claim)]
    outputs += [
        (path, "nifti", replace(claim, content=str(entries[CONTENT])))
        for path, entries in read.further
    ]
    taken = set[Path]()
    for path, kind, its_claim in outputs:
        require_writable_output(path, claim.source, kind)
        files = {file.absolute() for file in (*image_files(path, kind), sidecar_of(path, kind))}
        if taken & files:
            raise OutputError(
                f"{path}: the {its_claim.content} would replace the output {output}, another file "
                f"of it or the sidecar {sidecar_of(output, outputs[0][1]).name}. Give them "
                "different names, not only different suffixes."
            )
        taken |= files
        if job.mask is not None:
            for file in image_files(path, kind):
                require_other_file(file, job.mask)
        require_own_files(path, kind, its_claim, overwrite=job.overwrite)


def _require_distinct_outputs(paths: list[Path], out: Path | None) -> None:
    """Refuse inputs whose results, or the sidecars of these, would replace each other.

    A sidecar is named by the stem alone, so that a.nii.gz and a.mha have the same.
    """
    first: dict[tuple[Path, str], Path] = {}
    for path in paths:
        stem = path.name if path.is_dir() else split_suffix(path)[0]
        other = first.setdefault((out or path.absolute().parent, stem), path)
        if other is not path:
            raise UsageError(
                f"The results of {other} and {path} would have the same name. Translate them into "
                "different folders, or list them in a manifest and use --manifest with --out-dir."
            )


def _expand(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    return [path for path in list_volumes(given) if _SYNTHETIC not in path.name] or [given]
