"""What a score is: similarity inside a mask, on a stated intensity scale.

scikit-image and MONAI compute the metrics. What is added here is the mask, and what to answer
where a score is not defined: None. Images that are compared lie on a [0, 1] scale, so that the
data range of PSNR, SSIM and MS-SSIM is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from monai.metrics.regression import compute_ssim_and_cs
from numpy.typing import NDArray
from skimage.measure import pearson_corr_coeff
from skimage.metrics import mean_squared_error, normalized_root_mse, structural_similarity
from torch.nn import functional

from medtrans.volumes.voxels import Mask, Voxels

DATA_RANGE = 1.0
UPPER_PERCENTILE = 99.5  # of the foreground: what counts as white when MR volumes are compared
NRMSE_NORMALISATION = "euclidean"  # skimage's word for the reference's root mean square
_LEAST_ERROR = 1e-12  # of a mean square: equal images have 120 dB
_LEAST_CONTRAST = 1e-5  # of the mean: below it a correlation is one of rounding errors

# MS-SSIM as Wang et al. (2003) and MONAI's MultiScaleSSIMMetric have it.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_KERNEL_PX, _KERNEL_SIGMA_PX = 11, 1.5
_RIM_PX = _KERNEL_PX // 2
_SLICES_AT_ONCE = 64  # bounds the memory; changes rounding only


@dataclass(frozen=True)
class Similarity:
    """PSNR in dB, SSIM and MAE, all inside a mask and on a [0, 1] scale."""

    psnr: float
    ssim: float
    mae: float

    def as_dict(self) -> dict[str, float]:
        """Give the scores by name."""
        return asdict(self)


@dataclass(frozen=True)
class Line:
    """A scale and a shift of intensities."""

    slope: float
    shift: float

    def __call__(self, values: Voxels) -> Voxels:
        """Map values of any shape."""
        scaled = values * np.float32(self.slope) + np.float32(self.shift)
        return np.asarray(scaled, dtype=np.float32)


def similarity(predicted: Voxels, reference: Voxels, mask: Mask) -> Similarity:
    """Compare two images of the same shape, (H, W) or (X, Y, Z), on a [0, 1] scale."""
    return Similarity(
        psnr=psnr(predicted, reference, mask),
        ssim=float(np.mean(ssim_map(predicted, reference)[mask])),
        mae=mean_absolute_error(predicted, reference, mask),
    )


def psnr(predicted: Voxels, reference: Voxels, mask: Mask) -> float:
    """Peak signal-to-noise ratio in dB inside a mask; 120 at most.

    Images and mask have one shape, (H, W) or (X, Y, Z); intensities lie on a [0, 1] scale.
    """
    error = mean_squared_error(reference[mask].astype(np.float64), predicted[mask])
    return float(10 * np.log10(DATA_RANGE**2 / max(float(error), _LEAST_ERROR)))


def mean_absolute_error(predicted: Voxels, reference: Voxels, mask: Mask) -> float:
    """MAE inside a mask, in the images' unit; all have one shape."""
    return float(np.mean(np.abs(predicted[mask] - reference[mask]), dtype=np.float64))


def nrmse(predicted: Voxels, reference: Voxels, mask: Mask) -> float | None:
    """Root mean square error over the reference's root mean square, both inside a mask.

    None where the reference is 0 throughout.
    """
    truth = reference[mask].astype(np.float64)
    if not truth.any():
        return None
    return float(normalized_root_mse(truth, predicted[mask], normalization=NRMSE_NORMALISATION))


def correlation(predicted: Voxels, reference: Voxels, mask: Mask) -> float | None:
    """Normalised cross-correlation (Pearson's) inside a mask; no linear map changes it but a sign.

    None where one of the images is constant, to float32's precision.
    """
    pair = [values[mask] for values in (predicted, reference)]
    if any(np.ptp(v) <= _LEAST_CONTRAST * abs(v.mean()) for v in pair):
        return None
    return float(pearson_corr_coeff(*pair)[0])


def ssim_map(predicted: Voxels, reference: Voxels) -> Voxels:
    """SSIM at every voxel: skimage's with a 7-wide uniform window, in as many dimensions.

    Images have one shape, (H, W) or (X, Y, Z), and lie on a [0, 1] scale. An axis of length one
    does not count, and the window shrinks to the shortest that does.
    """
    flat = [np.squeeze(values) for values in (predicted, reference)]
    window = min(7, *(size if size % 2 else size - 1 for size in flat[0].shape))
    _, ssim = structural_similarity(*flat, data_range=DATA_RANGE, full=True, win_size=window)
    return np.asarray(ssim, dtype=np.float32).reshape(predicted.shape)


