"""An image on another grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medtrans.preprocessing.foreground import constant_background, find_foreground
from medtrans.volumes.geometry import Affine, spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

_FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, over its sigma


def resample(
    voxels: Voxels, affine: Affine, movement: Affine, shape: Sequence[int], grid: Affine
) -> Voxels:
    """Read an image at the voxels of another grid, with cubic splines.

    Along axes that become coarser it is smoothed first, to the thickness of the new slices. The
    overshoot of the splines is cut off at the image's own extremes, and an exact background stays
    exact, since the foreground is told by it. What the image has not seen is background.

    Parameters
    ----------
    voxels : array of float32
        Shape (X, Y, Z).
    affine : array
        Shape (4, 4), voxel of the image to RAS mm.
    movement : array
        Shape (4, 4), from a place on the grid to that of the image, RAS mm.
    shape : sequence of int
        Of the grid.
    grid : array
        Shape (4, 4), voxel of the grid to RAS mm.

    Returns
    -------
    array of float32
        Of the grid's shape.
    """
    to_voxel = np.linalg.inv(affine) @ movement @ grid
    background = constant_background(voxels)
    outside = float(voxels.min()) if background is None else background
    smooth = ndimage.gaussian_filter(voxels, _sigmas(affine, to_voxel))
    out = ndimage.affine_transform(
        smooth, to_voxel, output_shape=tuple(shape), order=3, mode="constant", cval=outside
    )
    out = np.clip(out, voxels.min(), voxels.max()).astype(np.float32)
    if background is not None:
        out[~resample_mask(find_foreground(voxels), to_voxel, shape)] = outside
    return np.asarray(out, dtype=np.float32)


def resample_mask(mask: Mask, to_voxel: Affine, shape: Sequence[int]) -> Mask:
    """Read a mask (X, Y, Z) on another grid, where it is the larger part of a voxel.

    Parameters
    ----------
    mask : array of bool
    to_voxel : array
        Shape (4, 4), voxel of the grid to voxel of the mask.
    shape : sequence of int
        Of the grid.
    """
    share = ndimage.affine_transform(
        mask.astype(np.float32), to_voxel, output_shape=tuple(shape), order=1
    )
    return np.asarray(share >= 0.5)


def _sigmas(affine: Affine, to_voxel: Affine) -> list[float]:
    """Smoothing along each axis of the image, in its voxels."""
    old = spacing_mm(affine)
    new = np.sqrt(((to_voxel[:3, :3] * old[:, None]) ** 2).max(axis=1))
    return [float(s) for s in np.sqrt(np.maximum(new**2 - old**2, 0)) / _FWHM / old]
