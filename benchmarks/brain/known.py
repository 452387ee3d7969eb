"""Whole heads whose brains are known, and where in them these are.

The masks of the 3D MR image database of multiple sclerosis patients lie in a space that differs
from the heads' by a rigid movement, as does the stripped brain of tcga-fg-6692.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage.filters import threshold_otsu

from benchmarks.brain.masks import mask_of, move_onto

# In which contrast the brain of each head is looked for; all contrasts of one have one position.
LJUBLJANA = {
    "openms-long-04-study1": "t1",
    "openms-long-12-study1": "t2",
    "openms-long-12-study2": "t1",
}
TCGA = "tcga-fg-6692"
GRID_MM = 3.0
_TEMPLATE = "brain/openms-07/t1.nii.gz"
_CAP_MM, _NODS = 140.0, (0.0, -0.3, 0.3)


def known_mask(data: Path, subject: str) -> sitk.Image:
    """Return the data set's mask of a Ljubljana head, in its own space."""
    study = "openms-long-12-study1" if "long-12" in subject else subject
    return read(data / "raw_brain" / study / "brainmask_other_space.nii.gz") > 0.5


def brain_in_head(data: Path, subject: str) -> sitk.Image:
    """Find a Ljubljana head's own mask in it, on the grid of its contrast in `LJUBLJANA`.

    A stripped brain of the same data set is registered to the head to find where its brain is
    about; the head's own mask is then moved rigidly onto that.
    """
    head = read(data / "raw_brain" / subject / f"{LJUBLJANA[subject]}.nii.gz")
    return move_onto(known_mask(data, subject), about_where(head, read(data / _TEMPLATE)))


def brain_in_scan(data: Path, contrast: str) -> sitk.Image:
    """Register the stripped brain of `TCGA` rigidly to the whole head; its mask on that's grid."""
    head = read(data / "raw_brain" / TCGA / f"{contrast}.nii.gz")
    stripped = read(data / "brain" / TCGA / f"{contrast}.nii.gz")
    mask = mask_of(read(data / "brain" / TCGA / "t1.nii.gz"))
    start = sitk.CenteredTransformInitializer(
        head, stripped, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    movement = sitk.Euler3DTransform(start)
    method = _by_information(sitk.BinaryDilate(mask > 0.5, [3] * 3), 0.15)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 0])
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 120)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(movement, True)
    method.Execute(head, stripped)
    return sitk.Resample(mask, head, movement, sitk.sitkLinear, 0.0) > 0.5


def about_where(head: sitk.Image, template: sitk.Image) -> sitk.Image:
    """Register a stripped brain to a whole head; its mask on the head's grid, 0 or 1."""
    mask = mask_of(template)
    fixed, moving, inside = (_at_3_mm(image) for image in (head, template, mask))
    ring = sitk.BinaryDilate(inside > 0.5, [3] * 3)
    crown, top = _crown(fixed), _crown(inside)

    def descend(start: sitk.Transform, shrink: int, iterations: int, step: float) -> float:
        method = _by_information(ring, 0.4)
        method.SetShrinkFactorsPerLevel([shrink])
        method.SetSmoothingSigmasPerLevel([shrink])
        method.SetOptimizerAsRegularStepGradientDescent(step, 0.02, iterations, 0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(start, True)
        method.Execute(fixed, moving)
        return float(method.GetMetricValue())

    def nod(angle: float) -> tuple[float, sitk.Similarity3DTransform]:
        start = sitk.Similarity3DTransform()
        start.SetCenter((crown - [0, 0, 75]).tolist())
        start.SetRotation([1, 0, 0], angle)
        start.SetTranslation((top - crown + [0, 0, 12]).tolist())
        return descend(start, 3, 40, 4.0), start

    best = min((nod(angle) for angle in _NODS), key=lambda pair: pair[0])[1]
    descend(best, 2, 60, 1.0)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(best.GetCenter())
    affine.SetMatrix(best.GetMatrix())
    affine.SetTranslation(best.GetTranslation())
    descend(affine, 2, 60, 1.0)
    return sitk.Resample(mask, head, affine, sitk.sitkLinear, 0.0) > 0.5


def read(path: Path) -> sitk.Image:
    """Read an image as float32."""
    return sitk.ReadImage(str(path), sitk.sitkFloat32)


def _by_information(inside: sitk.Image, share: float) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(24)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(share, 7)
    method.SetMetricMovingMask(inside)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def _at_3_mm(image: sitk.Image) -> sitk.Image:
    """Blur what is finer, and resample along the image's own axes."""
    step, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    spare = [max(GRID_MM - mm, 0.0) / 2 for mm in step]
    smooth = sitk.SmoothingRecursiveGaussian(
        sitk.Cast(image, sitk.sitkFloat32), [max(sigma, 1e-3) for sigma in spare]
    )
    count = np.ceil(size * step / GRID_MM).astype(int).tolist()
    corner = image.TransformContinuousIndexToPhysicalPoint((-0.5 + GRID_MM / 2 / step).tolist())
    return sitk.Resample(
        smooth, count, sitk.Transform(), sitk.sitkLinear, corner, [GRID_MM] * 3,
        image.GetDirection(), 0.0, sitk.sitkFloat32,
    )  # fmt: skip


def _crown(image: sitk.Image) -> np.ndarray:
    """Top of a head or brain and the middle of what is below it, LPS mm."""
    voxels = sitk.GetArrayFromImage(image)
    index = np.argwhere(voxels > threshold_otsu(voxels))[::7, ::-1]
    affine = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    points = index @ affine.T + image.GetOrigin()
    top = np.percentile(points[:, 2], 99.8)
    cap = points[points[:, 2] > top - _CAP_MM]
    return np.array([*cap[:, :2].mean(axis=0), top])
