"""Brain masks: of stripped volumes, and moved rigidly onto one another."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

_NODS = (0.0, -0.3, 0.3)


def mask_of(stripped: sitk.Image) -> sitk.Image:
    """Return what is not the background of a stripped brain, holes filled, 0 or 1."""
    voxels = sitk.GetArrayFromImage(stripped)
    inside = ndimage.binary_fill_holes(voxels != voxels[0, 0, 0])
    mask = sitk.GetImageFromArray(inside.astype(np.float32))
    mask.CopyInformation(stripped)
    return mask


def move_onto(known: sitk.Image, found: sitk.Image) -> sitk.Image:
    """Move a mask rigidly onto another that differs a little in shape; on the other's grid."""
    fixed, moving = _blurred(found), _blurred(known)
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    tried = []
    for angle in _NODS:
        movement = sitk.Euler3DTransform(start)
        movement.SetRotation(angle, 0, 0)
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMeanSquares()
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(0.3)
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([2, 1, 0])
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 150)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(movement, True)
        method.Execute(fixed, moving)
        tried.append((method.GetMetricValue(), movement))
    best = min(tried, key=lambda pair: pair[0])[1]
    moved = sitk.Resample(sitk.Cast(known, sitk.sitkFloat32), found, best, sitk.sitkLinear, 0.0)
    return moved > 0.5


def dice(one: sitk.Image, other: sitk.Image) -> float:
    """Dice coefficient of two masks on one grid."""
    a, b = (sitk.GetArrayViewFromImage(image) > 0 for image in (one, other))
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def litres(mask: sitk.Image) -> float:
    """Return what a mask holds."""
    count = int((sitk.GetArrayViewFromImage(mask) > 0).sum())
    return count * float(np.prod(mask.GetSpacing())) / 1e6


def _blurred(mask: sitk.Image) -> sitk.Image:
    """Resample to 2 mm and blur, so that a gradient reaches across the surface."""
    step, size = np.array(mask.GetSpacing()), np.array(mask.GetSize())
    corner = mask.TransformContinuousIndexToPhysicalPoint((-0.5 + 1 / step).tolist())
    even = sitk.Resample(
        sitk.Cast(mask, sitk.sitkFloat32), np.ceil(size * step / 2).astype(int).tolist(),
        sitk.Transform(), sitk.sitkLinear, corner, [2.0] * 3, mask.GetDirection(), 0.0,
    )  # fmt: skip
    return sitk.SmoothingRecursiveGaussian(even, 2.0)
