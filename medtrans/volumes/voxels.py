"""From stored numbers to float32, the same way for every format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medtrans.errors import UnreadableFileError
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
        If more than half of the voxels are not finite.
    """
    voxels = np.empty(stored.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(stored.shape[2]):  # one slice at a time keeps the float64 copy small
            voxels[:, :, k] = stored[:, :, k].astype(np.float64) * slope + intercept
    bad = ~np.isfinite(voxels)
    count = int(bad.sum())
    if 2 * count > voxels.size:
        raise UnreadableFileError(
            f"{where}: {count} of {voxels.size} voxels are NaN or infinite; expected numbers. "
            "Make the image again, with a number for its background."
        )
    if not count:
        return voxels, []
    voxels[bad] = 0.0
    return voxels, [
        f"{where}: {count} of {voxels.size} voxels were NaN or infinite and were set to 0."
    ]
