"""Between a volume's own grid and the finder's: RAS, 3 mm, cut to what shows anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

_MARGIN_MM = 12.0  # around what is brighter than air


@dataclass(frozen=True)
class Coarse:
    """A volume on the finder's grid.

    Attributes
    ----------
    voxels : array of float32
        Shape (X, Y, Z), RAS; the volume's darkest value where it shows nothing.
    seen : array of bool
        Shape (X, Y, Z): inside the volume's field of view.
    affine : array of float64
        Shape (4, 4): voxel to RAS mm.
    """

    voxels: Voxels
    seen: Mask
    affine: npt.NDArray[np.float64]


def coarsen(voxels: Voxels, affine: npt.NDArray[np.float64], step_mm: float) -> Coarse:
    """Bring a volume to an upright grid.

    Parameters
    ----------
    voxels : array of float32
        Shape (X, Y, Z).
    affine : array of float64
        Shape (4, 4): voxel to RAS mm.
    step_mm : float
        The grid's spacing along each axis.
    """
    means, placed = _block_means(voxels, affine, step_mm)
    low, high = _box_mm(means, placed)
    size = np.ceil((high - low) / step_mm).astype(int)
    start = (low + high) / 2 - step_mm * (size - 1) / 2
    grid = np.diag([step_mm, step_mm, step_mm, 1.0])
    grid[:3, 3] = start
    image = _resampled(means, placed, grid, size, float(means.min()))
    seen = _resampled(np.ones_like(means), placed, grid, size, 0.0) > 0.9
    return Coarse(image, seen, grid)


def refine(
    share: Voxels, coarse: Coarse, affine: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> Mask:
    """Return where a share (X, Y, Z) on the coarse grid is above a half, on a volume's grid.

    Plane by plane, so that a large volume takes no more memory than its mask.
    """
    way = np.linalg.inv(coarse.affine) @ affine
    mask = np.zeros(shape, dtype=bool)
    for z in range(shape[2]):
        shift = way[:3, 3] + way[:3, 2] * z
        places = (
            way[:3, 0, None, None] * np.arange(shape[0])[:, None]
            + way[:3, 1, None, None] * np.arange(shape[1])
            + shift[:, None, None]
        )
        mask[..., z] = ndimage.map_coordinates(share, places, order=1) > 0.5
    return mask


def _block_means(
    voxels: Voxels, affine: npt.NDArray[np.float64], step_mm: float
) -> tuple[Voxels, npt.NDArray[np.float64]]:
    """Average blocks of voxels that together are no longer than a step, so that nothing aliases."""
    fits = np.floor(step_mm / spacing_mm(affine) + 0.01).astype(int)
    block = np.clip(fits, 1, voxels.shape)
    kept = [n - n % b for n, b in zip(voxels.shape, block, strict=True)]
    parts = voxels[: kept[0], : kept[1], : kept[2]].reshape(
        kept[0] // block[0], block[0], kept[1] // block[1], block[1], kept[2] // block[2], block[2]
    )
    placed = affine.astype(np.float64).copy()
    placed[:3, :3] *= block
    placed[:3, 3] += affine[:3, :3] @ ((block - 1) / 2)
    return parts.mean(axis=(1, 3, 5), dtype=np.float32), placed


def _box_mm(
    voxels: Voxels, affine: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the corners, in mm, of a box around all that is brighter than air."""
    shown = voxels > threshold_otsu(voxels.ravel())
    ends = [np.flatnonzero(shown.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3)]
    corners = np.stack(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    return world.min(axis=1) - _MARGIN_MM, world.max(axis=1) + _MARGIN_MM


def _resampled(
    voxels: Voxels,
    affine: npt.NDArray[np.float64],
    grid: npt.NDArray[np.float64],
    size: npt.NDArray[np.int_],
    outside: float,
) -> Voxels:
    way = np.linalg.inv(affine) @ grid
    resampled = ndimage.affine_transform(
        voxels, way[:3, :3], way[:3, 3], tuple(size), order=1, mode="constant", cval=outside
    )
    return np.asarray(resampled, dtype=np.float32)
