"""All scores of one prediction against one real image, in every region."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from monai.data import MetaTensor
from torch import Tensor

from medtrans.evaluate import metrics
from medtrans.evaluate.realism import distance_between, features
from medtrans.evaluate.regions import FOREGROUND, WHOLE, Regions
from medtrans.evaluate.texture import Texture
from medtrans.preprocessing.intensity import Profile
from medtrans.system.devices import usable_threads
from medtrans.system.workers import map_on_single_threads
from medtrans.volumes.contrast import TISSUES_HU, in_hu
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

Scores = dict[str, float]
"""Scores by name; one that is not defined is left out."""
_ByRegion = dict[str, dict[str, float | None]]

FIT = "_fit"  # ends the name of a score that was taken after the linear fit
# Two halves of one real brain's patches differ by 0.3 (standard deviation) at 50 patches, by 0.1
# at 100; a blur of 0.6 pixels makes 0.5.
FEWEST_PATCHES = 100


@dataclass(frozen=True, eq=False)
class Reference:
    """A real image, and what every prediction of it is compared with; measured once.

    Attributes
    ----------
    voxels : array of float32
        Shape (X, Y, Z), in the image's own unit.
    regions : mapping of str to array of bool
        What `regions_of` gives.
    window : Profile or None
        The fixed intensities that become 0 and 1, as for CT; None for MR, where each volume's own
        99.5th percentile of the foreground becomes 1.
    axis : int
        The array's axis along which predictions were made, slice by slice.
    """

    voxels: Voxels
    regions: Regions
    window: Profile | None = None
    axis: int = 2

    @property
    def foreground(self) -> Mask:
        """The patient; intensities are scaled and fitted by what is inside."""
        return self.regions[FOREGROUND]

    @cached_property
    def unit(self) -> Voxels:
        """The image on the scale of the comparison, [0, 1]."""
        return self.scaled(self.voxels)

    @property
    def textured(self) -> Regions:
        """Every region but the whole image, which is mostly air."""
        return {name: mask for name, mask in self.regions.items() if name != WHOLE}

    @cached_property
    def textures(self) -> dict[str, Texture]:
        """What ratios need, for every region with texture."""
        return self.measured(self.unit)

    @cached_property
    def features(self) -> Tensor:
        """What the kernel distance needs."""
        return self.described(self.unit)

    @cached_property
    def tissues(self) -> dict[str, Mask]:
        """Soft tissue and bone of a CT image in HU; nothing for any other."""
        if not in_hu(float(self.voxels.min())):
            return {}
        return {
            name: (self.voxels >= low) & (self.voxels < high)
            for name, (low, high) in TISSUES_HU.items()
        }

    def scaled(self, values: Voxels) -> Voxels:
        """Bring an image on this grid to the scale of the comparison."""
        if self.window is None:
            return metrics.unit_scale(values, self.foreground)
        scaled = self.window.normalise(values)
        scaled += np.float32(1)
        scaled *= np.float32(0.5)
        return scaled

    def measured(self, unit: Voxels) -> dict[str, Texture]:
        """Measure the texture of an image on the scale of the comparison."""
        return {name: Texture.of(unit, mask, self.axis) for name, mask in self.textured.items()}

    def described(self, unit: Voxels) -> Tensor:
        """Describe the foreground of an image on the scale of the comparison."""
        inside = np.where(self.foreground, np.clip(unit, 1e-6, 1), np.float32(0))
        return features(np.moveaxis(inside, self.axis, 0))


def score_regions(predicted: Voxels, reference: Reference) -> dict[str, Scores]:
    """Compare a prediction with the real image in every region, raw and after a linear fit.

    The fit is made in the foreground, once for all regions, and changes nothing outside it.

    Parameters
    ----------
    predicted : array of float32
        Shape (X, Y, Z), any intensity unit where the reference has no window.
    reference : Reference

    Returns
    -------
    dict
        By region: psnr, ssim, ms_ssim, mae, nrmse and, with the suffix `_fit`, the same after the
        fit; ncc. In all regions but the whole image high_frequency_ratio and slice_ratio, both
        also after the fit, detail_correlation and checkerboard_ratio. In the foreground
        kernel_distance. For a CT image mae_hu and bias_hu, and both in bone and soft tissue.
    """
    raw, truth = reference.scaled(predicted), reference.unit
    line = metrics.best_line(raw, truth, reference.foreground)
    fitted = np.where(reference.foreground, line(raw), raw)
    pieces: list[Callable[[], _ByRegion]] = [
        partial(_textures, raw, line.slope, reference),
        partial(_similarities, raw, reference),
        partial(_similarities, fitted, reference),
    ]
    texture, plain, after = map_on_single_threads(_called, pieces, usable_threads())
    return {
        name: _known(
            plain[name]
            | {f"{key}{FIT}": value for key, value in after[name].items()}
            | {"ncc": metrics.correlation(raw, truth, mask)}
            | texture.get(name, {})
            | _in_hu(predicted, reference, mask)
        )
        for name, mask in reference.regions.items()
    }


def score(
    predicted: Voxels,
    reference: Voxels,
    mask: Mask,
    window: Profile | None = None,
    axis: int = 2,
) -> Scores:
    """Compare two volumes in one mask, which is the foreground; see `Reference`."""
    truth = Reference(reference, {FOREGROUND: mask}, window, axis)
    return score_regions(predicted, truth)[FOREGROUND]


def array_axis(volume: MetaTensor, ras_axis: int) -> int:
    """Which axis of the stored array runs along this RAS axis, as nearly as any does.

    A single slice lies across its own axis, whatever the recipe says. The volume's shape is
    (X, Y, Z) as stored; `ras_axis` is 0 sagittal, 1 coronal, 2 axial.
    """
    if list(volume.shape).count(1) == 1:
        return list(volume.shape).index(1)
    affine = np.asarray(volume.affine)
    return int(np.argmax(np.abs(affine[ras_axis, :3]) / spacing_mm(affine)))


def _called(piece: Callable[[], _ByRegion]) -> _ByRegion:
    return piece()


def _similarities(unit: Voxels, reference: Reference) -> _ByRegion:
    """Compare voxel by voxel and window by window; maps are made once for all regions."""
    truth, regions = reference.unit, reference.regions
    ssim = metrics.ssim_map(unit, truth)
    ms_ssim = metrics.ms_ssim(unit, truth, regions, reference.axis)
    return {
        name: {
            "psnr": metrics.psnr(unit, truth, mask),
            "ssim": float(np.mean(ssim[mask], dtype=np.float64)),
            "ms_ssim": ms_ssim.get(name),
            "mae": metrics.mean_absolute_error(unit, truth, mask),
            "nrmse": metrics.nrmse(unit, truth, mask),
        }
        for name, mask in regions.items()
    }


def _textures(unit: Voxels, slope: float, reference: Reference) -> _ByRegion:
    """Compare textures. A linear map of slope s makes steps |s| times as large, energies s^2."""
    found: _ByRegion = {}
    for name, texture in reference.measured(unit).items():
        scores = texture.scores(reference.textures[name])
        grown = {"high_frequency_ratio": slope**2, "slice_ratio": abs(slope)}
        fitted = {f"{k}{FIT}": _times(scores[k], factor) for k, factor in grown.items()}
        found[name] = scores | fitted
    found[FOREGROUND]["kernel_distance"] = _kernel_distance(unit, reference)
    return found


def _kernel_distance(unit: Voxels, reference: Reference) -> float | None:
    if len(reference.features) < FEWEST_PATCHES:
        return None
    return distance_between(reference.described(unit), reference.features)


def _in_hu(predicted: Voxels, reference: Reference, mask: Mask) -> dict[str, float | None]:
    """MAE and bias in HU, of a CT image; over all of the mask, and over each tissue in it."""
    if not reference.tissues:
        return {}
    error = predicted[mask].astype(np.float64) - reference.voxels[mask]
    scores: dict[str, float | None] = {**_error_hu(error, "")}
    for name, tissue in reference.tissues.items():
        scores |= _error_hu(error[tissue[mask]], f"{name}_")
    return scores


def _error_hu(error: np.ndarray[tuple[int], np.dtype[np.float64]], what: str) -> Scores:
    if not error.size:
        return {}
    return {f"mae_{what}hu": float(np.abs(error).mean()), f"bias_{what}hu": float(error.mean())}


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _known(scores: Mapping[str, float | None]) -> Scores:
    return {name: value for name, value in scores.items() if value is not None}
