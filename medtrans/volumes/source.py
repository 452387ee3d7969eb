"""Where a volume came from: what its writer needs to put a result on the same grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medtrans.config.terms import Contrast, Kind
from medtrans.errors import MedtransError, OutputError, UnreadableFileError
from medtrans.volumes.geometry import Affine

# Every suffix that is read; of those that end alike, the longer comes first.
NIFTI_SUFFIXES = (".nii.gz", ".nii", ".hdr.gz", ".img.gz", ".hdr", ".img")
# Each ITK suffix, with the one-file form that its output takes.
ITK_OUTPUT = {".mha": ".mha", ".mhd": ".mha", ".nrrd": ".nrrd", ".nhdr": ".nrrd"}
ITK_SUFFIXES = tuple(ITK_OUTPUT)
MGH_SUFFIXES = (".mgz", ".mgh.gz", ".mgh")
ARCHIVE_SUFFIX = ".zip"  # of a DICOM study
KNOWN_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *MGH_SUFFIXES)
# What stands for a volume in a listing of a folder: one file, one volume. Of a header and its
# voxels in two files it is the header.
LISTED_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".hdr.gz", *ITK_SUFFIXES, *MGH_SUFFIXES)
# Of each kind that is written to one file: its name in a sentence, and what a file may end in.
OUTPUT_SUFFIXES = {
    "nifti": ("NIfTI", (".nii.gz", ".nii", ".hdr", ".img")),
    "itk": ("ITK", (".mha", ".nrrd")),
    "mgh": ("MGH", (".mgz", ".mgh")),
}
READABLE = (
    "NIfTI (.nii, .nii.gz, .hdr/.img), DICOM (a file, a folder or a zip), MHA, MHD, NRRD, MGZ and "
    "MGH"
)


@dataclass(frozen=True)
class Source:
    """Origin of a volume.

    Attributes
    ----------
    path : Path
        The file, or for a DICOM series the file or folder that was named.
    kind : {"nifti", "dicom", "itk", "mgh"}
    sha256 : str
        Hash of the file's bytes; of a series, the hash of its sorted file hashes.
    affine : tuple of 16 float
        Voxel to RAS+ millimetres, row by row.
    shape : tuple of int
        Shape on disk: a 2D file stays 2D and a 4D file with one time point stays 4D.
    header : object
        What the writer of this kind needs; opaque to everyone else. It holds no free text.
    warnings : tuple of str
        What was odd about the file and what was assumed, one sentence each.
    contrast : Contrast or None
        What it shows, as far as its modality, its sequence or its name tells.
    series : str
        UID of the DICOM series; empty for other kinds.
    """

    path: Path
    kind: Kind
    sha256: str
    shape: tuple[int, ...]
    affine: tuple[float, ...]
    header: object = field(repr=False, compare=False)
    warnings: tuple[str, ...] = ()
    contrast: Contrast | None = None
    series: str = ""

    @property
    def affine_matrix(self) -> Affine:
        """Voxel to RAS+ millimetres, shape (4, 4)."""
        return np.array(self.affine, dtype=np.float64).reshape(4, 4)


def split_suffix(path: Path) -> tuple[str, str]:
    """Stem and suffix of an image file, with ``.nii.gz`` taken as one suffix."""
    lower = path.name.lower()
    for suffix in KNOWN_SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return path.name[: -len(suffix)], suffix
    return path.stem, path.suffix


def is_volume_file(path: Path) -> bool:
    """Whether a file in a folder stands for one volume, by its name: NIfTI, MHA, NRRD, MGH."""
    return split_suffix(path)[1] in LISTED_SUFFIXES and not path.name.startswith(".")


def list_volumes(folder: Path) -> list[Path]:
    """List the files of a folder that stand for a volume each, by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and is_volume_file(path))


def require_suffix(path: Path, kind: str) -> None:
    """Refuse an output's name that says another kind of file.

    Parameters
    ----------
    path
        The file to write.
    kind
        A key of `OUTPUT_SUFFIXES`.

    Raises
    ------
    OutputError
        If the name ends otherwise than files of this kind do.
    """
    suffix = split_suffix(path)[1]
    name, allowed = OUTPUT_SUFFIXES[kind]
    if suffix not in allowed:
        raise OutputError(
            f"{path}: expected a name that ends in {', '.join(allowed[:-1])} or {allowed[-1]} for "
            f"{name} output, found {suffix or 'no suffix'!r}. Rename the output."
        )


def output_path(source: Source, task: str, kind: str | None = None) -> Path:
    """Name a result after its input and the target contrast of the task.

    Parameters
    ----------
    source
        The input. ``t1.nii.gz`` gives ``t1_t2-synthetic.nii.gz`` beside it, a DICOM folder
        ``study`` the folder ``study_t2-synthetic``; an MHA or NRRD file keeps its suffix.
    task
        For instance ``"t1-to-t2"``.
    kind
        "nifti", "dicom", "itk" or "mgh": what will be written; by default the source's.
    """
    label = f"_{task.rpartition('-to-')[2]}-synthetic"
    path = source.path.absolute()
    stem, suffix = (path.name, "") if path.is_dir() else split_suffix(path)
    endings = {
        "dicom": "",
        "itk": ITK_OUTPUT.get(suffix, ".mha"),
        "nifti": ".nii.gz",
        "mgh": ".mgz",
    }
    return path.with_name(stem + label + endings[kind or source.kind])


@contextmanager
def unreadable_on_error(path: Path) -> Iterator[None]:
    """Turn whatever a library raises over damaged bytes into `UnreadableFileError`.

    The library's message is dropped, not chained: it may quote the header's text, and that
    may name a patient.
    """
    try:
        # What numpy would warn of in damaged numbers, our own checks refuse in a sentence.
        with np.errstate(all="ignore"):
            yield
    except MedtransError:
        raise
    except MemoryError:
        raise UnreadableFileError(
            f"{path}: the file needs more memory than there is. Crop or resample the image."
        ) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # not a library's own
            raise UnreadableFileError(
                f"{path}: the file cannot be read ({error.strerror}). Check that it exists and "
                "that you may read it, and check the disk for errors."
            ) from None
        raise UnreadableFileError(
            f"{path}: the file is damaged or not what its name says "
            f"({type(error).__name__} while reading it). Copy or convert it again."
        ) from None


def require_there(path: Path) -> None:
    """Refuse a path where there is nothing; raises `UnreadableFileError`."""
    if not path.exists():
        raise UnreadableFileError(f"{path}: there is no such file or folder. Check the path.")


def require_file(path: Path) -> None:
    """Refuse a path that is not a regular file; raises `UnreadableFileError`."""
    require_there(path)
    if not path.is_file():
        raise UnreadableFileError(f"{path}: expected a file, found something else. Name one file.")
