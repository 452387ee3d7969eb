"""The networks of the look at an input: which contrast it shows, and which way up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_SHELLS = 4  # of equal volume, from the surface to the depth
_BINS, _FINE_BINS = 8, 16  # of values from -1 to 1
_LEVELS, _STEPS, _STEP = 3, 4, 0.2  # of a cell's mean, and of how far its extremes lie from that
_KINDS = 2  # of values: ranks and intensities
STATISTICS = _KINDS * (3 * _SHELLS * _BINS + 2 * _SHELLS * _LEVELS * _STEPS + 5 * _FINE_BINS)
_HIDDEN, _DROPOUT = 64, 0.5

_WIDTHS = (24, 48, 64)
_PLACES = 3  # along each axis, of what the orientation is told from


class LookNetwork(nn.Module):
    """Tells contrasts by a perceptron of tissue statistics, orientations by three convolutions.

    Parameters
    ----------
    channels : int
        Of the cells.
    contrasts : int
        How many it knows; one more answer is "none of them".
    orientations : int
        How many it tells apart.
    """

    def __init__(self, channels: int, contrasts: int, orientations: int) -> None:
        super().__init__()
        self.contrast = nn.Sequential(
            nn.BatchNorm1d(STATISTICS),
            nn.Dropout(_DROPOUT / 2),
            nn.Linear(STATISTICS, _HIDDEN),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
            nn.Linear(_HIDDEN, contrasts + 1),
        )
        layers: list[nn.Module] = [nn.Conv3d(channels, _WIDTHS[0], 4, stride=2, padding=1)]
        for before, width in pairwise(_WIDTHS):
            layers += [
                nn.BatchNorm3d(before),
                nn.ReLU(),
                nn.MaxPool3d(2),
                nn.Conv3d(before, width, 3, padding=1),
            ]
        layers += [
            nn.BatchNorm3d(_WIDTHS[-1]),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(_PLACES),
            nn.Flatten(),
            nn.Dropout(_DROPOUT / 2),
            nn.Linear(_PLACES**3 * _WIDTHS[-1], orientations),
        ]
        self.orientation = nn.Sequential(*layers)


def tissue_statistics(cells: Tensor) -> Tensor:
    """Say how ranks and intensities are distributed, from the surface of the patient to the depth.

    They do not change with the patient's orientation.

    Parameters
    ----------
    cells : Tensor
        Shape (7, E, E, E): mean, highest and lowest rank of each cell, the same of its
        intensities, all from -1 to 1, and the share that is foreground.

    Returns
    -------
    Tensor
        Shape (STATISTICS,); zeros of an empty cube.
    """
    share = cells[-1]
    inside = share > 0.5
    depth = _depth(share)[inside]
    if not len(depth):
        return torch.zeros(STATISTICS)
    borders = torch.quantile(depth, torch.linspace(0, 1, _SHELLS + 1)[1:-1])
    shell = torch.searchsorted(borders, depth)
    parts = [
        part
        for kind in range(_KINDS)
        for part in _histograms(cells[3 * kind : 3 * kind + 3, inside], shell)
    ]
    return torch.cat(parts).div(len(depth)).sqrt()


def _histograms(values: Tensor, shell: Tensor) -> Iterator[Tensor]:
    """Count mean, highest and lowest (3, N), shell by shell and altogether."""
    mean, high, low = values
    for of_cells in values:
        yield _count(shell * _BINS + _bin(of_cells, _BINS), _SHELLS * _BINS) * _SHELLS
    level = shell * _LEVELS + _bin(mean, _LEVELS)
    for distance in (high - mean, mean - low):
        step = (distance / _STEP).long().clamp(0, _STEPS - 1)
        yield _count(level * _STEPS + step, _SHELLS * _LEVELS * _STEPS) * _SHELLS
    for of_cells in (mean, high, low, high - 1, mean - low - 1):
        yield _count(_bin(of_cells, _FINE_BINS), _FINE_BINS)


def _bin(values: Tensor, bins: int) -> Tensor:
    return ((values + 1) / 2 * bins).long().clamp(0, bins - 1)


def _count(bins: Tensor, size: int) -> Tensor:
    return torch.bincount(bins, minlength=size).float()


def _depth(share: Tensor) -> Tensor:
    """Blur the share of the foreground over some centimetres: more is deeper."""
    blurred = share[None]
    for _ in range(2):
        blurred = functional.avg_pool3d(blurred, 7, 1, 3)
    return blurred[0]
