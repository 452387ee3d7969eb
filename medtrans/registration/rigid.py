"""What SimpleITK does here: rigid registration of two contrasts, and N4.

The metric is Mattes mutual information (D. Mattes et al., "PET-CT image registration in the chest
using free-form deformations", IEEE TMI 22, 2003), from coarse to fine. Each level has a grid of its
own in millimetres, so that thick slices are not thinned out further. One thread and drawn voxels
from a fixed seed: the same two images always give the same movement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import SimpleITK

from medtrans.errors import GeometryError
from medtrans.preprocessing.foreground import dilate
from medtrans.registration.placed import Placed
from medtrans.volumes import geometry
from medtrans.volumes.geometry import Affine, spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

FINE_MM = (6.0, 3.0, 1.5)
COARSE_MM = (6.0, 3.0)  # finds displacements of a millimetre, in a third of the time

_AROUND_MM = 10.0  # around the patient is compared, too: an edge needs both its sides
_BLUR = 0.4  # sigma over the spacing of a level
_BINS = 32
_SAMPLES = 60_000  # voxels compared at a level
_FIRST_STEP = 1 / 3  # of a level's spacing
_LAST_STEP_MM, _ITERATIONS, _RELAXATION = 2e-3, 150, 0.6
_FLAT = 1e-8  # a gradient below this ends a descent; its own default would end it at once
_SEED = 1
_FEWEST = 4  # voxels along an axis that the recursive Gaussian can smooth
_N4_MM, _N4_ITERATIONS = 6.0, (40, 40, 30)


def register(fixed: Placed, moving: Placed, levels_mm: Sequence[float] = FINE_MM) -> Affine:
    """Find the rigid movement that brings two images of one patient together.

    It starts where the headers say, or where the centres of mass or the middles of the grids fall
    together, whichever is most alike.

    Parameters
    ----------
    fixed, moving : Placed
    levels_mm : sequence of float
        Spacing of the grids to work on, from coarse to fine.

    Returns
    -------
    array of float64
        Shape (4, 4): from a place of the fixed image to the same place of the moving one, in RAS
        mm.

    Raises
    ------
    GeometryError
        When a grid is sheared, or the images lie apart wherever the search begins.
    """
    transform = None
    with _one_thread():
        for level_mm in levels_mm:
            level = _level(fixed, moving, level_mm)
            if transform is None:
                transform = _best_start(level, fixed, moving)
            transform = _descend(level, transform, level_mm)
    assert transform is not None, "no level"
    return _matrix(transform)


def without_bias_field(voxels: Voxels, affine: Affine, region: Mask) -> Voxels:
    """Divide an MR image (X, Y, Z) by the smooth field of its coils, as N4 finds it.

    N. Tustison et al., "N4ITK: improved N3 bias correction", IEEE TMI 29 (2010).

    Parameters
    ----------
    voxels : array of float32
        Shape (X, Y, Z).
    affine : array
        Shape (4, 4), voxel to RAS mm.
    region : array of bool
        Shape (X, Y, Z): the patient.
    """
    lowest = min(0.0, float(voxels.min()))
    image = _image(voxels - lowest, affine)
    shrink = [max(1, int(_N4_MM / step)) for step in image.GetSpacing()]
    method = SimpleITK.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(_N4_ITERATIONS)
    mask = _image((region & (voxels > lowest)).astype(np.uint8), affine)
    with _one_thread():
        method.Execute(SimpleITK.Shrink(image, shrink), SimpleITK.Shrink(mask, shrink))
    field = SimpleITK.GetArrayFromImage(method.GetLogBiasFieldAsImage(image)).T
    return np.asarray((voxels - lowest) / np.exp(field) + lowest, dtype=np.float32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let ITK use one thread: the order of its sums would follow from their number."""
    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


class _Level(NamedTuple):
    """Both images at one resolution, and where the fixed one is compared."""

    fixed: SimpleITK.Image
    moving: SimpleITK.Image
    mask: SimpleITK.Image


def _level(fixed: Placed, moving: Placed, level_mm: float) -> _Level:
    smooth = _smoothed(fixed, level_mm)
    grid = _grid_over(smooth, level_mm)
    around = dilate(fixed.region, _AROUND_MM, spacing_mm(fixed.affine))
    mask = SimpleITK.Resample(
        _image(around.astype(np.uint8), fixed.affine), grid, SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor,
    )  # fmt: skip
    coarse = _smoothed(moving, level_mm)
    # Finer than the fixed one, since it is read between its voxels.
    coarse = SimpleITK.Resample(coarse, _grid_over(coarse, level_mm / 2))
    return _Level(SimpleITK.Resample(smooth, grid), coarse, mask)


