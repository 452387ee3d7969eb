"""Carry an atlas head's brain to another head: similarity, affine, then B-spline.

Mutual information (Mattes et al., IEEE TMI 2003) is the metric throughout, so that scanners and
contrasts may differ. Every step runs on one thread, which makes its result the same every time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from skimage.filters import threshold_otsu

from medtrans.brain.atlas import GRID_MM, Head
from medtrans.brain.grid import Coarse
from medtrans.volumes.voxels import Mask, Voxels

_BINS = 24
_SEED = 7
_NODS = (0.0, -0.3, 0.3)  # rad, about the left-right axis: how a head may lie
_CAP_MM, _DEPTH_MM = 135.0, 70.0  # below the crown: what shows where it is, and the brain's middle
_BAND_VOXELS = 4  # around the brain: what the B-spline looks at
_MESH = (5, 5, 5)
_LBFGSB = (1e-5, 12, 5, 40)  # tolerance, iterations, corrections, evaluations


def carry_brain(head: Coarse, atlas: Head, contrast: str) -> Voxels:
    """Return the share of brain (X, Y, Z) on a head's grid, as an atlas head has it.

    Parameters
    ----------
    head : Coarse
    atlas : Head
    contrast : str
        The head's; an atlas head without it is compared in its first one.

    Raises
    ------
    RuntimeError
        From SimpleITK, when the two do not overlap anywhere.
    """
    shown = atlas.shown_in(contrast)
    pair = _Pair(head.voxels, head.seen, atlas.images[shown], atlas.seen[shown])
    affine = pair.affine()
    brain = _image(atlas.brain)
    rough = sitk.Resample(brain, pair.fixed, affine, sitk.sitkLinear, 0.0) > 0.5
    warp = sitk.CompositeTransform([affine, pair.bspline(affine, rough)])
    carried = sitk.Resample(brain, pair.fixed, warp, sitk.sitkLinear, 0.0)
    return np.asarray(sitk.GetArrayFromImage(carried).transpose(2, 1, 0), dtype=np.float32)


class _Pair:
    """A head (fixed) and an atlas head (moving), each with what its scan has seen."""

    def __init__(self, fixed: Voxels, fixed_seen: Mask, moving: Voxels, moving_seen: Mask) -> None:
        self.fixed, self.moving = _image(fixed), _image(moving)
        crown = _crown(fixed)
        upper = np.arange(fixed.shape[2]) > crown[2] - _CAP_MM / GRID_MM  # the atlas has no neck
        self.fixed_seen, self.moving_seen = _mask(fixed_seen & upper), _mask(moving_seen)
        self.crown = self.fixed.TransformContinuousIndexToPhysicalPoint(crown)
        self.atlas_crown = self.moving.TransformContinuousIndexToPhysicalPoint(_crown(moving))

    def affine(self) -> sitk.AffineTransform:
        """Register from the crown downwards, from several nods, and keep the best."""
        tried = [self._nod(angle) for angle in _NODS]
        best = min(tried, key=lambda pair: pair[0])[1]
        affine = sitk.AffineTransform(3)
        affine.SetCenter(best.GetCenter())
        affine.SetMatrix(best.GetMatrix())
        affine.SetTranslation(best.GetTranslation())
        self._descend(affine, [2, 1], 60, step=1.0, share=0.2)
        return affine

    def bspline(self, affine: sitk.AffineTransform, rough: sitk.Image) -> sitk.BSplineTransform:
        """Register what lies in and close around the brain."""
        band = sitk.BinaryDilate(rough, [_BAND_VOXELS] * 3)
        method = self._method(0.2)
        method.SetMetricFixedMask(sitk.And(band, self.fixed_seen))
        warp = sitk.BSplineTransformInitializer(self.fixed, list(_MESH))
        method.SetMovingInitialTransform(affine)
        method.SetInitialTransform(warp, True)
        method.SetOptimizerAsLBFGSB(*_LBFGSB)
        method.Execute(self.fixed, self.moving)
        return warp

    def _nod(self, angle: float) -> tuple[float, sitk.Similarity3DTransform]:
        crown = np.array(self.crown)
        start = sitk.Similarity3DTransform()
        start.SetCenter((crown - [0, 0, _DEPTH_MM]).tolist())
        start.SetRotation([1, 0, 0], angle)
        start.SetTranslation((np.array(self.atlas_crown) - crown).tolist())
        return self._descend(start, [3, 2], 40, step=4.0, share=0.5), start

    def _descend(
        self,
        start: sitk.Transform,
        shrink: list[int],
        iterations: int,
        *,
        step: float,
        share: float,
    ) -> float:
        """Move a transform, in place; returns the metric, which is lower for the better."""
        method = self._method(share)
        method.SetMetricFixedMask(self.fixed_seen)
        method.SetShrinkFactorsPerLevel(shrink)
        method.SetSmoothingSigmasPerLevel([GRID_MM * n if n > 1 else 0 for n in shrink])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        method.SetOptimizerAsRegularStepGradientDescent(step, 0.02, iterations, 0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(start, True)
        method.Execute(self.fixed, self.moving)
        return float(method.GetMetricValue())

    def _method(self, share: float) -> sitk.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, _SEED)
        method.SetMetricMovingMask(self.moving_seen)
        return method


def _crown(voxels: Voxels) -> list[float]:
    """Find the top of a head (X, Y, Z), and its middle below that; voxel coordinates."""
    points = np.argwhere(voxels > 0.6 * threshold_otsu(voxels))
    top = float(np.percentile(points[:, 2], 99.9))
    cap = points[points[:, 2] > top - _CAP_MM / GRID_MM]
    left, right = cap[:, 0].min(), cap[:, 0].max()
    back, front = np.percentile(cap[:, 1], (0.5, 99.5))
    return [float(left + right) / 2, float(back + front) / 2, top]


def _image(voxels: npt.NDArray[np.generic]) -> sitk.Image:
    """Give an array (X, Y, Z) as an image whose centre is the origin."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing([GRID_MM] * 3)
    image.SetOrigin([-(n - 1) * GRID_MM / 2 for n in voxels.shape])
    return image


def _mask(mask: Mask) -> sitk.Image:
    return _image(mask.astype(np.uint8))
