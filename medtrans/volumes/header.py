"""The shape of a volume in a file, from its header alone."""

from __future__ import annotations

from pathlib import Path

from medtrans.errors import UnreadableFileError
from medtrans.volumes.files import kind_of
from medtrans.volumes.source import READABLE, require_file, unreadable_on_error


def shape_of(path: Path) -> tuple[int, ...]:
    """Read the shape that a sound header declares; whether the voxels are whole is not looked at.

    Parameters
    ----------
    path
        A NIfTI, MHA, MHD, NRRD, MGH or MGZ file.

    Returns
    -------
    tuple of int
        Two to four axes.

    Raises
    ------
    UnreadableFileError, GeometryError
        As the reader of the file would.
    """
    require_file(path)
    kind = kind_of(path)
    if kind == "nifti":
        from medtrans.volumes import nifti

        return nifti.shape_of(path)
    with unreadable_on_error(path):
        if kind == "itk":
            from medtrans.volumes.itk_header import read_header as read_itk

            return read_itk(path).shape
        if kind == "mgh":
            from medtrans.volumes.mgh import read_header as read_mgh

            return read_mgh(path).shape
    raise UnreadableFileError(f"{path}: expected {READABLE}, found something else.")
