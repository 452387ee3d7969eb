"""Label maps of heads: what the brain finder is trained on, drawn anew with random intensities.

A map has a tissue class in every voxel and a brain mask. The maps come from phantoms, from stripped
real brains inside phantom heads, and from whole real heads with a known mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from medtrans.phantom.anatomy import Head
from medtrans.phantom.heads import LABELS
from medtrans.volumes.files import load

STEP_MM = 3.0
AXES_MM = [
    np.arange(-99.0, 100.0, STEP_MM),
    np.arange(-119.0, 120.0, STEP_MM),
    np.arange(-131.0, 98.0, STEP_MM),
]
_PHANTOM_MARGIN_MM = 1.0  # of what a stripped phantom keeps inside the skull
_CENTRE_MM = (0.0, -6.0, 6.0)  # of a phantom's brain

Labels = npt.NDArray[np.uint8]
Volume = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeadMap:
    """A head, in RAS at 3 mm.

    Attributes
    ----------
    labels : array of uint8
        Shape (X, Y, Z); 0 is air.
    brain : array of bool
        Shape (X, Y, Z).
    images : tuple of array of float32
        What a scanner showed of it; none for a phantom.
    """

    labels: Labels
    brain: npt.NDArray[np.bool_]
    images: tuple[Volume, ...] = ()

    def save(self, path: Path) -> None:
        np.savez_compressed(path, labels=self.labels, brain=self.brain, images=self.images)

    @classmethod
    def read(cls, path: Path) -> HeadMap:
        with np.load(path) as arrays:
            images = tuple(np.asarray(image, np.float32) for image in arrays["images"])
            return cls(arrays["labels"], arrays["brain"], images)


def phantom(seed: int) -> HeadMap:
    """Draw a phantom."""
    labels, head = _paint(seed, None)
    return HeadMap(labels, head.cavity >= _PHANTOM_MARGIN_MM)


def around(brain: HeadMap, seed: int) -> HeadMap:
    """Draw a phantom's skull, scalp, face and neck around a stripped brain."""
    rng = np.random.default_rng(seed)
    closed = ndimage.binary_closing(np.pad(brain.brain, 8), iterations=4)[8:-8, 8:-8, 8:-8]
    inside = ndimage.distance_transform_edt(closed) - ndimage.distance_transform_edt(~closed)
    gap_mm = rng.uniform(0.5, 5.0)
    cavity = ndimage.gaussian_filter(inside * STEP_MM, 1.0) + gap_mm
    labels, head = _paint(seed, cavity.astype(np.float32))
    free = (head.cavity > 0) & ~brain.brain
    labels[free] = LABELS["csf"]
    labels[free & (head.cavity < rng.uniform(0, 2))] = max(LABELS.values()) + 1  # dura
    offset = max(LABELS.values()) + 2
    labels[brain.brain] = brain.labels[brain.brain] + offset
    return HeadMap(labels, brain.brain)


def stripped(paths: list[Path], classes: int, seed: int) -> HeadMap:
    """Cluster the contrasts of a stripped brain that lie on one grid."""
    images = [load(path, None, None) for path in paths]
    known = np.all([image.voxels != image.voxels[0, 0, 0] for image in images], axis=0)
    known = ndimage.binary_fill_holes(known)
    corner = np.argwhere(known)
    centre = images[0].affine @ [*(corner.min(0) + corner.max(0)) / 2, 1]
    grid = _grid(centre[:3] - _CENTRE_MM)
    brain = _sample(known.astype(np.float32), images[0].affine, grid) > 0.5
    shown = tuple(_sample(image.voxels, image.affine, grid) for image in images)
    labels = np.zeros(brain.shape, np.uint8)
    labels[brain] = _clusters(shown, brain, classes, seed)
    return HeadMap(labels, brain)


def whole(paths: list[Path], brain: npt.NDArray[np.bool_], centre: Volume, seed: int) -> HeadMap:
    """Cluster the contrasts of a whole head, inside and outside its brain by themselves."""
    images = [load(path, None, None) for path in paths]
    grid = _grid(centre)
    shown = tuple(_sample(image.voxels, image.affine, grid) for image in images)
    seen = np.all([_sample(np.ones_like(i.voxels), i.affine, grid) > 0.5 for i in images], axis=0)
    labels = np.ones(brain.shape, np.uint8)
    outside = seen & ~brain
    labels[outside] = _clusters(shown, outside, 10, seed) + 1
    air = 1 + np.argmin([shown[0][labels == k].mean() for k in range(1, 12)])
    labels[~seen | (labels == air)] = 0
    labels[brain] = _clusters(shown, brain, 10, seed) + 12
    return HeadMap(labels, brain & seen, shown)


def grid_about(centre: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """World coordinates (3, X, Y, Z) of the maps' voxels where the brain's centre is `centre`."""
    return _grid(np.asarray(centre) - _CENTRE_MM)


def sample(
    voxels: Volume, affine: npt.NDArray[np.float64], grid: npt.NDArray[np.float64]
) -> Volume:
    return _sample(voxels, affine, grid)


def _paint(seed: int, cavity: Volume | None) -> tuple[Labels, Head]:
    head = Head(np.random.default_rng([seed, 77]), AXES_MM)
    if cavity is not None:
        head.cavity = cavity
    labels = np.zeros(head.cavity.shape, np.uint8)
    for tissue, distance in head.layers():
        labels[distance > 0] = LABELS[tissue]
    return labels, head


def _grid(shift: npt.ArrayLike) -> npt.NDArray[np.float64]:
    axes = [axis + s for axis, s in zip(AXES_MM, np.asarray(shift), strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _sample(
    voxels: Volume, affine: npt.NDArray[np.float64], grid: npt.NDArray[np.float64]
) -> Volume:
    back = np.linalg.inv(affine)
    step = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = ndimage.gaussian_filter(
        voxels.astype(np.float32), np.maximum(STEP_MM / step - 1, 0) / 2
    )
    places = np.einsum("ij,jxyz->ixyz", back[:3, :3], grid) + back[:3, 3, None, None, None]
    return np.asarray(ndimage.map_coordinates(smooth, places, order=1, mode="constant"), np.float32)


def _clusters(
    images: tuple[Volume, ...], where: npt.NDArray[np.bool_], k: int, seed: int
) -> Labels:
    """Number the k-means clusters of the voxels, from 0."""
    points = np.stack([image[where] for image in images], axis=1)
    points = (points - points.mean(0)) / (points.std(0) + 1e-6)
    some = points[:: max(1, len(points) // 20000)]
    centres, _ = kmeans2(some, k, iter=30, minit="++", seed=seed)
    distance = np.stack([((points - centre) ** 2).sum(1) for centre in centres])
    return distance.argmin(0).astype(np.uint8)
