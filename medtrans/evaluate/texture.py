"""Whether a translation is as sharp as a real image, and whether its slices fit together.

Both are ratios of the prediction's to the reference's, 1.0 is right. A regression blurs, so its
high-frequency ratio is below 1; slices that were sampled apart flicker, so their slice ratio is
above 1. Errors of place do not count here: that is what `metrics` is for.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medtrans.volumes.voxels import Mask, Voxels

# A Gaussian of 1.5 px passes half of the amplitude at 0.125 cycles per pixel, so what it leaves is
# detail finer than about 8 pixels.
BLUR_PX = 1.5
_TINY = 1e-12


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


def _step(slices: Voxels, both: Mask) -> float:
    return float(np.mean(np.abs(np.diff(slices, axis=0))[both], dtype=np.float64))


def _detail(values: Voxels, mask: Mask, weight: Voxels, axis: int) -> float:
    smooth = _blur(np.where(mask, values, np.float32(0)), axis)[mask] / weight[mask]
    return float(np.mean((values[mask] - smooth) ** 2, dtype=np.float64))


def _blur(values: Voxels, axis: int) -> Voxels:
    sigmas = [0.0 if a == axis else BLUR_PX for a in range(values.ndim)]
    return np.asarray(ndimage.gaussian_filter(values, sigmas, mode="constant", truncate=3.0))
