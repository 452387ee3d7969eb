"""The files of a volume that was aligned, and the JSON that vouches for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from medtrans.data.manifest import Entry
from medtrans.errors import OutputError
from medtrans.registration.similarity import Similarity
from medtrans.system.atomic import replacing
from medtrans.version import __version__
from medtrans.volumes import nifti, stream
from medtrans.volumes.geometry import Affine
from medtrans.volumes.sidecar import read_sidecar
from medtrans.volumes.voxels import Stored

_LABEL = b"ACQUIRED, processed by medtrans align; not the original"
_NOTICE = "An acquired image, {}: not the original, and not synthetic."


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


def volume_file(target: Path) -> Path:
    return target.with_name(target.name + ".nii.gz")


def mask_file(target: Path) -> Path:
    return target.with_name(target.name + "_mask.nii.gz")


def picture_file(target: Path) -> Path:
    return target.with_name(target.name + ".png")


def _record_file(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def picture_of(folder: Path, aligned: Aligned) -> Path:
    """Where the checkerboard of a pair is."""
    return folder / str(aligned.record["Picture"])


def earlier_result(entry: Entry, target: Path, key: str) -> Aligned | None:
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
    volume, mask = volume_file(target), mask_file(target)
    return Aligned(
        volume if volume.name in files else entry.path,
        mask if mask.name in files else entry.mask,
        record,
        anew,
    )


def write_result(
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
        "Picture": picture_file(target).name,
    }
    with replacing(_record_file(target)) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return _result(entry, target, record, anew=True)
