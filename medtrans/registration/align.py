"""One volume brought onto the grid of another one of the same patient, with all that says how.

What is written is an acquired image at other places, no synthetic one and not the original: its
name ends in ``_resampled`` (or ``_n4``), its header says so, and the JSON beside it holds the
movement. That JSON is also how a rerun knows what is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from medtrans.data.manifest import Entry
from medtrans.errors import GeometryError, OutputError
from medtrans.registration.picture import save_checkerboard
from medtrans.registration.placed import Placed
from medtrans.registration.resampling import resample, resample_mask
from medtrans.registration.rigid import register, without_bias_field
from medtrans.registration.similarity import Similarity, similarity
from medtrans.system.atomic import make_folder, replacing
from medtrans.version import __version__
from medtrans.volumes import geometry, nifti, read_volume, require_same_grid, stream
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.geometry import Affine
from medtrans.volumes.parts import files_of
from medtrans.volumes.sidecar import read_sidecar
from medtrans.volumes.source import unreadable_on_error
from medtrans.volumes.voxels import Stored, Voxels

_FORMAT = 1  # raise when the results change, so that old ones are made anew
_LABEL = b"ACQUIRED, processed by medtrans align; not the original"
_NOTICE = "An acquired image, {}: not the original, and not synthetic."
_SMALL_MASK = 0.1  # of the foreground: a smaller one marks a lesion, not what to register by


class Subject:
    """A volume of the manifest, read when it is needed, and once."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    @cached_property
    def placed(self) -> Placed:
        """The volume; its region is the manifest's mask, or else the patient."""
        self.entry.verify()
        volume = read_volume(self.entry.path)
        placed = Placed.of(volume.numpy(), np.asarray(volume.affine, dtype=np.float64))
        if self.entry.mask is None:
            return placed
        mask = read_volume(self.entry.mask)
        require_same_grid(mask, volume, f"The mask {self.entry.mask} and {self.entry.path}")
        region = mask.numpy() > 0
        is_small = region.sum() < _SMALL_MASK * placed.region.sum()
        return placed if is_small else placed._replace(region=region)

    @cached_property
    def corrected(self) -> Voxels:
        """The voxels without the bias field, where the image has one: not in HU."""
        voxels = self.placed.voxels
        if in_hu(float(voxels.min())):
            return voxels
        return without_bias_field(voxels, self.placed.affine, self.placed.region)

    def state(self) -> list[object]:
        """Name, size and time of the last change of every file of it."""
        paths = [self.entry.path, *([self.entry.mask] if self.entry.mask else [])]
        states: list[object] = []
        for path in paths:
            with unreadable_on_error(path):
                states += [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns)
                           for f in files_of(path)]  # fmt: skip
        return states


@dataclass(frozen=True)
class Aligned:
    """What became of a volume.

    Attributes
    ----------
    volume : Path
        Where the volume is that lies on the reference's grid: the original, or what was written.
    mask : Path or None
        Its mask.
    record : mapping
        The entries of the JSON beside it.
    anew : bool
        Whether it was computed now.
    """

    volume: Path
    mask: Path | None
    record: Mapping[str, Any]
    anew: bool

    @property
    def similarity(self) -> Similarity:
        """How well it fits the reference."""
        return Similarity(**self.record["Similarity"])

    @property
    def movement(self) -> Affine:
        """From a place on the reference's grid to that of the original, (4, 4), RAS mm."""
        return np.array(self.record["Movement"])

    @property
    def is_resampled(self) -> bool:
        """Whether it lay on another grid."""
        return bool(self.record["Resampled"])


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
        earlier = _earlier(moving.entry, stem.with_name(stem.name + end), key)
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
            files[_mask_file(target)] = resample_mask(mask, to_voxel, shape).astype(np.uint8)
    if end:
        files[_volume_file(target)] = voxels
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
    save_checkerboard(_picture_file(target), fixed, placed, movement, names)
    return _written(moving.entry, target, files, record | {"Key": key}, fixed.affine)


def corrected(subject: Subject, folder: Path) -> Aligned:
    """Write a volume without its bias field, on its own grid, unless that is done.

    Parameters and errors are those of `align`.
    """
    key = _key(subject, subject, True)
    target = folder / f"{subject.entry.contrast}_n4"
    earlier = _earlier(subject.entry, target, key)
    if earlier is not None:
        return earlier
    record = {
        "Resampled": False,
        "BiasFieldCorrected": True,
        "Contrast": subject.entry.contrast,
        "Key": key,
    }
    make_folder(folder)
    files: dict[Path, Stored] = {_volume_file(target): subject.corrected}
    return _written(subject.entry, target, files, record, subject.placed.affine)


def _on_one_grid(a: Placed, b: Placed) -> bool:
    if a.voxels.shape != b.voxels.shape:
        return False
    distance = geometry.corner_distance_mm(a.affine, b.affine, a.voxels.shape)
    return distance <= geometry.SAME_GRID_MM


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


def _volume_file(target: Path) -> Path:
    return target.with_name(target.name + ".nii.gz")


def _mask_file(target: Path) -> Path:
    return target.with_name(target.name + "_mask.nii.gz")


def _picture_file(target: Path) -> Path:
    return target.with_name(target.name + ".png")


def _record_file(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def picture_of(folder: Path, aligned: Aligned) -> Path:
    """Where the checkerboard of a pair is."""
    return folder / str(aligned.record["Picture"])


def _earlier(entry: Entry, target: Path, key: str) -> Aligned | None:
    """Find a whole and unchanged result of the same inputs."""
    record = read_sidecar(_record_file(target))
    if record is None or record.get("Key") != key:
        return None
    files = cast("dict[str, str]", record.get("FilesSHA256", {}))
    for name, digest in files.items():
        file = target.with_name(name)
        if not file.is_file() or stream.sha256(file) != digest:
            return None
    return _result(entry, target, record, anew=False)


def _result(entry: Entry, target: Path, record: Mapping[str, Any], *, anew: bool) -> Aligned:
    files = record["FilesSHA256"]
    volume, mask = _volume_file(target), _mask_file(target)
    return Aligned(
        volume if volume.name in files else entry.path,
        mask if mask.name in files else entry.mask,
        record,
        anew,
    )


def _written(
    entry: Entry, target: Path, files: dict[Path, Stored], facts: dict[str, object], grid: Affine
) -> Aligned:
    """Write the volumes and, last, the JSON that vouches for them."""
    ours = read_sidecar(_record_file(target)) is not None
    for file in (*files, _record_file(target)):
        if file.exists() and not ours:
            raise OutputError(
                f"{file} exists, and medtrans align did not write it. Choose another folder for "
                "--out."
            )
    for file, voxels in files.items():
        nifti.save_array(file, voxels, grid, _LABEL)
    what = " and ".join(
        word
        for word, holds in (
            ("resampled", facts["Resampled"]),
            ("corrected for its bias field", facts["BiasFieldCorrected"]),
        )
        if holds
    )
    record = {
        "Synthetic": False,
        "Notice": _NOTICE.format(what) if what else "What medtrans align found; no image.",
        "GeneratedBy": [{"Name": "medtrans", "Version": __version__}],
        **facts,
        "FilesSHA256": {file.name: stream.sha256(file) for file in files},
        "Picture": _picture_file(target).name,
    }
    with replacing(_record_file(target)) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return _result(entry, target, record, anew=True)
