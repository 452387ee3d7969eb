"""What a translation must beat: the source itself, and the best global tone curve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtrans.volumes.voxels import Voxels

_BINS = 256


@dataclass(frozen=True)
class ToneCurve:
    """E[target | source intensity], the best translation that looks at one voxel alone.

    Attributes
    ----------
    levels, values : array of float
        The curve's support points, both in the units it was fitted in.
    """

    levels: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def fit(cls, pairs: Iterable[tuple[Voxels, Voxels]]) -> ToneCurve:
        """Fit to voxels (source, target) of the foreground, on [-1, 1]; each of shape (n,)."""
        edges = np.linspace(-1, 1, _BINS + 1)
        total, count = np.zeros(_BINS), np.zeros(_BINS)
        for source, target in pairs:
            total += np.histogram(source, edges, weights=target)[0]
            count += np.histogram(source, edges)[0]
        filled = count > 0
        centres = (edges[1:] + edges[:-1]) / 2
        return cls(centres[filled], total[filled] / count[filled])

    def __call__(self, source: Voxels) -> Voxels:
        """Map intensities; beyond the fitted range the ends are held."""
        return np.interp(source, self.levels, self.values).astype(np.float32)
