"""Random scans of label maps: any contrast, resolution, position and field of view.

After SynthStrip (Hoopes et al., NeuroImage 2022): what never looks alike but for its shapes
leaves a network nothing to learn but these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.brain.labels import STEP_MM, HeadMap
from medtrans.brain.network import GRID_MM, scaled
from medtrans.volumes.voxels import Voxels as Volume

SHAPE = (64, 80, 80)


@dataclass(frozen=True)
class Odds:
    """How often a scan has what not every scan has."""

    stripped: float = 0.06
    no_brain: float = 0.05
    turned: float = 0.03  # by a multiple of 90°
    cropped: float = 0.5
    thick: float = 0.5
    real: float = 0.85  # intensities, of a head that has them
    neck: float = 0.5  # drawn below a scan that ends at the skull base
    smeared: float = 0.2  # tissues outside the brain broken up


ODDS = Odds()


def scan(head: HeadMap, rng: np.random.Generator, odds: Odds = ODDS) -> tuple[Volume, Volume]:
    """Draw a scan: the image and the share of brain in each voxel, both of `SHAPE` at 3 mm."""
    if head.images and rng.random() < odds.neck:
        head = longer(head, rng)
    image, brain = _contrast(head, rng, odds), head.brain.astype(np.float32)
    if rng.random() < odds.stripped:
        image = np.where(head.brain, image + 0.1, 0)
    empty = rng.random() < odds.no_brain
    shift = _away(rng) if empty else rng.normal(0, 4, 3)
    places = _places(image.shape, shift, rng, odds)
    image = ndimage.map_coordinates(image, places, order=1, mode="constant")
    brain = ndimage.map_coordinates(brain, places, order=1, mode="constant")
    image = _scanned(image, rng, odds)
    if rng.random() < odds.cropped:
        outside = _outside(rng)
        image[outside] = 0
        brain[outside] = 0
    return scaled(image), np.asarray(brain, np.float32)


def _contrast(head: HeadMap, rng: np.random.Generator, odds: Odds) -> Volume:
    """Give each tissue an intensity, or a real scan another tone curve."""
    if head.images and rng.random() < odds.real:
        image = head.images[rng.integers(len(head.images))]
        image = np.clip(image / np.percentile(image, 99.7), 0, 1)
        knots = np.sort(rng.random(5)) if rng.random() < 0.5 else np.linspace(0, 1, 5)
        if rng.random() < 0.15:
            knots = rng.random(5)
        knots[0] = 0
        return np.interp(image, np.linspace(0, 1, 5), knots).astype(np.float32)
    labels = head.labels.astype(np.int16)
    count = int(labels.max()) + 1
    if rng.random() < odds.smeared:
        outside = (labels > 0) & ~head.brain
        labels = np.where(
            outside & (_smooth(labels.shape, rng, rng.integers(4, 16)) > 0), labels + count, labels
        )
    means = rng.uniform(0, 1, 2 * count)
    means[[0, count]] = rng.uniform(0, 0.05) if rng.random() < 0.8 else rng.uniform(0, 0.3)
    spreads = rng.uniform(0, 0.08, 2 * count)
    spreads[0] = rng.uniform(0, 0.01)
    noise = rng.standard_normal(labels.shape, np.float32)
    image = means.astype(np.float32)[labels] + spreads.astype(np.float32)[labels] * noise
    return np.asarray(ndimage.gaussian_filter(image, rng.uniform(0.2, 0.6)), np.float32)


def longer(head: HeadMap, rng: np.random.Generator) -> HeadMap:
    """Draw a neck: the lowest slice again and again, narrower, shifted and without brain."""
    lowest = int(np.flatnonzero((head.labels > 0).any(axis=(0, 1)))[0]) + 1
    near = ndimage.distance_transform_edt(
        head.brain[..., lowest], return_distances=False, return_indices=True
    )
    planes = [head.labels, *head.images]
    base = [plane[..., lowest][tuple(near)] for plane in planes]
    out = [plane.copy() for plane in planes]
    size = np.array(base[0].shape)
    drift, shrink = rng.normal(0, 0.3, 2), rng.uniform(-0.004, 0.012)
    texture = rng.integers(2, 14)
    bend = [_smooth((*size, lowest + 1), rng, texture) for _ in range(2)]
    strength = rng.uniform(0.5, 3)
    rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    for below in range(lowest):
        z = lowest - 1 - below
        grow = 1 + shrink * below
        fade = min(1.0, below / 6)
        at = [
            (rows - size[0] / 2) * grow
            + size[0] / 2
            + drift[0] * below
            + fade * strength * bend[0][..., z],
            (columns - size[1] / 2) * grow
            + size[1] / 2
            + drift[1] * below
            + fade * strength * bend[1][..., z],
        ]
        for plane, its in zip(out, base, strict=True):
            order = 0 if plane.dtype == np.uint8 else 1
            plane[..., z] = ndimage.map_coordinates(its, at, order=order, mode="constant")
    brain = head.brain.copy()
    brain[..., :lowest] = False
    return HeadMap(out[0], brain, tuple(out[1:]))


def _away(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Shift the brain, by mm, out of the field of view."""
    return np.array([rng.normal(0, 10), rng.normal(0, 10), rng.uniform(190, 215)])


