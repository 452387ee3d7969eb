"""From stored numbers to float32, the same way for every format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medtrans.errors import OutputError, UnreadableFileError
from medtrans.volumes.geometry import Affine
from medtrans.volumes.source import Source

Voxels = npt.NDArray[np.float32]
"""The voxels of a volume, shape (X, Y, Z), or of one slice of it."""
Mask = npt.NDArray[np.bool_]
"""One yes or no for each voxel."""
Stored = npt.NDArray[np.generic]
"""Voxels in the type of a file or of another library's image."""
Integers = npt.NDArray[np.integer]
"""Pixels as DICOM stores them."""

_LARGEST = float(np.finfo(np.float32).max)
_FEWEST_STEPS = 256  # what an 8-bit image has


@dataclass(frozen=True)
class Loaded:
    """A volume as read.

    Attributes
    ----------
    voxels : float32 array (X, Y, Z)
        In the file's own axis order.
    affine : float64 array (4, 4)
        Voxel to RAS+ mm.
    source : Source
        Where it came from.
    dtype : str
        The type on disk.
    """

    voxels: Voxels
    affine: Affine
    source: Source
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the voxels, (X, Y, Z)."""
        return self.voxels.shape


def to_float32(
    stored: Stored, slope: float, intercept: float, where: str
) -> tuple[Voxels, list[str]]:
    """Scale stored numbers in float64 and round once; replace NaN and infinity by 0.

    Parameters
    ----------
    stored
        Shape (X, Y, Z), any real type.
    slope, intercept
        value = slope x stored + intercept.
    where
        Path, for the sentence.

    Returns
    -------
    voxels : float32 array (X, Y, Z), C order
    warnings : list of str

    Raises
    ------
    UnreadableFileError
        If more than half of the voxels are not finite, or a finite one is too large for float32.
    """
    voxels = np.empty(stored.shape, dtype=np.float32)
    too_large = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(stored.shape[2]):  # one slice at a time keeps the float64 copy small
            plane = stored[:, :, k].astype(np.float64) * slope + intercept
            voxels[:, :, k] = plane
            too_large += int((np.isinf(voxels[:, :, k]) & np.isfinite(stored[:, :, k])).sum())
    if too_large:
        raise UnreadableFileError(
            f"{where}: {too_large} of {voxels.size} voxels are beyond {_LARGEST:.2g}, the largest "
            "number of 32 bits. Divide the image by a constant first."
        )
    return finite(voxels, where)


def finite(voxels: Voxels, where: str) -> tuple[Voxels, list[str]]:
    """Replace NaN and infinity by 0, in place, and say how many there were.

    Also says where so few steps are left between the lowest and the highest value that the
    image's contrast is lost.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z).
    where
        Path, for the sentence.

    Raises
    ------
    UnreadableFileError
        If more than half of the voxels are not finite.
    """
    bad = ~np.isfinite(voxels)
    count = int(bad.sum())
    if 2 * count > voxels.size:
        raise UnreadableFileError(
            f"{where}: {count} of {voxels.size} voxels are NaN or infinite; expected numbers. "
            "Make the image again, with a number for its background."
        )
    warnings = []
    if count:
        voxels[bad] = 0.0
        warnings.append(
            f"{where}: {count} of {voxels.size} voxels were NaN or infinite and were set to 0."
        )
    return voxels, [*warnings, *_warn_of_rounding(voxels, where)]


def in_file_order(voxels: Stored) -> Iterator[bytes]:
    """Yield the bytes of voxels, the first axis fastest, by plane: a whole copy may be gigabytes.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z), in the file's type and byte order.
    """
    for plane in np.moveaxis(np.atleast_1d(voxels), -1, 0):
        yield plane.tobytes(order="F")


def require_finite(voxels: Stored, what: str) -> None:
    """Refuse a result with NaN or infinity in it, so that none reaches a file.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z).
    what
        What they are, for the sentence.

    Raises
    ------
    OutputError
    """
    count = voxels.size - int(np.isfinite(voxels).sum())
    if count:
        raise OutputError(
            f"{what} has {count} of {voxels.size} voxels that are NaN or infinite, so nothing is "
            "written. Try --precision float32; if it stays, the model is damaged."
        )


def _warn_of_rounding(voxels: Voxels, where: str) -> list[str]:
    low, high = float(voxels.min()), float(voxels.max())
    step = float(np.spacing(np.float32(max(abs(low), abs(high)))))
    if low == high or (high - low) / step >= _FEWEST_STEPS:
        return []
    return [
        f"{where}: the values lie between {low:g} and {high:g}, so far from 0 that 32 bits leave "
        f"about {(high - low) / step:.0f} steps between them. Subtract a constant first."
    ]
