"""Make medtrans/brain/atlas.npz anew: python -m benchmarks.brain.atlas DATA.

DATA holds raw_brain/ and brain/ of the 3D MR image database of multiple sclerosis patients,
Ljubljana (github.com/muschellij2/open_ms_data, CC BY): whole heads, and their brain masks in a
space that differs by a rigid movement. A stripped brain of the same data set is registered to each
head to find where its brain is about; the head's own mask is then moved onto that.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage.filters import threshold_otsu

from benchmarks.brain.masks import mask_of, move_onto
from medtrans.brain import atlas

SUBJECTS = {"openms-long-04-study1": "t1", "openms-long-12-study1": "t2"}  # in what it is found
TEMPLATE = "brain/openms-07/t1.nii.gz"
CONTRASTS = ("t1", "t2", "flair")
SHAPE = (67, 80, 77)
ABOVE_CENTRE_MM = 97.0  # of the brain; the grid reaches farther down than up
_CAP_MM, _NODS = 140.0, (0.0, -0.3, 0.3)


def main(data: Path) -> None:
    """Write the shipped file."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    images, seen, brains = [], [], []
    for subject, contrast in SUBJECTS.items():
        folder = data / "raw_brain" / subject
        known = _read(folder / "brainmask_other_space.nii.gz") > 0.5
        head = _read(folder / f"{contrast}.nii.gz")
        brain = move_onto(known, about_where(head, _read(data / TEMPLATE)))
        grid = _grid_about(brain)
        scans = [_read(folder / f"{name}.nii.gz") for name in CONTRASTS]
        images.append([_bytes(_on(smooth(scan), grid)) for scan in scans])
        seen.append([_on(scan * 0 + 1, grid) > 0.99 for scan in scans])
        brains.append(np.rint(255 * _on(smooth(brain), grid)).astype(np.uint8))
    np.savez_compressed(
        Path(atlas.__file__).with_name("atlas.npz"),
        contrasts=np.array(CONTRASTS),
        images=np.array(images),
        seen=np.array(seen),
        brains=np.array(brains),
    )


def about_where(head: sitk.Image, template: sitk.Image) -> sitk.Image:
    """Register a stripped brain to a whole head; its mask on the head's grid, 0 or 1."""
    mask = mask_of(template)
    fixed, moving, inside = (at_3_mm(image) for image in (head, template, mask))
    ring = sitk.BinaryDilate(inside > 0.5, [3] * 3)
    crown, top = _crown(fixed), _crown(inside)

    def descend(start: sitk.Transform, shrink: int, iterations: int, step: float) -> float:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(24)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(0.4, 7)
        method.SetMetricMovingMask(ring)
        method.SetShrinkFactorsPerLevel([shrink])
        method.SetSmoothingSigmasPerLevel([shrink])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
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


def smooth(image: sitk.Image) -> sitk.Image:
    """Blur what is finer than the atlas, so that nothing aliases."""
    spare = [max(atlas.GRID_MM - step, 0.0) / 2 for step in image.GetSpacing()]
    return sitk.SmoothingRecursiveGaussian(
        sitk.Cast(image, sitk.sitkFloat32), [max(sigma, 1e-3) for sigma in spare]
    )


def at_3_mm(image: sitk.Image) -> sitk.Image:
    """Resample along the image's own axes."""
    step, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    count = np.ceil(size * step / atlas.GRID_MM).astype(int).tolist()
    corner = image.TransformContinuousIndexToPhysicalPoint(
        (-0.5 + atlas.GRID_MM / 2 / step).tolist()
    )
    return sitk.Resample(
        smooth(image), count, sitk.Transform(), sitk.sitkLinear, corner, [atlas.GRID_MM] * 3,
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


def _grid_about(brain: sitk.Image) -> sitk.Image:
    """Return an upright RAS grid around a brain."""
    index = np.argwhere(sitk.GetArrayViewFromImage(brain) > 0.5)[:, ::-1]
    middle = (index.min(axis=0) + index.max(axis=0)) / 2
    x, y, z = brain.TransformContinuousIndexToPhysicalPoint(middle.tolist())
    grid = sitk.Image(list(SHAPE), sitk.sitkUInt8)
    grid.SetSpacing([atlas.GRID_MM] * 3)
    half = [(n - 1) * atlas.GRID_MM / 2 for n in SHAPE]
    grid.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    grid.SetOrigin([x + half[0], y + half[1], z + ABOVE_CENTRE_MM - 2 * half[2]])
    return grid


def _on(image: sitk.Image, grid: sitk.Image) -> np.ndarray:
    moved = sitk.Resample(
        sitk.Cast(image, sitk.sitkFloat32), grid, sitk.Transform(), sitk.sitkLinear, 0.0
    )
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


def _bytes(voxels: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(255 * voxels / np.percentile(voxels, 99.9), 0, 255)).astype(np.uint8)


def _read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path), sitk.sitkFloat32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
