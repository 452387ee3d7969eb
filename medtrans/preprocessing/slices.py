"""Volumes into slices and back.

A slice plan says along which axis a volume is cut and how many neighbours the network sees on
each side. `cut` and `place` are exact inverses, whatever the shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medtrans.config.schema import Pipeline, SlicesConfig
from medtrans.config.terms import Axis
from medtrans.volumes.voxels import Voxels

_MOST_STRETCH = 1.5  # of pixels; in training they are scaled by a tenth at most
AXES: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # of a volume in RAS
Voxel = TypeVar("Voxel", bound=np.generic)


@dataclass(frozen=True)
class SlicePlan:
    """How a volume in RAS is cut.

    Attributes
    ----------
    axis : int
        0 sagittal, 1 coronal, 2 axial.
    context : int
        k neighbours on each side: 2k + 1 source slices for one target slice; 0 is plain 2D.
    """

    axis: int
    context: int


def elongation(grid_mm: Sequence[float], axis: int) -> float:
    """How many times as long as wide a pixel of a slice across a RAS axis is; 1 of unknown ones."""
    down, across = np.delete(np.asarray(grid_mm, dtype=np.float64), axis)
    return float(down / across) if down > 0 and across > 0 else 1.0


def is_near_one(ratio: float) -> bool:
    """Whether a network does not mind that pixels are so many times as long as those it knows."""
    return 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH


def fitting_axes(
    pipeline: Pipeline, shape: Sequence[int], grid_mm: Sequence[float]
) -> tuple[Axis, ...]:
    """List the recipe's axes whose slices of a volume look as those of the training do.

    The leading axis is always among them. The others are where pixels are of the usual shape, which
    they are not across thick slices, and slices at least half as large as the training's patches.

    Parameters
    ----------
    pipeline : Pipeline
    shape : sequence of int
        Shape (X, Y, Z) in RAS, as the networks see it.
    grid_mm : sequence of float
        Spacing along each RAS axis, as the networks see it.
    """
    config = pipeline.slices
    usual = elongation(pipeline.volume.spacing_mm, AXES[config.axis])
    least = min(pipeline.residual.patch) / 2

    def fits(axis: int) -> bool:
        large = min(np.delete(shape, axis)) >= least and shape[axis] > 1
        return bool(large and is_near_one(elongation(grid_mm, axis) / usual))

    return (config.axis, *(axis for axis in config.also if fits(AXES[axis])))


def plan_slices(
    config: SlicesConfig, shape: Sequence[int], axes: Sequence[Axis] = ()
) -> list[SlicePlan]:
    """Return the plans for a volume: along the recipe's leading axis, or one for each of `axes`.

    A volume that is a single slice is cut across that slice, whatever axis is named.

    Parameters
    ----------
    config : SlicesConfig
    shape : sequence of int
        Shape (X, Y, Z) in RAS.
    axes : sequence of str
        "sagittal", "coronal" or "axial", instead of the recipe's.
    """
    singletons = [axis for axis, size in enumerate(shape) if size == 1]
    named = [AXES[name] for name in axes or (config.axis,)]
    chosen = singletons if len(singletons) == 1 else named
    return [SlicePlan(axis, config.context) for axis in chosen]


def cut(volume: NDArray[Voxel], plan: SlicePlan) -> NDArray[Voxel]:
    """(X, Y, Z) -> (slices, height, width), a view."""
    return np.moveaxis(volume, plan.axis, 0)


def place(slices: Voxels, indices: Sequence[int], volume: Voxels, plan: SlicePlan) -> None:
    """Put slices where they belong in a volume, in place and bit for bit.

    Parameters
    ----------
    slices : array of float32
        Shape (n, height, width).
    indices : sequence of int
        Where each slice belongs along the plan's axis.
    volume : array of float32
        Shape (X, Y, Z).
    plan : SlicePlan
    """
    cut(volume, plan)[list(indices)] = slices


def neighbours(index: int, count: int, context: int) -> list[int]:
    """Return the 2k + 1 slice positions around `index`, repeating the volume's end slices."""
    return [min(max(index + d, 0), count - 1) for d in range(-context, context + 1)]


def occupied(image: Voxels, plan: SlicePlan) -> list[int]:
    """Return the slices that are not all background: the only ones trained on and sampled.

    Parameters
    ----------
    image : array of float32
        Shape (X, Y, Z), in [-1, 1] with -1 as background.
    plan : SlicePlan
    """
    return [int(i) for i in np.flatnonzero((cut(image, plan) > -1).any(axis=(1, 2)))]


def stacks(
    volume: Voxels, plan: SlicePlan, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[list[int], Voxels]]:
    """Yield batches of source stacks.

    Yields
    ------
    indices : list of int
        At most `batch_size` of the given positions, in order.
    stack : array of float32
        Shape (batch, 2k + 1, height, width): each slice between its neighbours.
    """
    slices = cut(volume, plan)
    for start in range(0, len(indices), batch_size):
        chosen = list(indices[start : start + batch_size])
        rows = [neighbours(i, len(slices), plan.context) for i in chosen]
        yield chosen, np.ascontiguousarray(slices[np.array(rows)], dtype=np.float32)
