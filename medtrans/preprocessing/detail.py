"""How much detail a volume has, coarse and fine, and a volume with more of it.

A regression's answer is the mean of all that may be: what is uncertain is blurred. Among Gaussian
images the one that looks real and is nearest to the truth is that mean with the power of each
frequency raised to that of real images (Freirich et al., arXiv 2107.02555). Here frequencies are
the bands of a Laplacian pyramid at full resolution (Burt and Adelson, 1983), in the foreground
alone: no band sees its edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

from medtrans.volumes.voxels import Mask, Voxels

BANDS_SD = (
    0.7,
    1.5,
    3.0,
    6.0,
)  # voxels: Gaussians between which the bands lie, from fine to coarse
MOST_GAIN = 3.0  # more would be noise and errors of place
_BRIGHT = 99.5  # percentile of the foreground
_TRUNCATE = 3.0  # standard deviations
_TINY = 1e-9
_LEAST = 1e-3  # of a Gaussian's weight; voxels beside no foreground are not looked at


def amplitudes(volume: Voxels, mask: Mask) -> list[float]:
    """Root mean square of each band, as a share of how bright the volume is.

    That is its 99.5th percentile in the foreground: an image of half the contrast, which looks the
    same once it is windowed, has as much detail.

    Parameters
    ----------
    volume : array of float32
        Shape (X, Y, Z), in [-1, 1].
    mask : array of bool
        Shape (X, Y, Z), not empty: the foreground.
    """
    brightness = max(float(np.percentile(volume[mask], _BRIGHT)) + 1, _TINY)
    return [float(np.sqrt(np.mean(band[mask] ** 2))) / brightness for band in _bands(volume, mask)]


def missing(estimate: Sequence[float], truth: Sequence[float]) -> list[float]:
    """Return the gains that bring the amplitudes of an estimate to the real ones; 1 at least."""
    return [
        float(np.clip(real / max(made, _TINY), 1.0, MOST_GAIN))
        for made, real in zip(estimate, truth, strict=True)
    ]


def least(*gains: Sequence[float]) -> list[float]:
    """Return the lowest of several gains in each band."""
    return [min(of_band) for of_band in zip(*gains, strict=True)]


def raised(volume: Voxels, mask: Mask, gains: Sequence[float]) -> Voxels:
    """Multiply the bands of a volume (X, Y, Z) by one gain each, in the mask (X, Y, Z).

    What is coarser than all bands, and what lies outside the mask, stays.
    """
    result = volume.copy()
    last = max((number for number, gain in enumerate(gains, start=1) if gain != 1), default=0)
    for gain, band in zip(gains[:last], _bands(volume, mask), strict=False):  # no coarser ones
        result += np.float32(gain - 1) * band
    return result


def _bands(volume: Voxels, mask: Mask) -> Iterator[Voxels]:
    """Yield the bands from fine to coarse; 0 outside the mask."""
    finer = np.where(mask, volume, np.float32(0))
    inside = mask.astype(np.float32)
    for sd in BANDS_SD:
        weight = ndimage.gaussian_filter(inside, sd, truncate=_TRUNCATE)
        coarser = ndimage.gaussian_filter(finer, sd, truncate=_TRUNCATE)
        coarser /= np.maximum(weight, np.float32(_LEAST), out=weight)
        coarser[~mask] = 0
        yield finer - coarser
        finer = coarser
