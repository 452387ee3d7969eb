"""What a translation must beat: the source itself, and the best global tone curve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Contrast, Task
from medtrans.evaluate.cases import Case, window_of
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile, measure_profile
from medtrans.volumes.voxels import Voxels

BASELINES = IDENTITY, TONE_CURVE = "identity", "tone curve"

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


def fit_tone_curve(cases: Iterable[Case], task: Task, pipeline: Pipeline) -> ToneCurve:
    """Fit the curve to the foreground of cases, each volume on its own scale; at least one."""

    def voxels() -> Iterator[tuple[Voxels, Voxels]]:
        for case in cases:
            source = _normalised(case.source, task.source, pipeline)
            target = _normalised(case.target, task.target, pipeline)
            yield source[case.mask], target[case.mask]

    return ToneCurve.fit(voxels())


def tone_mapped(case: Case, curve: ToneCurve, task: Task, pipeline: Pipeline) -> Voxels:
    """Give what the curve makes of a case's source, with nothing around the foreground."""
    unit = window_of(pipeline, task) or Profile(0, 1)
    predicted = unit.restore(curve(_normalised(case.source, task.source, pipeline)))
    return np.where(case.mask, predicted, np.float32(unit.low))


def _normalised(volume: MetaTensor, contrast: Contrast, pipeline: Pipeline) -> Voxels:
    values = volume.numpy()
    scale = pipeline.contrasts[contrast]
    return measure_profile(values, find_foreground(values), scale).normalise(values)
