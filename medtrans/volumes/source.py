"""Where a volume came from: what its writer needs to put a result on the same grid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medtrans.config.terms import Kind
from medtrans.errors import MedtransError, UnreadableFileError

NIFTI_SUFFIXES = (".nii.gz", ".nii", ".hdr.gz", ".img.gz", ".hdr", ".img")
# Each ITK suffix, with the one-file form that its output takes.
ITK_OUTPUT = {".mha": ".mha", ".mhd": ".mha", ".nrrd": ".nrrd", ".nhdr": ".nrrd"}
ITK_SUFFIXES = tuple(ITK_OUTPUT)
KNOWN_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
READABLE = "NIfTI (.nii, .nii.gz, .hdr/.img), DICOM (a file or a folder), MHA, MHD and NRRD"


@dataclass(frozen=True)
class Source:
    """Origin of a volume.

    Attributes
    ----------
    path : Path
        The file, or for a DICOM series the file or folder that was named.
    kind : {"nifti", "dicom", "itk"}
    sha256 : str
        Hash of the file's bytes; of a series, the hash of its sorted file hashes.
    affine : tuple of 16 float
        Voxel to RAS+ millimetres, row by row.
    shape : tuple of int
        Shape on disk: a 2D file stays 2D and a 4D file with one time point stays 4D.
    header : Any
        What the writer of this kind needs; opaque to everyone else. It holds no free text.
    warnings : tuple of str
        What was odd about the file and what was assumed, one sentence each.
    contrast : str or None
        What it shows, as far as its modality, its sequence or its name tells.
    """

    path: Path
    kind: Kind
    sha256: str
    shape: tuple[int, ...]
    affine: tuple[float, ...]
    header: Any = field(repr=False, compare=False)
    warnings: tuple[str, ...] = ()
    contrast: str | None = None


def split_suffix(path: Path) -> tuple[str, str]:
    """Stem and suffix of an image file, with ``.nii.gz`` taken as one suffix."""
    lower = path.name.lower()
    for suffix in KNOWN_SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return path.name[: -len(suffix)], suffix
    return path.stem, path.suffix


def output_path(source: Source, task: str, kind: str | None = None) -> Path:
    """Name a result after its input and the target contrast of the task.

    `kind` is what will be written, by default the source's. ``t1.nii.gz`` becomes
    ``t1_t2-synthetic.nii.gz`` beside it, a DICOM folder ``study`` becomes the folder
    ``study_t2-synthetic``, an MHA or NRRD file keeps its suffix.
    """
    label = f"_{task.rpartition('-to-')[2]}-synthetic"
    path = source.path.absolute()
    stem, suffix = (path.name, "") if path.is_dir() else split_suffix(path)
    endings = {"dicom": "", "itk": ITK_OUTPUT.get(suffix, ".mha"), "nifti": ".nii.gz"}
    return path.with_name(stem + label + endings[kind or source.kind])


@contextmanager
def own_errors_only(path: Path) -> Iterator[None]:
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
    except OSError as error:
        raise UnreadableFileError(
            f"{path}: the file cannot be read ({error.strerror or 'input/output error'}). "
            "Check that it exists, that you may read it, and that the disk is well."
        ) from None
    except MemoryError:
        raise UnreadableFileError(
            f"{path}: the file needs more memory than there is. Crop or resample the image."
        ) from None
    except Exception as error:
        raise UnreadableFileError(
            f"{path}: the file is damaged or not what its name says "
            f"({type(error).__name__} while reading it). Copy or convert it again."
        ) from None


def require_file(path: Path) -> None:
    """Refuse a path that is not a regular file."""
    if not path.exists():
        raise UnreadableFileError(f"{path}: there is no such file or folder. Check the path.")
    if not path.is_file():
        raise UnreadableFileError(f"{path}: expected a file, found something else. Name one file.")
