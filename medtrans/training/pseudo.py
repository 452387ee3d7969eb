"""Pseudo-sources: what the networks learn from targets that have no source.

A target under a random tone curve has the anatomy of a source and none of its tones, so a network
that turns it back learns which structures a target has, whatever the contrast it is shown. Bias
field and noise come from the augmentation, as for a real source.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medtrans.config.schema import PseudoConfig


def pseudo_source(
    target: NDArray[np.float32], config: PseudoConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Put a random tone curve, not necessarily monotone, on a target.

    Parameters
    ----------
    target : array of float32
        Shape (2k + 1, height, width), in [-1, 1]; -1 is background and stays so.
    config : PseudoConfig
    rng : Generator

    Returns
    -------
    array of float32
        Same shape, in [-1, 1].
    """
    knots = int(rng.integers(config.knots[0], config.knots[1] + 1))
    values = _stretched(rng.uniform(-1, 1, knots))
    toned = np.interp(target, np.linspace(-1, 1, knots), values)
    blur = rng.uniform(0, config.smoothing)
    softened = ndimage.gaussian_filter(toned, (0, blur, blur))
    return np.where(target > -1, softened, -1).astype(np.float32)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Use the whole range, as a volume that was normalised by its percentiles does."""
    low, high = values.min(), values.max()
    return np.asarray((values - low) / max(high - low, 1e-6) * 1.9 - 0.95)
