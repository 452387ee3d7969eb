"""An image in space, with what of it is compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtrans.preprocessing.foreground import find_foreground
from medtrans.volumes.geometry import Affine
from medtrans.volumes.voxels import Mask, Voxels

Places = NDArray[np.float64]
"""Points in RAS mm, shape (N, 4), the last of each row 1."""

_SHOWN = (0.5, 99.5)  # percentiles of the region between which intensities are told apart


class Placed(NamedTuple):
    """An image in space.

    Attributes
    ----------
    voxels : array of float32
        Shape (X, Y, Z).
    affine : array of float64
        Shape (4, 4), voxel to RAS mm.
    region : array of bool
        Shape (X, Y, Z): what is compared; some voxel is.
    """

    voxels: Voxels
    affine: Affine
    region: Mask

    @classmethod
    def of(cls, voxels: Voxels, affine: Affine) -> Placed:
        """Place voxels whose region is the patient; raises `FileError` if all are the same."""
        return cls(voxels, affine, find_foreground(voxels))

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """Centre of mass of the region, shape (3,)."""
        centre = ndimage.center_of_mass(self.region)
        return np.asarray((self.affine @ [*centre, 1])[:3], dtype=np.float64)

    @property
    def middle_mm(self) -> NDArray[np.float64]:
        """Middle of the grid, shape (3,)."""
        middle = (np.array(self.voxels.shape) - 1) / 2
        return np.asarray((self.affine @ [*middle, 1])[:3], dtype=np.float64)

    def window(self) -> tuple[float, float]:
        """Lowest and highest intensity that are told apart; the second is the higher one."""
        low, high = np.percentile(self.voxels[self.region], _SHOWN)
        return float(low), float(max(high, low + 1e-6 * max(1.0, abs(low))))

    def read(self, places: Places) -> tuple[Mask, Voxels]:
        """Interpolate linearly at places.

        Parameters
        ----------
        places : array
            Shape (N, 4).

        Returns
        -------
        (array of bool, array of float32)
            Which places the image has seen, shape (N,), and its values there, shape (n,).
        """
        at = (places @ np.linalg.inv(self.affine).T)[:, :3]
        inside = ((at >= -0.5) & (at <= np.array(self.voxels.shape) - 0.5)).all(axis=1)
        values = ndimage.map_coordinates(self.voxels, at[inside].T, order=1, mode="nearest")
        return np.asarray(inside), np.asarray(values, dtype=np.float32)
