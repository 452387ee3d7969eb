"""What an uncertainty map is worth: how well it tells the error, voxel by voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from medtrans.evaluate.metrics import linear_fit
from medtrans.evaluate.scores import Reference, Scores, score_regions
from medtrans.package.error import Calibration
from medtrans.volumes.voxels import Mask, Voxels

WORST = 0.1  # share of voxels that count as bad
_STEPS = 20  # of a sparsification curve

_Ranks = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """A map that says how far off a prediction is, as whoever made both has it.

    Attributes
    ----------
    voxels : array of float32
        Shape (X, Y, Z), 0 or more, in the prediction's unit.
    within : mapping of float to float
        Share of voxels -> half the width of the interval that is to hold it, in multiples of the
        map. By default those of a Laplace distribution whose mean absolute error the map is.
    """

    voxels: Voxels
    within: Mapping[float, float]

    @classmethod
    def of(cls, voxels: Voxels, within: Mapping[float, float] | None = None) -> Uncertainty:
        """Take a map (X, Y, Z) with intervals of its own, or Laplace's."""
        return cls(voxels, within or Calibration.unseen().within)


@dataclass(frozen=True)
class Sparsification:
    """The mean error of the voxels that are left when the most uncertain are taken out.

    Attributes
    ----------
    taken_out : array of float
        Shares of the voxels, from 0.
    by_map, at_best : array of float
        Mean error of the others over that of all: by the map, and by the errors themselves.
    """

    taken_out: NDArray[np.float64]
    by_map: NDArray[np.float64]
    at_best: NDArray[np.float64]

    @property
    def area(self) -> float:
        """The area between the two curves (AUSE, Ilg et al., arXiv 1802.07095); 0 is best."""
        return float(np.trapezoid(self.by_map - self.at_best, self.taken_out))


def absolute_error(predicted: Voxels, reference: Reference) -> Voxels:
    """Return |prediction - real image| in the prediction's unit, (X, Y, Z).

    MR values have no unit: there the real image is fitted to the prediction first, by least squares
    in the foreground.
    """
    truth = reference.voxels
    if reference.window is None:
        truth = linear_fit(truth, predicted, reference.foreground)
    error: Voxels = np.abs(predicted - truth).astype(np.float32)
    return error


def uncertainty_scores(
    uncertainty: Uncertainty, predicted: Voxels, reference: Reference
) -> dict[str, Scores]:
    """Compare an uncertainty map with the error, in every region that shows tissue.

    Returns
    -------
    dict
        By region, without the whole image, which is mostly air: `uncertainty_spearman` (rank
        correlation with the error), `uncertainty_auroc` (how well it finds the worst tenth of the
        voxels), `uncertainty_ause`, and `coverage_50` and so on (share of voxels within the
        interval of that level). Scores that are not defined are left out.
    """
    error = absolute_error(predicted, reference)
    return {
        name: scores_of(uncertainty.voxels[mask], error[mask], uncertainty.within)
        for name, mask in reference.textured.items()
    }


def score_all(
    predicted: Voxels, reference: Reference, uncertainty: Uncertainty | None
) -> dict[str, Scores]:
    """Score a prediction, and how well its uncertainty map tells its error where it has one.

    Returns
    -------
    dict
        By region: what `score_regions` and `uncertainty_scores` give.
    """
    scores = score_regions(predicted, reference)
    if uncertainty is None:
        return scores
    more = uncertainty_scores(uncertainty, predicted, reference)
    return {name: {**found, **more.get(name, {})} for name, found in scores.items()}


def sparsification(expected: Voxels, error: Voxels) -> Sparsification:
    """Take out ever more voxels, the most uncertain first.

    Parameters
    ----------
    expected, error : array of float32
        Shape (n,): the map, and the absolute errors.
    """
    taken = np.arange(_STEPS) / _STEPS
    kept = np.ceil((1 - taken) * len(error)).astype(int)
    total = max(float(error.mean(dtype=np.float64)), 1e-12)

    def means(order: NDArray[np.intp]) -> NDArray[np.float64]:
        sums = np.cumsum(error[order], dtype=np.float64)
        return np.asarray(sums[kept - 1] / kept / total)

    return Sparsification(taken, means(np.argsort(expected)), means(np.argsort(error)))


def scores_of(expected: Voxels, error: Voxels, within: Mapping[float, float]) -> Scores:
    """Score expected errors beside the errors, (n,) each; see `uncertainty_scores`."""
    held = {
        f"coverage_{level * 100:.0f}": float((error <= width * expected).mean())
        for level, width in within.items()
    }
    if np.ptp(expected) == 0 or np.ptp(error) == 0:
        return held
    ranks = rankdata(expected)
    return {
        "uncertainty_spearman": float(np.corrcoef(ranks, rankdata(error))[0, 1]),
        "uncertainty_auroc": _auroc(ranks, error >= np.quantile(error, 1 - WORST)),
        "uncertainty_ause": sparsification(expected, error).area,
        **held,
    }


def _auroc(ranks: _Ranks, bad: Mask) -> float:
    """Return the share of (bad, good) pairs of voxels in which the bad one has the higher rank."""
    positives, negatives = int(bad.sum()), int((~bad).sum())
    if not negatives:
        return 0.5
    surplus = ranks[bad].sum() - positives * (positives + 1) / 2
    return float(surplus / (positives * negatives))
