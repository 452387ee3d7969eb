"""Which voxels show the patient, and how far around them anything may be synthesised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from medtrans.config.schema import VolumeConfig
from medtrans.preprocessing.intensity import require_varied
from medtrans.volumes.voxels import Mask, Voxels

_CONSTANT_SHARE = 0.1  # a background value that fills this share of the volume was set by software
_OTSU_SAMPLES = 1_000_000  # voxels are enough for a histogram


@dataclass(frozen=True)
class Region:
    """Where the patient is in a volume, on the volume's grid.

    Attributes
    ----------
    foreground : array of bool
        Shape (X, Y, Z): the patient. Intensities are scaled by what is inside, and the networks
        see nothing else.
    margin : array of bool
        Shape (X, Y, Z): the foreground, dilated; what a crop keeps.
    support : array of bool
        Shape (X, Y, Z): where a result is not background. It is the margin around a foreground
        that was told from air by a threshold, which the dimmest tissue is below. What software
        masked out is not guessed at, and a mask that was given is not widened.
    masked : bool
        Whether software has masked the background out, as in a skull-stripped volume.
    mask_share : float or None
        Voxels of a given mask over those of the foreground that would have been found; None
        without a mask.
    """

    foreground: Mask
    margin: Mask
    support: Mask
    masked: bool
    mask_share: float | None = None


def find_region(
    image: Voxels, spacing_mm: Iterable[float], config: VolumeConfig, mask: Mask | None = None
) -> Region:
    """Find where the patient is, once for all that needs it.

    Parameters
    ----------
    image : array of float32
        Shape (X, Y, Z), any intensity unit.
    spacing_mm : iterable of float
        Along each axis of the array.
    config : VolumeConfig
        How far beyond the foreground a result may show anything.
    mask : array of bool, optional
        Shape (X, Y, Z): where the patient is, instead of finding it.

    Raises
    ------
    FileError
        When all voxels have the same value.
    """
    foreground, masked = _found(image)
    if mask is not None:
        share = int(mask.sum()) / max(int(foreground.sum()), 1)
        return Region(mask, dilate(mask, config.dilation_mm, spacing_mm), mask, masked, share)
    return _region(foreground, spacing_mm, config, masked=masked)


def region_within(mask: Mask, spacing_mm: Iterable[float], config: VolumeConfig) -> Region:
    """Make a region of a mask (X, Y, Z) as if software had masked out all that is outside.

    Parameters
    ----------
    mask : array of bool
        Shape (X, Y, Z).
    spacing_mm : iterable of float
        Along each axis of the array.
    config : VolumeConfig
        How far beyond it a result may show anything.
    """
    return _region(mask, spacing_mm, config, masked=True)


def find_foreground(image: Voxels) -> Mask:
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
    return _found(image)[0]


def constant_background(image: Voxels) -> float | None:
    """Return the exact value that surrounds a masked volume (X, Y, Z); None when there is none."""
    border = np.concatenate(
        [np.ravel(np.take(image, i, axis)) for axis in range(3) for i in (0, -1)]
    )
    value = float(np.median(border))
    return value if np.mean(image == value) >= _CONSTANT_SHARE else None


def _region(
    foreground: Mask, spacing_mm: Iterable[float], config: VolumeConfig, *, masked: bool
) -> Region:
    step_mm = tuple(spacing_mm)
    support = dilate(foreground, config.reach_mm(masked=masked), step_mm)
    margin = support | dilate(foreground, config.dilation_mm, step_mm)
    return Region(foreground, margin, support, masked)


def _found(image: Voxels) -> tuple[Mask, bool]:
    """Find the foreground; returns it, and whether the background was masked out."""
    require_varied(image)
    value = constant_background(image)
    mask = image != value if value is not None else _above_otsu(image)
    return _fill_holes(mask), value is not None


def dilate(mask: Mask, distance_mm: float, spacing_mm: Iterable[float]) -> Mask:
    """Grow a mask (X, Y, Z) by a distance along each axis; all lengths in mm."""
    radius = [int(np.floor(distance_mm / step + 1e-6)) for step in spacing_mm]
    grown: Mask = mask
    for axis, r in enumerate(radius):
        if r:
            grown = ndimage.maximum_filter1d(grown, 2 * r + 1, axis=axis, mode="constant")
    return grown


def _above_otsu(image: Voxels) -> Mask:
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
