"""Whether a translation is as sharp as a real image, free of a grid, and its slices fit together.

All are ratios of the prediction's to the reference's, 1.0 is right. A regression blurs, so its
high-frequency ratio is below 1; slices that were sampled apart flicker, so their slice ratio is
above 1; a network that unfolds its pixels leaves a pattern of two pixels, a checkerboard ratio
above 1. Errors of place do not count here: that is what `metrics` is for.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, signal

from medtrans.volumes.voxels import Mask, Voxels

# A Gaussian of 1.5 px passes half of the amplitude at 0.125 cycles per pixel, so what it leaves is
# detail finer than about 8 pixels.
BLUR_PX = 1.5
_TINY = 1e-12

# Lines of this many pixels resolve the Nyquist frequency from the band beside it: the Hann window
# spreads a frequency over one bin on each side, and bin 23 lies between.
_LINE_PX, _LINE_STEP_PX = 48, 12
_NYQUIST, _BESIDE = 24, slice(19, 23)  # bins: periods of 2 pixels, and of 2.2 to 2.5
_FEWEST_LINES = 20


def slice_ratio(predicted: Voxels, reference: Voxels, mask: Mask, axis: int) -> float | None:
    """Mean absolute difference between neighbouring slices, over that of the reference.

    Parameters
    ----------
    predicted, reference : array of float32
        Shape (X, Y, Z), on one intensity scale.
    mask : array of bool
        Shape (X, Y, Z); a voxel counts where its neighbour is inside, too.
    axis : int
        The array's axis along which the volume was cut into slices.

    Returns
    -------
    float or None
        None where no two neighbouring slices have foreground.
    """
    inside = np.moveaxis(mask, axis, 0)
    both = inside[:-1] & inside[1:]
    if not both.any():
        return None
    of_predicted, of_reference = (
        _step(np.moveaxis(v, axis, 0), both) for v in (predicted, reference)
    )
    return of_predicted / max(of_reference, _TINY)


def high_frequency_ratio(predicted: Voxels, reference: Voxels, mask: Mask, axis: int) -> float:
    """In-plane energy above 0.125 cycles per pixel, over that of the reference.

    The energy is the mean square, in the mask, of each slice minus its Gaussian blur of `BLUR_PX`
    pixels. The blur looks at the mask's voxels only, so that the rim of the foreground, an edge in
    both images, adds nothing. Parameters as for `slice_ratio`.
    """
    weight = _blur(mask.astype(np.float32), axis)
    of_predicted, of_reference = (
        _detail(values, mask, weight, axis) for values in (predicted, reference)
    )
    return of_predicted / max(of_reference, _TINY)


def checkerboard_ratio(predicted: Voxels, reference: Voxels, mask: Mask, axis: int) -> float | None:
    """Power of a pattern of two pixels, over that of the reference; the worse in-plane direction.

    The power is that at the Nyquist frequency over that beside it, at periods of 2.2 to 2.5 pixels,
    along lines of 48 pixels inside the mask: 1 for noise, less for anatomy, however sharp it is.
    A pixel shuffle or a strided transposed convolution raises it (checkerboard artefacts: Odena et
    al., distill.pub/2016/deconv-checkerboard). The reference counts as 1 at least: one that was
    resampled may have next to nothing there, beside which every image would have a pattern.
    Parameters as for `slice_ratio`.

    Returns
    -------
    float or None
        None where the mask holds too few lines of 48 pixels.
    """
    ratios = []
    for along in (a for a in range(3) if a != axis):
        shares = [_nyquist_share(volume, mask, along) for volume in (predicted, reference)]
        if shares[0] is not None and shares[1] is not None:
            ratios.append(shares[0] / max(shares[1], 1.0))
    return max(ratios, default=None)


def _nyquist_share(volume: Voxels, mask: Mask, axis: int) -> float | None:
    if volume.shape[axis] < _LINE_PX:
        return None
    every = slice(None, None, _LINE_STEP_PX)
    inside = sliding_window_view(mask, _LINE_PX, axis)
    lines = sliding_window_view(volume, _LINE_PX, axis)
    chosen = tuple(every if a == axis else slice(None) for a in range(3))
    kept = lines[chosen][inside[chosen].all(axis=-1)]
    if len(kept) < _FEWEST_LINES:
        return None
    _, power = signal.periodogram(kept, window="hann", detrend="linear", scaling="spectrum")
    spectrum = power.mean(axis=0, dtype=np.float64)
    # A one-sided spectrum holds both halves of every frequency but the Nyquist frequency.
    return float(2 * spectrum[_NYQUIST] / max(spectrum[_BESIDE].mean(), _TINY))


def _step(slices: Voxels, both: Mask) -> float:
    return float(np.mean(np.abs(np.diff(slices, axis=0))[both], dtype=np.float64))


def _detail(values: Voxels, mask: Mask, weight: Voxels, axis: int) -> float:
    smooth = _blur(np.where(mask, values, np.float32(0)), axis)[mask] / weight[mask]
    return float(np.mean((values[mask] - smooth) ** 2, dtype=np.float64))


def _blur(values: Voxels, axis: int) -> Voxels:
    sigmas = [0.0 if a == axis else BLUR_PX for a in range(values.ndim)]
    return np.asarray(ndimage.gaussian_filter(values, sigmas, mode="constant", truncate=3.0))