def _places(
    shape: Sequence[int], shift: npt.NDArray[np.float64], rng: np.random.Generator, odds: Odds
) -> npt.NDArray[np.float32]:
    """Where in the map each voxel of the scan lies: an affine, and a smooth deformation."""
    turn = Rotation.from_euler("xyz", rng.normal(0, 10, 3), degrees=True).as_matrix()
    if rng.random() < odds.turned:
        quarter = Rotation.from_euler("xyz", 90 * rng.integers(0, 4, 3), degrees=True).as_matrix()
        turn = quarter @ turn
    matrix = turn @ np.diag(np.exp(rng.normal(0, 0.05, 3)) * np.exp(rng.normal(0, 0.06)))
    matrix += rng.normal(0, 0.04, (3, 3))
    matrix[:, 0] *= rng.choice([-1, 1])
    grid = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * GRID_MM for n in SHAPE), indexing="ij", sparse=True
    )
    middle = (np.array(shape) - 1) / 2
    middle[2] += 0.5 * rng.uniform(0, 20) / STEP_MM
    places = np.empty((3, *SHAPE), np.float32)
    for i in range(3):
        straight = sum(matrix[i, j] * grid[j] for j in range(3)) - shift[i]
        bend = rng.uniform(0, 4) * _smooth(SHAPE, rng, 5) + rng.uniform(0, 2) * _smooth(
            SHAPE, rng, 12
        )
        places[i] = (straight + bend) / STEP_MM + middle[i]
    return places


def _scanned(image: Volume, rng: np.random.Generator, odds: Odds) -> Volume:
    """Add a bias field, slices of some thickness, noise and a tone curve."""
    image = image * np.exp(rng.uniform(0, 0.4) * _smooth(SHAPE, rng, 4))
    if rng.random() < odds.thick:
        axis = int(rng.choice([2, 2, 2, 1, 0]))
        image = _thick(image, axis, rng.uniform(1.1, 2.2))
    if rng.random() < 0.3:
        image = ndimage.gaussian_filter(image, rng.uniform(0, 0.8))
    sigma = rng.uniform(0, 0.06) ** 1.2
    image = np.hypot(
        image + sigma * rng.standard_normal(SHAPE, np.float32),
        sigma * rng.standard_normal(SHAPE, np.float32),
    )
    image = np.maximum(image, 0) ** np.exp(rng.normal(0, 0.3))
    return np.asarray(image, np.float32)


def _outside(rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Draw what lies beyond a field of view; the neck most often."""
    outside = np.zeros(SHAPE, dtype=bool)
    for axis, low, most in (
        (2, True, 0.35),
        (2, False, 0.12),
        (1, True, 0.12),
        (1, False, 0.15),
        (0, True, 0.1),
        (0, False, 0.1),
    ):
        if rng.random() < (0.8 if (axis, low) == (2, True) else 0.2):
            n = int(rng.uniform(0, most) * SHAPE[axis])
            part = [slice(None)] * 3
            part[axis] = slice(0, n) if low else slice(SHAPE[axis] - n, None)
            outside[tuple(part)] = True
    return outside


def _thick(image: Volume, axis: int, slices: float) -> Volume:
    """Average along an axis over slices of so many voxels, and interpolate between them."""
    size = image.shape[axis]
    smooth = ndimage.gaussian_filter1d(image, slices / 2.6, axis=axis)
    at = np.arange(0, size - 1, slices)
    lower = np.clip(np.searchsorted(at, np.arange(size), side="right") - 1, 0, len(at) - 2)
    share = np.clip((np.arange(size) - at[lower]) / slices, 0, 1).astype(np.float32)
    planes = ndimage.map_coordinates(
        np.moveaxis(smooth, axis, 0).reshape(size, -1),
        np.stack(np.meshgrid(at, np.arange(smooth.size // size), indexing="ij")),
        order=1,
    )
    joined = planes[lower] * (1 - share[:, None]) + planes[lower + 1] * share[:, None]
    return np.moveaxis(joined.reshape(np.moveaxis(smooth, axis, 0).shape), 0, axis)


def _smooth(shape: Sequence[int], rng: np.random.Generator, knots: int) -> Volume:
    """Draw a smooth field of about unit variance, with so many knots along each axis."""
    field = rng.standard_normal((knots, knots, knots)).astype(np.float32) * 1.6
    for axis, size in enumerate(shape):
        at = np.linspace(0, knots - 1.001, size)
        low = at.astype(int)
        share = at - low
        share = (share * share * (3 - 2 * share)).astype(np.float32)
        one = np.moveaxis(field, axis, -1)
        field = np.moveaxis(one[..., low] * (1 - share) + one[..., low + 1] * share, -1, axis)
    return np.ascontiguousarray(field)
