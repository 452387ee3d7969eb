"""All scores of a prediction against a reference, array against array or file against file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from medtrans.evaluate.metrics import linear_fit, similarity, unit_scale
from medtrans.evaluate.texture import checkerboard_ratio, high_frequency_ratio, slice_ratio
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import AXES
from medtrans.system.progress import say
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.contrast import in_hu
from medtrans.volumes.geometry import spacing_mm
from medtrans.volumes.voxels import Mask, Voxels


def score(
    predicted: Voxels,
    reference: Voxels,
    mask: Mask,
    window: Profile | None = None,
    axis: int = 2,
) -> dict[str, float]:
    """Compare two volumes in a mask, raw and after a linear fit.

    Parameters
    ----------
    predicted, reference : array of float32
        Shape (X, Y, Z), any intensity unit.
    mask : array of bool
        Shape (X, Y, Z).
    window : Profile, optional
        The fixed intensity window that becomes [0, 1]; None for MR, where each volume's own
        foreground percentile does.
    axis : int
        The arrays' axis along which the prediction was made, slice by slice.

    Returns
    -------
    dict
        psnr, ssim, mae, high_frequency_ratio and, where there is more than one slice, slice_ratio;
        the same after the fit with the suffix `_fit`; and checkerboard_ratio, where the mask is
        wide enough.
    """
    if window is None:
        raw, truth = unit_scale(predicted, mask), unit_scale(reference, mask)
    else:
        raw, truth = ((window.normalise(v) + 1) * np.float32(0.5) for v in (predicted, reference))
    plain = _scores(raw, truth, mask, axis)
    fitted = _scores(linear_fit(raw, truth, mask), truth, mask, axis)
    scores = {**plain, **{f"{key}_fit": value for key, value in fitted.items()}}
    grid = checkerboard_ratio(raw, truth, mask, axis)  # the same on any scale
    return scores if grid is None else {**scores, "checkerboard_ratio": grid}


def evaluate_files(
    prediction: Path,
    reference: Path,
    mask_path: Path | None,
    window: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Score one file against another on the same grid.

    `window` is the fixed intensity range that becomes [0, 1], as for CT; None for MR.
    """
    predicted, truth = read_volume(prediction), read_volume(reference)
    require_same_grid(predicted, truth, "The prediction and the reference")
    if mask_path is None:
        mask = find_foreground(truth.numpy())
    else:
        mask_volume = read_volume(mask_path)
        require_same_grid(mask_volume, truth, "The mask and the reference")
        mask = mask_volume.numpy() > 0
    if window is None and in_hu(float(truth.numpy().min())):
        say("The reference looks like CT, in HU: score it on a window, --window -1000 2000.")
    scale = None if window is None else Profile(*window)
    return score(predicted.numpy(), truth.numpy(), mask, scale, array_axis(truth, AXES["axial"]))


def array_axis(volume: MetaTensor, ras_axis: int) -> int:
    """Which axis of the stored array runs along this RAS axis, as nearly as any does.

    A single slice lies across its own axis, whatever the recipe says. The volume's shape is
    (X, Y, Z) as stored; `ras_axis` is 0 sagittal, 1 coronal, 2 axial.
    """
    if list(volume.shape).count(1) == 1:
        return list(volume.shape).index(1)
    affine = np.asarray(volume.affine)
    return int(np.argmax(np.abs(affine[ras_axis, :3]) / spacing_mm(affine)))


def _scores(predicted: Voxels, truth: Voxels, mask: Mask, axis: int) -> dict[str, float]:
    scores = similarity(predicted, truth, mask).as_dict()
    scores["high_frequency_ratio"] = high_frequency_ratio(predicted, truth, mask, axis)
    between = slice_ratio(predicted, truth, mask, axis)
    return scores if between is None else {**scores, "slice_ratio": between}
