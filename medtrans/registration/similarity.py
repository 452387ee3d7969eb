"""Whether two images lie on each other: how much one says of the other, here and nearby."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medtrans.registration.placed import Placed, Places
from medtrans.volumes.geometry import Affine

# Chosen on train and val subjects of real brains, stripped and whole: right pairs have 0.028 or
# more, pairs of two people and a head turned upside down 0.008 or less (docs/align.md).
LEAST_GAIN = 0.015
LEAST_OVERLAP = 0.5

_BINS = 32
_SAMPLES = 100_000  # voxels are enough for a joint histogram
_SHIFT_MM = 6.0
_SEED = 0


class Similarity(NamedTuple):
    """How well two images fit.

    Attributes
    ----------
    nmi : float
        Normalised mutual information, (H(A) + H(B)) / H(A, B), where both are: 1 of images that
        have nothing in common, 2 of two that are the same but for a tone curve. C. Studholme et
        al., "An overlap invariant entropy measure of 3D medical image alignment", Pattern
        Recognition 32 (1999).
    gain : float
        By how much `nmi` is above its mean when one image is moved by 6 mm along each axis: near 0
        where it makes no difference how they lie, as for two people.
    overlap : float
        Share of the fixed image's region that is inside the moving one.
    """

    nmi: float
    gain: float
    overlap: float

    def doubt(self, least_gain: float = LEAST_GAIN) -> str | None:
        """Say why the images should not be trusted as a pair; None if they may."""
        if self.overlap < LEAST_OVERLAP:
            return f"they share only {100 * self.overlap:.0f} % of the patient"
        if self.gain < least_gain:
            return f"alignment is doubtful (similarity {self.gain:.3f} is below {least_gain:g})"
        return None


def similarity(fixed: Placed, moving: Placed, movement: Affine) -> Similarity:
    """Compare a moving image with the fixed one, in the fixed one's region.

    Parameters
    ----------
    fixed, moving : Placed
    movement : array
        Shape (4, 4): from a place of the fixed image to that of the moving one, RAS mm.
    """
    places = _places(fixed)
    ours = _levels(fixed.read(places)[1], fixed.window())
    window = moving.window()

    def compared(shift: NDArray[np.float64]) -> tuple[float, float]:
        inside, theirs = moving.read(places @ movement.T + [*shift, 0.0])
        return _nmi(ours[inside], _levels(theirs, window)), float(inside.mean())

    nmi, overlap = compared(np.zeros(3))
    nearby = float(np.mean([compared(shift)[0] for shift in _shifts()]))
    return Similarity(nmi, nmi - nearby, overlap)


def _shifts() -> Iterator[NDArray[np.float64]]:
    for axis in np.eye(3):
        yield from (_SHIFT_MM * axis, -_SHIFT_MM * axis)


def _places(fixed: Placed) -> Places:
    """Draw voxels of the region."""
    chosen = np.flatnonzero(fixed.region)
    if len(chosen) > _SAMPLES:
        chosen = np.random.default_rng(_SEED).choice(chosen, _SAMPLES, replace=False)
    index = np.stack([*np.unravel_index(chosen, fixed.region.shape), np.ones_like(chosen)], axis=1)
    return np.asarray(index @ fixed.affine.T)


def _levels(values: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.intp]:
    low, high = window
    scaled = (values - low) / (high - low) * _BINS
    return np.asarray(np.clip(scaled, 0, _BINS - 1), dtype=np.intp)


def _nmi(a: NDArray[np.intp], b: NDArray[np.intp]) -> float:
    joint = np.bincount(a * _BINS + b, minlength=_BINS**2).reshape(_BINS, _BINS)
    both = _entropy(joint.ravel())
    return (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / both if both > 0 else 1.0


def _entropy(counts: NDArray[np.intp]) -> float:
    share = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(-(share * np.log(share)).sum())
