"""What `medtrans info` says about a file or folder: facts without a word of free text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medtrans.errors import FileError, MedtransError
from medtrans.volumes import contrast, geometry
from medtrans.volumes.files import kind_of, load
from medtrans.volumes.source import split_suffix


def describe(
    path: str | os.PathLike[str], *, series: str | None = None, volume: int | None = None
) -> dict[str, Any]:
    """Describe a file or folder, and every problem with it, each with its remedy.

    Parameters
    ----------
    path
        A file or folder, as for `read_volume`.
    series
        Which series of a DICOM folder.
    volume
        Which volume of several, from 0.

    Returns
    -------
    dict
        ``path``, ``kind``, ``readable`` and ``problems`` (sentences) always. ``series`` for
        DICOM. ``shape``, ``spacing_mm``, ``orientation``, ``affine``, ``value_range``,
        ``stored_dtype``, ``sha256`` where it is readable. ``contrast`` where it can be told,
        else None. All of it fits into JSON, and none of it is free text of the header.

    Raises
    ------
    UnreadableFileError
        If there is no such file or folder; any other fault is reported as a problem.
    """
    path = Path(path)
    if not path.exists():
        load(path, None, None)
    facts: dict[str, Any] = {"path": str(path), "kind": None, "readable": False, "problems": []}
    try:
        facts["kind"] = kind_of(path)
        if facts["kind"] == "dicom":
            facts |= _dicom(path, series)
        else:
            facts["contrast"] = contrast.from_name(split_suffix(path)[0])
        facts |= _volume(path, series, volume)
    except MedtransError as error:
        if not isinstance(error, FileError):
            raise
        facts["problems"] = [str(error)]
    return facts


def _volume(path: Path, series: str | None, volume: int | None) -> dict[str, Any]:
    loaded = load(path, series, volume)
    low, high = float(loaded.voxels.min()), float(loaded.voxels.max())
    empty = [f"{path}: all voxels have the value {low:g}. Check that this is the right file."]
    return {
        "readable": True,
        "shape": list(loaded.source.shape),
        "spacing_mm": geometry.spacing_mm(loaded.affine).tolist(),
        "orientation": geometry.orientation(loaded.affine),
        "affine": loaded.affine.tolist(),
        "value_range": [low, high],
        "stored_dtype": loaded.dtype,
        "sha256": loaded.source.sha256,
        "problems": list(loaded.source.warnings) + (empty if low == high else []),
    }


def _dicom(path: Path, wanted: str | None) -> dict[str, Any]:
    from medtrans.volumes.dicom import read as dicom_read

    found = dicom_read.list_series(path)
    listed = [
        {
            "number": one.number,
            "uid": one.uid,
            "modality": one.modality,
            "files": len(one.files),
            "contrast": one.contrast,
        }
        for one in found
    ]
    chosen = [one for one in found if wanted is None or wanted in (one.uid, one.number)]
    return {"series": listed, "contrast": chosen[0].contrast if len(chosen) == 1 else None}
