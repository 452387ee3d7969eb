"""Reading a volume of any supported kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtrans.config.terms import Kind
from medtrans.errors import UnreadableFileError, UsageError
from medtrans.volumes.source import (
    ARCHIVE_SUFFIX,
    ITK_SUFFIXES,
    MGH_SUFFIXES,
    NIFTI_SUFFIXES,
    READABLE,
    require_there,
    split_suffix,
    unreadable_on_error,
)
from medtrans.volumes.voxels import Loaded

if TYPE_CHECKING:
    from monai.data import MetaTensor


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """Tell what reads a path, by its name or else by its first bytes; None if nothing does.

    Raises
    ------
    UnreadableFileError
        If the file cannot be opened.
    """
    path = Path(path)
    if path.is_dir():
        return "dicom"
    suffix = split_suffix(path)[1].lower()
    if suffix in NIFTI_SUFFIXES:
        return "nifti"
    if suffix in ITK_SUFFIXES:
        return "itk"
    if suffix in MGH_SUFFIXES:
        return "mgh"
    with unreadable_on_error(path), path.open("rb") as file:
        start = file.read(352)
    return _kind_of_bytes(start, suffix)


def _kind_of_bytes(start: bytes, suffix: str) -> Kind | None:
    if start[128:132] == b"DICM" or suffix in (".dcm", ".dicom", ".ima", ARCHIVE_SUFFIX):
        return "dicom"
    if start[:2] == b"\x1f\x8b" or start[344:347] in (b"n+1", b"ni1") or start[4:7] == b"n+2":
        return "nifti"
    if start.startswith((b"NRRD", b"ObjectType")):
        return "itk"
    if start.startswith(b"PK\3\4"):
        return "dicom"  # zipped
    # Old DICOM files begin with an element of group 2 or 8 instead of the preamble.
    return "dicom" if start[:4] in (b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0") else None


def load(path: Path, series: str | None = None, volume: int | None = None) -> Loaded:
    """Read a path with the reader of its kind, into NumPy; parameters as for `read_volume`.

    Raises
    ------
    UnreadableFileError, GeometryError
        As for `read_volume`.
    UsageError
        If a series is chosen of what is no DICOM.
    """
    require_there(path)
    kind = kind_of(path)
    if series is not None and kind != "dicom":
        raise UsageError(f"{path}: a series can be chosen only in DICOM. Leave --series out.")
    if kind == "nifti":
        from medtrans.volumes import nifti

        return nifti.read(path, volume)
    if kind == "dicom":
        from medtrans.volumes.dicom import read as dicom_read

        return dicom_read.read(path, series, volume)
    if kind == "mgh":
        from medtrans.volumes import mgh

        return mgh.read(path, volume)
    if kind == "itk":
        from medtrans.volumes import itk

        return itk.read(path, volume)
    raise UnreadableFileError(
        f"{path}: expected {READABLE}, found something else. Convert it to one of these."
    )


def read_volume(
    path: str | os.PathLike[str], *, series: str | None = None, volume: int | None = None
) -> MetaTensor:
    """Read any supported file or folder into one volume, or say why not.

    Parameters
    ----------
    path
        A NIfTI, MHA, MHD, NRRD, MGZ or DICOM file, or a folder or zip with a DICOM series.
    series
        Number or UID of the series, where a DICOM folder holds several.
    volume
        Which volume, from 0, where a file or series holds several (time points, b-values).

    Returns
    -------
    monai.data.MetaTensor
        Shape (X, Y, Z), float32, in the file's own axis order. ``.affine`` is float64, 4 x 4,
        voxel to RAS+ mm. ``.meta["source"]`` is the `Source`, ``.meta["stored_dtype"]`` the
        type on disk.

    Raises
    ------
    UnreadableFileError
        If the file is missing, damaged or of an unsupported kind.
    GeometryError
        If its voxels do not form one volume on a regular grid.
    """
    return to_volume(load(Path(path), series, volume))


def to_volume(loaded: Loaded) -> MetaTensor:
    """Give what was read as a MONAI volume, as `read_volume` describes it; shares the voxels."""
    import torch
    from monai.data import MetaTensor
    from monai.utils.enums import SpaceKeys

    affine = torch.from_numpy(np.array(loaded.affine, dtype=np.float64))
    meta = {"source": loaded.source, "stored_dtype": loaded.dtype, "space": SpaceKeys.RAS}
    return MetaTensor(torch.from_numpy(loaded.voxels), affine=affine, meta=meta)
