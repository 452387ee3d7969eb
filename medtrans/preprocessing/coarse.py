"""A volume as the look at an input sees it: coarse, centred, its intensities without a unit.

Ranks within the foreground do not change with gain, offset, gamma or any other rising curve.
Intensities between two percentiles do not change with gain and offset, and keep what ranks lose:
that grey and white matter are far apart in T1 and near each other in FLAIR.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medtrans.volumes.voxels import Mask, Voxels

FINE_MM, CELL_MM = 2.5, 5.0
CELLS = 40  # along each edge of the cube: 200 mm, more than a brain is long
CHANNELS = 7


class Orientation(NamedTuple):
    """How a head lies in the axes of a volume that its header calls RAS.

    Attributes
    ----------
    axes : tuple of int
        For each axis of the volume, which axis of the head lies along it: 0 left to right, 1 back
        to front, 2 bottom to top.
    flipped : tuple of bool
        For each axis of the volume, whether it lies the other way round. Never of left to right: a
        head and its mirror image look alike.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    def turned(self, cells: Tensor) -> Tensor:
        """Turn an upright cube (C, E, E, E) so that it lies like this."""
        dims = [1 + axis for axis, flip in enumerate(self.flipped) if flip]
        return cells.permute(0, *(1 + axis for axis in self.axes)).flip(dims)


ORIENTATIONS = tuple(
    Orientation(axes, flipped)
    for axes in permutations(range(3))
    for flipped in product((False, True), repeat=3)
    if not flipped[axes.index(0)]
)
"""All 24 that can be told apart; the first is upright."""

_POOL = round(CELL_MM / FINE_MM)
_QUANTILES = 256
_SORTED = 50_000  # voxels are enough for quantiles
_FAR = 9.0  # beyond all values


def fine_cube(image: Voxels, grid_mm: Sequence[float]) -> Tensor:
    """Resample the foreground of a volume onto a cube around its middle.

    Parameters
    ----------
    image : array of float32
        Shape (X, Y, Z), RAS, in [-1, 1]; -1 outside the foreground.
    grid_mm : sequence of float
        Spacing along each axis.

    Returns
    -------
    Tensor
        Shape (2, 80, 80, 80), steps of 2.5 mm: the intensity in [0, 1], and 1 in the foreground.
    """
    edge = CELLS * _POOL
    inside = image > -1
    box = tuple(_span(inside, axis, grid_mm[axis], edge * FINE_MM) for axis in range(3))
    mask = torch.from_numpy(inside[box]).float()
    values = (torch.from_numpy(image[box]) + 1) / 2
    size = [
        min(edge, max(1, round(n * step / FINE_MM)))
        for n, step in zip(mask.shape, grid_mm, strict=True)
    ]
    both = _resampled(torch.stack([values * mask, mask])[None], size)[0]
    share = both[1]
    cube = torch.zeros(2, edge, edge, edge)
    place = tuple(slice((edge - n) // 2, (edge - n) // 2 + n) for n in size)
    cube[0][place] = torch.where(share > 0.5, both[0] / share.clamp(min=1e-6), 0.0)
    cube[1][place] = (share > 0.5).float()
    return cube


def cells_of(cube: Tensor) -> Tensor:
    """Describe each cell of 5 mm by its voxels' ranks, and by their intensities without a unit.

    Parameters
    ----------
    cube : Tensor
        Shape (2, 80, 80, 80), as `fine_cube` gives it.

    Returns
    -------
    Tensor
        Shape (7, 40, 40, 40): mean, highest and lowest rank of its foreground, the same of its
        intensities, all from -1 to 1 and 0 outside; and the share that is foreground.
    """
    values, mask = cube
    inside = mask > 0
    share = functional.avg_pool3d(mask[None], _POOL)[0]
    channels = [
        channel
        for voxels in (ranks(values, inside), _scaled(values, inside))
        for channel in _statistics(voxels, mask, share)
    ]
    return torch.stack([*channels, share])


def _statistics(voxels: Tensor, mask: Tensor, share: Tensor) -> list[Tensor]:
    """Mean, highest and lowest of each cell's foreground; 0 where there is none."""
    mean = functional.avg_pool3d((voxels * mask)[None], _POOL)[0] / share.clamp(min=1e-6)
    outside = (1 - mask) * _FAR
    high = functional.max_pool3d((voxels - outside)[None], _POOL)[0]
    low = -functional.max_pool3d((-voxels - outside)[None], _POOL)[0]
    return [torch.where(share > 0, channel, 0.0) for channel in (mean, high, low)]


def _scaled(values: Tensor, inside: Tensor) -> Tensor:
    """Scale so that a tenth of the foreground is below -1/2 and a tenth above 1/2; clipped at 1."""
    sample = _sample(values[inside])
    if sample.numel() == 0:
        return torch.zeros_like(values)
    low, high = sample[sample.numel() // 10], sample[sample.numel() * 9 // 10]
    return ((values - low) / (high - low).clamp(min=1e-6) - 0.5).clamp(-1, 1)


def _sample(known: Tensor) -> Tensor:
    """Take some of the values (N,), ascending."""
    return known[:: max(1, known.numel() // _SORTED)].sort().values


def _span(inside: Mask, axis: int, step_mm: float, most_mm: float) -> slice:
    """Find what is kept along an axis: the foreground, of which at most the central part."""
    others = tuple(other for other in range(3) if other != axis)
    found = np.flatnonzero(inside.any(axis=others))
    first, last = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, inside.shape[axis])
    excess = max(0, last - first - max(1, int(most_mm / step_mm)))
    return slice(first + excess // 2, last - (excess - excess // 2))


def _resampled(volumes: Tensor, size: Sequence[int]) -> Tensor:
    """Average where the new grid is coarser, interpolate where it is finer, axis by axis."""
    x, y, z = (min(new, old) for new, old in zip(size, volumes.shape[2:], strict=True))
    pooled = functional.adaptive_avg_pool3d(volumes, (x, y, z))
    if list(size) == [x, y, z]:
        return pooled
    return functional.interpolate(pooled, list(size), mode="trilinear", align_corners=False)


def ranks(values: Tensor, inside: Tensor) -> Tensor:
    """Replace values (E, E, E) by their rank among those inside, from -1 to 1."""
    sample = _sample(values[inside])
    if sample.numel() == 0:
        return torch.zeros_like(values)
    at = torch.linspace(0, sample.numel() - 1, _QUANTILES).long()
    levels = sample[at].contiguous()
    # The middle of the lowest and highest rank of a value: flat regions get one rank of their own.
    below = torch.searchsorted(levels, values.contiguous())
    above = torch.searchsorted(levels, values.contiguous(), right=True)
    return (below + above).float() / _QUANTILES - 1
