"""One volume brought onto the grid of another one of the same patient, with all that says how.

What is written is an acquired image at other places, no synthetic one and not the original: its
name ends in ``_resampled`` (or ``_n4``), its header says so, and the JSON beside it holds the
movement. That JSON is also how a rerun knows what is done.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from medtrans.errors import GeometryError
from medtrans.registration.picture import save_checkerboard
from medtrans.registration.placed import Placed
from medtrans.registration.records import (
    Aligned,
    earlier_result,
    mask_file,
    picture_file,
    volume_file,
    write_result,
)
from medtrans.registration.resampling import resample, resample_mask
from medtrans.registration.rigid import register
from medtrans.registration.similarity import similarity
from medtrans.registration.subject import Subject
from medtrans.system.atomic import make_folder
from medtrans.volumes import geometry, read_volume
from medtrans.volumes.geometry import Affine
from medtrans.volumes.voxels import Stored

_FORMAT = 1  # raise when the results change, so that old ones are made anew


def align(moving: Subject, reference: Subject, folder: Path, *, n4: bool = False) -> Aligned:
    """Bring a volume onto the reference's grid, unless it lies there or that is done.

    Parameters
    ----------
    moving, reference : Subject
        Two contrasts of one patient and session.
    folder : Path
        Gets the picture, the JSON and, where there is a new one, the volume.
    n4 : bool
        Whether to write the volume without its bias field.

    Raises
    ------
    FileError
        When a volume cannot be read or registered, or a file is in the way.
    """
    key = _key(moving, reference, n4)
    stem = folder / f"{moving.entry.contrast}_on-{reference.entry.contrast}"
    for end in ("", "_n4", "_resampled", "_resampled_n4"):
        earlier = earlier_result(moving.entry, stem.with_name(stem.name + end), key)
        if earlier is not None:
            return earlier
    fixed, placed = reference.placed, moving.placed
    resampled = not _on_one_grid(fixed, placed)
    movement = _registered(fixed, placed, moving.entry.path) if resampled else np.eye(4)
    found = similarity(fixed, placed, movement)
    end = "_resampled" * resampled + "_n4" * n4
    files: dict[Path, Stored] = {}
    voxels = moving.corrected if n4 else placed.voxels
    target = stem.with_name(stem.name + end)
    if resampled:
        shape = fixed.voxels.shape
        voxels = resample(voxels, placed.affine, movement, shape, fixed.affine)
        if moving.entry.mask is not None:
            mask = read_volume(moving.entry.mask).numpy() > 0
            to_voxel = np.linalg.inv(placed.affine) @ movement @ fixed.affine
            files[mask_file(target)] = resample_mask(mask, to_voxel, shape).astype(np.uint8)
    if end:
        files[volume_file(target)] = voxels
    record = {
        "Resampled": resampled,
        "BiasFieldCorrected": n4,
        "Contrast": moving.entry.contrast,
        "OnGridOf": reference.entry.contrast,
        "Movement": movement.tolist(),
        "MovementMeans": "from a place on this grid to that in the original, RAS mm",
        "CentreMm": fixed.centre_mm.tolist(),
        "Interpolation": "cubic spline" if resampled else "none",
        "Similarity": found._asdict(),
    }
    make_folder(folder)
    names = (reference.entry.contrast, moving.entry.contrast)
    save_checkerboard(picture_file(target), fixed, placed, movement, names)
    return write_result(moving.entry, target, files, record | {"Key": key}, fixed.affine)


def corrected(subject: Subject, folder: Path) -> Aligned:
    """Write a volume without its bias field, on its own grid, unless that is done.

    Parameters and errors are those of `align`.
    """
    key = _key(subject, subject, True)
    target = folder / f"{subject.entry.contrast}_n4"
    earlier = earlier_result(subject.entry, target, key)
    if earlier is not None:
        return earlier
    record: dict[str, object] = {
        "Resampled": False,
        "BiasFieldCorrected": True,
        "Contrast": subject.entry.contrast,
        "Key": key,
    }
    make_folder(folder)
    files: dict[Path, Stored] = {volume_file(target): subject.corrected}
    return write_result(subject.entry, target, files, record, subject.placed.affine)


def _registered(fixed: Placed, moving: Placed, path: Path) -> Affine:
    for placed in (fixed, moving):
        if min(placed.voxels.shape) < geometry.MIN_SLICES:
            raise GeometryError(
                f"{path}: a volume of {geometry.grid(placed.voxels.shape)} voxels is too thin to "
                "be registered in space. Register single slices with another tool."
            )
    return register(fixed, moving)


def _key(moving: Subject, reference: Subject, n4: bool) -> str:
    facts = [_FORMAT, moving.state(), reference.state(), n4]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _on_one_grid(a: Placed, b: Placed) -> bool:
    if a.voxels.shape != b.voxels.shape:
        return False
    distance = geometry.corner_distance_mm(a.affine, b.affine, a.voxels.shape)
    return distance <= geometry.SAME_GRID_MM
