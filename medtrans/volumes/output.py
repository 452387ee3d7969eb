"""Writing a volume of any supported kind, and what an output may not replace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from medtrans.errors import GeometryError, OutputError, UsageError
from medtrans.system.atomic import require_writable
from medtrans.volumes import geometry
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.sidecar import Claim, image_files, require_own_files
from medtrans.volumes.source import OUTPUT_SUFFIXES, Source, require_suffix
from medtrans.volumes.voxels import Stored, require_finite


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
        "nifti", "dicom", "itk" or "mgh"; by default the source's.
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
    if kind == "mgh":
        from medtrans.volumes import mgh

        return mgh.write(voxels, path, source, provenance)
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
        raise UsageError(f"the output kind is {kind!r}; expected nifti, dicom, itk or mgh.")
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
