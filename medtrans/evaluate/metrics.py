"""Image similarity inside a mask, on a stated intensity scale."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from medtrans.volumes.voxels import Mask, Voxels

_UPPER_PERCENTILE = 99.5  # of the foreground: what counts as white when MR volumes are compared


@dataclass(frozen=True)
class Similarity:
    """PSNR in dB, SSIM and MAE, all inside a mask and on a [0, 1] scale."""

    psnr: float
    ssim: float
    mae: float

    def as_dict(self) -> dict[str, float]:
        """Give the scores by name."""
        return asdict(self)


def similarity(predicted: Voxels, reference: Voxels, mask: Mask) -> Similarity:
    """Compare two images of the same shape, (H, W) or (X, Y, Z), on a [0, 1] scale.

    SSIM is skimage's with a 7-wide window, averaged over the mask's voxels.
    """
    window = min(7, *(size if size % 2 else size - 1 for size in _squeezed(mask).shape))
    _, ssim = structural_similarity(
        _squeezed(predicted), _squeezed(reference), data_range=1.0, full=True, win_size=window
    )
    return Similarity(
        psnr=psnr(predicted, reference, mask),
        ssim=float(np.mean(ssim[_squeezed(mask)])),
        mae=float(np.mean(np.abs(predicted[mask] - reference[mask]))),
    )


def psnr(predicted: Voxels, reference: Voxels, mask: Mask) -> float:
    """Peak signal-to-noise ratio in dB inside a mask.

    Images and mask have one shape, (H, W) or (X, Y, Z); intensities lie on a [0, 1] scale.
    """
    difference = predicted[mask].astype(np.float64) - reference[mask]
    return float(-10 * np.log10(max(float(np.mean(difference**2)), 1e-12)))


def unit_scale(values: Voxels, mask: Mask) -> Voxels:
    """Divide by the foreground's 99.5th percentile: MR intensities have no unit of their own.

    Values and mask have one shape, (H, W) or (X, Y, Z).
    """
    white = max(float(np.percentile(values[mask], _UPPER_PERCENTILE)), 1e-6)
    return np.asarray(values / np.float32(white), dtype=np.float32)


def linear_fit(predicted: Voxels, reference: Voxels, mask: Mask) -> Voxels:
    """Scale and shift a prediction to fit the reference best, by least squares in the mask.

    Takes the two scanners' different gains out of the comparison; what is left is structure. All
    have one shape, (H, W) or (X, Y, Z).
    """
    x, y = predicted[mask].astype(np.float64), reference[mask].astype(np.float64)
    variance = float(np.var(x))  # 0 for a prediction without contrast, which no slope improves
    slope = float(np.mean((x - x.mean()) * (y - y.mean()))) / variance if variance > 0 else 0.0
    shift = y.mean() - slope * x.mean()
    return (predicted * np.float32(slope) + np.float32(shift)).astype(np.float32)


def _squeezed(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Drop axes of length one: SSIM of a single slice is 2D."""
    return np.squeeze(values)
