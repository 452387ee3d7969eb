"""Which files a volume is read from: the one that is named, and those that belong to it."""

from __future__ import annotations

from pathlib import Path

from medtrans.volumes.files import kind_of
from medtrans.volumes.itk_header import read_header
from medtrans.volumes.source import require_there, split_suffix, unreadable_on_error

_HALVES = (".hdr", ".img", ".hdr.gz", ".img.gz")  # of a NIfTI pair


def files_of(path: Path) -> list[Path]:
    """List the files that a volume's voxels and place depend on.

    Parameters
    ----------
    path
        What `read_volume` takes.

    Returns
    -------
    list of Path
        In a fixed order: the file itself; both halves of a NIfTI pair; an ITK header and its
        file of voxels; every file of a DICOM folder.

    Raises
    ------
    UnreadableFileError, GeometryError
        If the file is missing, or a header that names its file of voxels is damaged.
    """
    require_there(path)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    stem, suffix = split_suffix(path)
    if suffix.lower() in _HALVES:
        halves = [path.with_name(stem + half) for half in _HALVES]
        return [half for half in halves if half.exists()]
    if kind_of(path) != "itk":
        return [path]
    with unreadable_on_error(path):
        return [path, *({read_header(path).data} - {path})]
