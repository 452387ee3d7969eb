"""Which voxels show the patient, and how far around them anything may be synthesised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from medtrans.errors import FileError
from medtrans.volumes.voxels import Mask

_CONSTANT_SHARE = 0.1  # a background value that fills this share of the volume was set by software
_OTSU_SAMPLES = 1_000_000  # voxels are enough for a histogram


def find_foreground(image: NDArray[np.float32]) -> Mask:
    """Tell the patient from the background, with no assumption about its value.

    A skull-stripped or masked volume has one exact background value on its border, which need not
    be 0: every other voxel is foreground. A volume with air around the head has none: then it
    is the largest component above Otsu's threshold. Holes are filled slice by slice, so that dark
    fluid and air inside the head count as foreground.

    Parameters
    ----------
    image : array of float32
        Shape (X, Y, Z), any intensity unit.

    Returns
    -------
    array of bool
        Shape (X, Y, Z).

    Raises
    ------
    FileError
        When all voxels have the same value.
    """
    if image.min() == image.max():
        raise FileError(
            f"All {image.size} voxels have the value {image.flat[0]:g}: there is nothing to "
            "translate. Check that this is the right file."
        )
    value = constant_background(image)
    mask = image != value if value is not None else _above_otsu(image)
    return _fill_holes(mask)


def constant_background(image: NDArray[np.float32]) -> float | None:
    """Return the exact value that surrounds a masked volume, or None when there is none."""
    border = np.concatenate(
        [np.ravel(np.take(image, i, axis)) for axis in range(3) for i in (0, -1)]
    )
    value = float(np.median(border))
    return value if np.mean(image == value) >= _CONSTANT_SHARE else None


def dilate(mask: Mask, distance_mm: float, spacing_mm: tuple[float, ...]) -> Mask:
    """Grow a mask by a distance along each axis, in mm."""
    radius = [int(np.floor(distance_mm / step + 1e-6)) for step in spacing_mm]
    grown: Mask = mask
    for axis, r in enumerate(radius):
        if r:
            grown = ndimage.maximum_filter1d(grown, 2 * r + 1, axis=axis, mode="constant")
    return grown


def _above_otsu(image: NDArray[np.float32]) -> Mask:
    step = max(1, image.size // _OTSU_SAMPLES)
    mask = image > threshold_otsu(image.ravel()[::step])
    labels, count = ndimage.label(mask)
    if count <= 1:
        return np.asarray(mask)
    largest = int(np.argmax(np.bincount(labels.ravel())[1:])) + 1
    return np.asarray(labels == largest)


def _fill_holes(mask: Mask) -> Mask:
    """Fill holes in each plane across the last axis; one plane's holes are cheap to find."""
    filled = mask.copy()
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        filled[..., z] = ndimage.binary_fill_holes(mask[..., z])
    return filled
