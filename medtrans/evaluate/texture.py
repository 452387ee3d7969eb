"""Whether a translation is as sharp as a real image, free of a grid, and its slices fit together.

Most are ratios of the prediction's to the reference's, 1.0 is right. A regression blurs, so its
high-frequency ratio is below 1; slices that were sampled apart flicker, so their slice ratio is
above 1; a network that unfolds its pixels leaves a pattern of two pixels, a checkerboard ratio
above 1. Errors of place do not count in a ratio, and noise
counts as detail: whether detail lies where it should is told by its correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        Shape (X, Y, Z), not empty; a voxel counts where its neighbour is inside, too.
    axis : int
        The array's axis along which the volume was cut into slices.

    Returns
    -------
    float or None
        None where no two neighbouring slices have foreground.
    """
    box = _box(mask)
    return _step_ratio(*(_step(v[box], mask[box], axis) for v in (predicted, reference)))


def high_frequency_ratio(predicted: Voxels, reference: Voxels, mask: Mask, axis: int) -> float:
    """In-plane energy above 0.125 cycles per pixel, over that of the reference.

    The energy is the mean square, in the mask, of each slice minus its Gaussian blur of `BLUR_PX`
    pixels. The blur looks at the mask's voxels only, so that the rim of the foreground, an edge in
    both images, adds nothing. Parameters as for `slice_ratio`.
    """
    box = _box(mask)
    return _detail_ratio(*(_detail(v[box], mask[box], axis) for v in (predicted, reference)))


def detail_correlation(predicted: Voxels, reference: Voxels, mask: Mask, axis: int) -> float | None:
    """Correlation of the detail that `high_frequency_ratio` measures, voxel by voxel in the mask.

    1 for the same detail in the same places, 0 for detail that has nothing to do with the
    reference's, whatever its ratio. Parameters as for `slice_ratio`.

    Returns
    -------
    float or None
        None where an image has no detail.
    """
    box = _box(mask)
    return _correlation(*(_detail(v[box], mask[box], axis) for v in (predicted, reference)))


def checkerboard_ratio(predicted: Voxels, reference: Voxels, mask: Mask) -> float | None:
    """Power of a pattern of two voxels, over that of the reference; the worst of three directions.

    The power is that at the Nyquist frequency over that beside it, at periods of 2.2 to 2.5 pixels,
    along lines of 48 voxels inside the mask: 1 for noise, less for anatomy, however sharp it is.
    A pixel shuffle or a strided transposed convolution raises it (checkerboard artefacts: Odena et
    al., distill.pub/2016/deconv-checkerboard). The reference counts as 1 at least: one that was
    resampled may have next to nothing there, beside which every image would have a pattern.

    Parameters
    ----------
    predicted, reference : array of float32
        Shape (X, Y, Z).
    mask : array of bool
        Shape (X, Y, Z), not empty.

    Returns
    -------
    float or None
        None where the mask holds too few lines of 48 voxels.
    """
    box = _box(mask)
    return _grid_ratio(*(_grid(v[box], mask[box]) for v in (predicted, reference)))


@dataclass(frozen=True)
class Texture:
    """What the scores need of one volume, so that it is measured once beside several others.

    Attributes
    ----------
    step : float or None
        Mean absolute difference between neighbouring slices.
    detail : array of float32
        In-plane fine detail of each voxel in the mask, (n,).
    grid : tuple of float or None
        Power of a pattern of two voxels, along each axis.
    """

    step: float | None
    detail: Voxels
    grid: tuple[float | None, ...]

    @classmethod
    def of(cls, volume: Voxels, mask: Mask, axis: int) -> Texture:
        """Measure a volume (X, Y, Z) in a mask of its shape that is not empty."""
        box = _box(mask)
        part = (volume[box], mask[box], axis)
        return cls(_step(*part), _detail(*part), _grid(volume[box], mask[box]))

    def scores(self, reference: Texture) -> dict[str, float | None]:
        """Give the three ratios and the correlation by name; None for one that is not defined."""
        return {
            "high_frequency_ratio": _detail_ratio(self.detail, reference.detail),
            "detail_correlation": _correlation(self.detail, reference.detail),
            "slice_ratio": _step_ratio(self.step, reference.step),
            "checkerboard_ratio": _grid_ratio(self.grid, reference.grid),
        }


def _step_ratio(predicted: float | None, reference: float | None) -> float | None:
    if predicted is None or reference is None:
        return None
    return predicted / max(reference, _TINY)


def _detail_ratio(predicted: Voxels, reference: Voxels) -> float:
    return _energy(predicted) / max(_energy(reference), _TINY)


def _energy(detail: Voxels) -> float:
    return float(np.mean(detail**2, dtype=np.float64))


def _correlation(predicted: Voxels, reference: Voxels) -> float | None:
    if min(_energy(predicted), _energy(reference)) < _TINY:
        return None
    return float(np.corrcoef(predicted, reference)[0, 1])


def _grid_ratio(
    predicted: tuple[float | None, ...], reference: tuple[float | None, ...]
) -> float | None:
    ratios = [
        share / max(of_reference, 1.0)
        for share, of_reference in zip(predicted, reference, strict=True)
        if share is not None and of_reference is not None
    ]
    return max(ratios, default=None)


def _box(mask: Mask) -> tuple[slice, ...]:
    """Find the box of a mask; it begins where lines of pixels would begin in the whole volume."""
    spans = [
        np.flatnonzero(mask.any(axis=tuple(b for b in range(3) if b != a)))[[0, -1]]
        for a in range(3)
    ]
    return tuple(slice(int(a) // _LINE_STEP_PX * _LINE_STEP_PX, int(b) + 1) for a, b in spans)


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


def _grid(volume: Voxels, mask: Mask) -> tuple[float | None, ...]:
    return tuple(_nyquist_share(volume, mask, along) for along in range(3))


def _step(volume: Voxels, mask: Mask, axis: int) -> float | None:
    slices, inside = np.moveaxis(volume, axis, 0), np.moveaxis(mask, axis, 0)
    both = inside[:-1] & inside[1:]
    if not both.any():
        return None
    return float(np.mean(np.abs(np.diff(slices, axis=0))[both], dtype=np.float64))


def _detail(volume: Voxels, mask: Mask, axis: int) -> Voxels:
    weight = _blur(mask.astype(np.float32), axis)[mask]
    smooth = _blur(np.where(mask, volume, np.float32(0)), axis)[mask] / weight
    detail: Voxels = volume[mask] - smooth
    return detail


def _blur(values: Voxels, axis: int) -> Voxels:
    sigmas = [0.0 if a == axis else BLUR_PX for a in range(values.ndim)]
    return np.asarray(ndimage.gaussian_filter(values, sigmas, mode="constant", truncate=3.0))
