"""Fields of a NIfTI header that are plain numbers, each checked or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import geometry


class Fields(Protocol):
    """A header: values by field name."""

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]: ...


def declared_shape(fields: Fields, path: Path) -> tuple[int, ...]:
    """Shape of 2 to 4 axes that the field dim declares.

    Raises
    ------
    GeometryError
        If dim counts other axes, or an axis has no voxel.
    """
    dims = [int(n) for n in fields["dim"]]
    count = dims[0]
    if not 1 <= count <= 7 or any(n < 1 for n in dims[1 : count + 1]):
        raise GeometryError(
            f"{path}: the header field dim is {dims[: count + 1] if 1 <= count <= 7 else dims}; "
            "expected 2 to 4 axes of at least 1 voxel. The header is damaged: convert it again."
        )
    shape = dims[1 : count + 1]
    while len(shape) > 4 and shape[-1] == 1:
        shape.pop()
    if not 2 <= len(shape) <= 4:
        raise GeometryError(
            f"{path}: expected an image of 2 or 3 axes, or 4 with time, found the shape "
            f"{geometry.grid(shape)}. Split the file into scalar 3D volumes."
        )
    return tuple(shape)


def voxel_offset(fields: Fields, path: Path, least: int) -> int:
    """First byte of the voxels, from the field vox_offset.

    Parameters
    ----------
    fields, path
        The header, and its file for the sentence.
    least
        The first byte after the header.

    Raises
    ------
    UnreadableFileError
        If it is no whole number, lies inside the header, or is above 2 GiB.
    """
    offset = float(fields["vox_offset"])
    if not np.isfinite(offset) or offset != int(offset) or not least <= offset <= 2**31:
        raise UnreadableFileError(
            f"{path}: the header field vox_offset is {offset:g}; expected a whole number from "
            f"{least} on. The header is damaged: convert it again."
        )
    return int(offset)


def choose_volume(shape: tuple[int, ...], volume: int | None, path: Path) -> tuple[int, int]:
    """Index of the volume to read, and how many there are.

    Parameters
    ----------
    shape
        2 to 4 axes, the fourth for the volumes.
    volume
        Which one is asked for, from 0; None where there should be one only.
    path
        The file, for the sentence.

    Raises
    ------
    GeometryError
        If there are several and none is chosen, or there is no such one.
    """
    count = shape[3] if len(shape) == 4 else 1
    if volume is None and count > 1:
        raise GeometryError(
            f"{path}: expected one volume, found {count} ({geometry.grid(shape)}). "
            f"Pick one with --volume 0 to {count - 1}."
        )
    if volume is not None and not 0 <= volume < count:
        raise GeometryError(
            f"{path}: there is no volume {volume}; the file has {count}, counted from 0. "
            f"Pick one with --volume 0 to {count - 1}."
        )
    return volume or 0, count


def scaling(fields: Fields, path: Path) -> tuple[float, float]:
    """Slope and intercept: value = slope x stored + intercept.

    By the standard a slope of 0 means that there is no scaling; writers also use NaN for that.

    Raises
    ------
    UnreadableFileError
        If they are not finite.
    """
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not np.isfinite(slope) or np.isinf(intercept):
        raise UnreadableFileError(
            f"{path}: the header fields scl_slope and scl_inter are {slope:g} and {intercept:g}; "
            "expected finite numbers. The header is damaged: convert it again."
        )
    return slope, 0.0 if np.isnan(intercept) else intercept
