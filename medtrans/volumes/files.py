"""Reading and writing a volume of any supported kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medtrans.config.terms import Kind
from medtrans.errors import GeometryError, OutputError, UnreadableFileError, UsageError
from medtrans.system.atomic import require_writable
from medtrans.volumes import geometry
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.sidecar import Claim, image_files, require_own_files
from medtrans.volumes.source import (
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
    OUTPUT_SUFFIXES,
    READABLE,
    Source,
    require_suffix,
    require_there,
    split_suffix,
    unreadable_on_error,
)
from medtrans.volumes.voxels import Loaded, Stored, require_finite

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
    with unreadable_on_error(path), path.open("rb") as file:
        start = file.read(352)
    return _kind_of_bytes(start, suffix)


def _kind_of_bytes(start: bytes, suffix: str) -> Kind | None:
    if start[128:132] == b"DICM" or suffix in (".dcm", ".dicom", ".ima"):
        return "dicom"
    if start[:2] == b"\x1f\x8b" or start[344:347] in (b"n+1", b"ni1") or start[4:7] == b"n+2":
        return "nifti"
    if start.startswith((b"NRRD", b"ObjectType")):
        return "itk"
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
        A NIfTI, MHA, MHD, NRRD or DICOM file, or a folder with a DICOM series.
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


def write_volume(
    voxels: Stored,
    path: str | os.PathLike[str],
    source: Source,
    provenance: Provenance,
    *,
    kind: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write voxels on the exact grid of their source, labelled synthetic.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z). Floats are written as float32 (DICOM: 16-bit integers), integers (masks)
        and booleans as integers.
    path
        The file, or for DICOM the folder, to write.
    source
        ``meta["source"]`` of the volume that `read_volume` gave.
    provenance
        The label; also written as a JSON sidecar.
    kind
        "nifti", "dicom" or "itk"; by default the source's.
    overwrite
        Replace files that medtrans did not write for this result; its own are always replaced.

    Returns
    -------
    list of Path
        What was written: the image first, its sidecar last.

    Raises
    ------
    OutputError
        If the place is not writable or taken, the kinds do not cross over, or a voxel is not
        finite.
    UsageError
        If there is no such kind.
    GeometryError
        If the voxels are not on the source's grid.
    """
    path, kind = Path(path), kind or source.kind
    voxels = np.asarray(voxels)
    expected = (*source.shape, 1)[:3]
    if voxels.shape != expected:
        raise GeometryError(
            f"{path}: expected voxels of the source's shape {geometry.grid(expected)}, found "
            f"{geometry.grid(voxels.shape)}. Put the result back on the source's grid first."
        )
    require_finite(voxels, f"{path}: the result")
    require_writable_output(path, source, kind)
    require_own_files(path, kind, Claim.of(source, provenance), overwrite=overwrite)
    if kind == "nifti":
        from medtrans.volumes import nifti

        return nifti.write(voxels, path, source, provenance)
    if kind == "itk":
        from medtrans.volumes import itk

        return itk.write(voxels, path, source, provenance)
    from medtrans.volumes.dicom import write as dicom_write

    return dicom_write.write(voxels, path, source, provenance)


def require_writable_output(path: Path, source: Source, kind: str | None = None) -> None:
    """Refuse what `write_volume` could not write, before hours of work.

    Parameters
    ----------
    path, source, kind
        As for `write_volume`.

    Raises
    ------
    OutputError
        If the place is not writable, the name is of another kind, the output would replace its
        input, or a source cannot become DICOM.
    UsageError
        If there is no such kind.
    """
    kind = kind or source.kind
    require_writable(path)
    for file in image_files(path, kind):
        require_other_file(file, source.path)
    if kind in OUTPUT_SUFFIXES:
        require_suffix(path, kind)
    elif kind != "dicom":
        raise UsageError(f"the output kind is {kind!r}; expected nifti, dicom or itk.")
    elif source.kind == "dicom":
        from medtrans.volumes.dicom import write as dicom_write

        dicom_write.require_study(path, source)
    else:
        raise OutputError(
            f"{path}: DICOM output needs a DICOM input, whose patient and study it joins; the "
            f"input is {source.kind}. Ask for nifti output."
        )


def require_other_file(path: Path, source: Path) -> None:
    """Refuse to write over an input, or over a folder that holds it; raises `OutputError`."""
    if not path.exists() or not source.exists():
        return
    if path.samefile(source) or (path.is_dir() and source.resolve().is_relative_to(path.resolve())):
        raise OutputError(f"{path}: the output would replace its input. Choose another name.")