def ms_ssim(
    predicted: Voxels, reference: Voxels, masks: Mapping[str, Mask], axis: int
) -> dict[str, float]:
    """Multi-scale SSIM in 2D, slice by slice, in several masks at once.

    MONAI's maps of structure and contrast at each scale are averaged over a mask, which is
    averaged down as the images are; their weighted product is the score. A mask may reach to the
    rim of the image, which is repeated beyond it. In the whole volume the rim does not count, and
    this is MONAI's MultiScaleSSIMMetric with the slices as channels.

    Parameters
    ----------
    predicted, reference : array of float32
        Shape (X, Y, Z), on a [0, 1] scale.
    masks : mapping of str to array of bool
        Shape (X, Y, Z), none of them empty.
    axis : int
        The arrays' axis along which the volume was cut into slices.

    Returns
    -------
    dict
        By the masks' names. Five scales where slices are 176 pixels wide or more, else as many
        as an 11-wide window fits into, with weights that sum to 1; empty where it fits into none.
    """
    scales = scales_of(predicted.shape, axis)
    if not scales:
        return {}
    weights = np.array(SCALE_WEIGHTS[:scales])
    if scales < len(SCALE_WEIGHTS):
        weights /= weights.sum()
    whole = frozenset(name for name, mask in masks.items() if mask.all())
    sums = {name: np.zeros((2, scales)) for name in masks}  # of similarity, and of the mask
    for first in range(0, predicted.shape[axis], _SLICES_AT_ONCE):
        images = [_slices(values, first, axis) for values in (predicted, reference)]
        some = {name: _slices(mask, first, axis) for name, mask in masks.items()}
        for scale in range(scales):
            found = _map(images, last=scale == scales - 1)
            for name, mask in some.items():
                share = _without_rim(mask) if name in whole else mask
                sums[name][:, scale] += _sum(found * share), _sum(share)
            images = [functional.avg_pool2d(image, 2) for image in images]
            some = {name: functional.avg_pool2d(mask, 2) for name, mask in some.items()}
    means = {name: found / weight for name, (found, weight) in sums.items()}
    return {k: float(np.prod(np.maximum(m, 0) ** weights)) for k, m in means.items()}


def scales_of(shape: tuple[int, ...], axis: int) -> int:
    """How many scales of MS-SSIM fit into the slices of a volume (X, Y, Z)."""
    side = min(size for a, size in enumerate(shape) if a != axis)
    return sum(side // 2**scale >= _KERNEL_PX for scale in range(len(SCALE_WEIGHTS)))


def unit_scale(values: Voxels, mask: Mask) -> Voxels:
    """Divide by the foreground's 99.5th percentile: MR intensities have no unit of their own.

    Values and mask have one shape, (H, W) or (X, Y, Z).
    """
    white = max(float(np.percentile(values[mask], UPPER_PERCENTILE)), 1e-6)
    return np.asarray(values / np.float32(white), dtype=np.float32)


def linear_fit(predicted: Voxels, reference: Voxels, mask: Mask) -> Voxels:
    """Scale and shift a prediction to fit the reference best, by least squares in the mask.

    Takes the two scanners' different gains out of the comparison; what is left is structure. All
    have one shape, (H, W) or (X, Y, Z).
    """
    return best_line(predicted, reference, mask)(predicted)


def best_line(predicted: Voxels, reference: Voxels, mask: Mask) -> Line:
    """Find the line that fits a prediction to the reference, by least squares in the mask."""
    x, y = predicted[mask].astype(np.float64), reference[mask].astype(np.float64)
    variance = float(np.var(x))  # 0 for a prediction without contrast, which no slope improves
    slope = float(np.mean((x - x.mean()) * (y - y.mean()))) / variance if variance > 0 else 0.0
    return Line(slope, float(y.mean() - slope * x.mean()))


def _slices(values: NDArray[np.generic], first: int, axis: int) -> torch.Tensor:
    """Take some slices of a volume as the channels of one image, (1, n, H, W)."""
    ahead = np.moveaxis(values, axis, 0)[first : first + _SLICES_AT_ONCE]
    return torch.from_numpy(np.ascontiguousarray(ahead, dtype=np.float32))[None]


def _map(images: list[torch.Tensor], *, last: bool) -> torch.Tensor:
    """Make MONAI's map of one scale: of contrast, or of similarity at the last."""
    padded = [functional.pad(image, (_RIM_PX,) * 4, "replicate") for image in images]
    size, sigma = (_KERNEL_PX, _KERNEL_PX), (_KERNEL_SIGMA_PX, _KERNEL_SIGMA_PX)
    ssim, contrast = compute_ssim_and_cs(*padded, 2, size, sigma, DATA_RANGE)
    return torch.as_tensor(ssim if last else contrast)


def _without_rim(mask: torch.Tensor) -> torch.Tensor:
    inner = mask[..., _RIM_PX:-_RIM_PX, _RIM_PX:-_RIM_PX]
    return functional.pad(inner, (_RIM_PX,) * 4)


def _sum(values: torch.Tensor) -> float:
    return float(values.sum(dtype=torch.float64))
