"""What `medtrans info` says about a file or folder: facts without a word of free text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NotRequired, TypedDict

from medtrans.config.terms import Contrast, Kind
from medtrans.errors import FileError
from medtrans.volumes import contrast, geometry
from medtrans.volumes.files import kind_of, load
from medtrans.volumes.source import require_there, split_suffix
from medtrans.volumes.voxels import Loaded


class SeriesFacts(TypedDict):
    """One series of a DICOM file or folder."""

    number: str
    uid: str
    modality: str
    files: int
    contrast: Contrast | None


class Facts(TypedDict):
    """What `describe` says; all of it fits into JSON, and none of it is free text of the header.

    Attributes
    ----------
    path, kind
        What was named, and what reads it; None if nothing does.
    readable, problems
        Whether there is a volume, and what is wrong or odd, a sentence each with its remedy.
    contrast
        What it shows; None where that cannot be told, or where there are several series.
    series
        Of DICOM.
    shape, spacing_mm, orientation, affine, value_range, stored_dtype, sha256
        Of a readable volume: its shape on disk, its affine (voxel to RAS+ mm) row by row, the
        anatomical direction of each axis, its lowest and highest voxel.
    """

    path: str
    kind: Kind | None
    readable: bool
    problems: list[str]
    contrast: NotRequired[Contrast | None]
    series: NotRequired[list[SeriesFacts]]
    shape: NotRequired[list[int]]
    spacing_mm: NotRequired[list[float]]
    orientation: NotRequired[str]
    affine: NotRequired[list[list[float]]]
    value_range: NotRequired[list[float]]
    stored_dtype: NotRequired[str]
    sha256: NotRequired[str]


def describe(
    path: str | os.PathLike[str], *, series: str | None = None, volume: int | None = None
) -> Facts:
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
    Facts

    Raises
    ------
    UnreadableFileError
        If there is no such file or folder; any other fault is reported as a problem.
    """
    path = Path(path)
    require_there(path)
    facts: Facts = {"path": str(path), "kind": None, "readable": False, "problems": []}
    try:
        facts["kind"] = kind_of(path)
        if facts["kind"] == "dicom":
            _add_series(facts, path, series)
        else:
            facts["contrast"] = contrast.from_name(split_suffix(path)[0])
        _add_volume(facts, load(path, series, volume))
    except FileError as error:
        facts["problems"] = [str(error)]
    return facts


def _add_series(facts: Facts, path: Path, requested: str | None) -> None:
    from medtrans.volumes.dicom.archive import unpacked
    from medtrans.volumes.dicom.series import list_series, matching

    with unpacked(path) as place:
        present = list_series(place)
    facts["series"] = [
        {
            "number": series.number,
            "uid": series.uid,
            "modality": series.modality,
            "files": len(series.files),
            "contrast": series.contrast,
        }
        for series in present
    ]
    chosen = matching(present, requested)
    facts["contrast"] = chosen[0].contrast if len(chosen) == 1 else None


def _add_volume(facts: Facts, loaded: Loaded) -> None:
    low, high = float(loaded.voxels.min()), float(loaded.voxels.max())
    facts["readable"] = True
    facts["shape"] = list(loaded.source.shape)
    facts["spacing_mm"] = geometry.spacing_mm(loaded.affine).tolist()
    facts["orientation"] = geometry.orientation(loaded.affine)
    facts["affine"] = loaded.affine.tolist()
    facts["value_range"] = [low, high]
    facts["stored_dtype"] = loaded.dtype
    facts["sha256"] = loaded.source.sha256
    facts["problems"] = list(loaded.source.warnings)
    if low == high:
        facts["problems"].append(
            f"{facts['path']}: all voxels have the value {low:g}. Check that this is the right "
            "file."
        )