def _method(level: _Level) -> SimpleITK.ImageRegistrationMethod:
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetMetricFixedMask(level.mask)
    share = _SAMPLES / level.fixed.GetNumberOfPixels()
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, _SEED)
    return method


def _best_start(level: _Level, fixed: Placed, moving: Placed) -> SimpleITK.Euler3DTransform:
    shifts = (
        np.zeros(3),
        moving.centre_mm - fixed.centre_mm,
        moving.middle_mm - fixed.middle_mm,
    )
    starts = [_moved(fixed.centre_mm, shift) for shift in shifts]
    return min(starts, key=lambda start: _cost(level, start))


def _cost(level: _Level, transform: SimpleITK.Transform) -> float:
    """Return minus the mutual information; infinite where the images do not overlap."""
    method = _method(level)
    method.SetInitialTransform(transform)
    try:
        return float(method.MetricEvaluate(level.fixed, level.moving))
    except RuntimeError:  # ITK: all samples map outside
        return np.inf


def _descend(
    level: _Level, start: SimpleITK.Euler3DTransform, level_mm: float
) -> SimpleITK.Euler3DTransform:
    method, moved = _method(level), SimpleITK.Euler3DTransform(start)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=_FIRST_STEP * level_mm,
        minStep=_LAST_STEP_MM,
        numberOfIterations=_ITERATIONS,
        relaxationFactor=_RELAXATION,
        gradientMagnitudeTolerance=_FLAT,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(moved, inPlace=True)
    try:
        method.Execute(level.fixed, level.moving)
    except RuntimeError:
        raise GeometryError(
            "The two images do not overlap, so they cannot be registered. Check that they show the "
            "same part of one patient."
        ) from None
    return moved


def _smoothed(placed: Placed, level_mm: float) -> SimpleITK.Image:
    """Clip to what is told apart, and smooth along the axes that are finer than the level."""
    image = _image(np.clip(placed.voxels, *placed.window()), placed.affine)
    for axis, (step, count) in enumerate(zip(image.GetSpacing(), image.GetSize(), strict=True)):
        if step < level_mm and count >= _FEWEST:
            smoothing = SimpleITK.RecursiveGaussianImageFilter()
            smoothing.SetSigma(_BLUR * level_mm)
            smoothing.SetDirection(axis)
            image = smoothing.Execute(image)
    return image


def _grid_over(image: SimpleITK.Image, step_mm: float) -> SimpleITK.Image:
    """Lay a grid over an image; axes that are coarser than the step keep their spacing."""
    old, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    new = np.maximum(old, step_mm)
    count = np.maximum(1, np.round(size * old / new)).astype(int)
    grid = SimpleITK.Image(count.tolist(), SimpleITK.sitkUInt8)
    grid.SetSpacing(new.tolist())
    grid.SetDirection(image.GetDirection())
    middle = image.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist())
    half = np.array(image.GetDirection()).reshape(3, 3) @ ((count - 1) / 2 * new)
    grid.SetOrigin((np.array(middle) - half).tolist())
    return grid


def _image(voxels: npt.NDArray[np.generic], affine: Affine) -> SimpleITK.Image:
    """Give voxels (X, Y, Z) to SimpleITK, whose images cannot be sheared."""
    if geometry.is_sheared(affine):
        raise GeometryError(
            "The voxel axes are not at right angles (a tilted gantry?), so the image cannot be "
            "registered. Resample it onto a straight grid first."
        )
    lps, spacing = geometry.LPS_TO_RAS @ affine, spacing_mm(affine)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def _moved(
    centre_mm: npt.NDArray[np.float64], shift_mm: npt.NDArray[np.float64]
) -> SimpleITK.Euler3DTransform:
    """Shift, about a centre; both RAS."""
    to_lps = np.diag(geometry.LPS_TO_RAS)[:3]
    transform = SimpleITK.Euler3DTransform()
    transform.SetCenter((to_lps * centre_mm).tolist())
    transform.SetTranslation((to_lps * shift_mm).tolist())
    return transform


def _matrix(transform: SimpleITK.Euler3DTransform) -> Affine:
    """Return a transform of LPS places as the (4, 4) matrix of RAS ones."""
    turn = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = turn, shift + centre - turn @ centre
    return np.asarray(geometry.LPS_TO_RAS @ lps @ geometry.LPS_TO_RAS)
