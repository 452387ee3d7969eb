"""Label maps of heads: what the brain finder is trained on, drawn anew with random intensities.

A map has a tissue class in every voxel and a brain mask. The maps come from phantoms, from stripped
real brains inside phantom heads, and from whole real heads with a known mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from medtrans.phantom.anatomy import Head
from medtrans.phantom.heads import LABELS
from medtrans.volumes.files import load
from medtrans.volumes.voxels import Loaded, Mask, Voxels

STEP_MM = 3.0
AXES_MM = [
    np.arange(-99.0, 100.0, STEP_MM),
    np.arange(-119.0, 120.0, STEP_MM),
    np.arange(-131.0, 98.0, STEP_MM),
]
_PHANTOM_MARGIN_MM = 1.0  # of what a stripped phantom keeps inside the skull
_CENTRE_MM = (0.0, -6.0, 6.0)  # of a phantom's brain
_CLASSES = 10  # inside the brain of a whole head, and as many outside

Labels = npt.NDArray[np.uint8]
Grid = npt.NDArray[np.float64]


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
    brain: Mask
    images: tuple[Voxels, ...] = ()

    def save(self, path: Path) -> None:
        """Write it as npz."""
        np.savez_compressed(path, labels=self.labels, brain=self.brain, images=self.images)

    @classmethod
    def read(cls, path: Path) -> HeadMap:
        """Read what `save` wrote."""
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


def stripped(paths: Sequence[Path], classes: int, seed: int) -> HeadMap:
    """Cluster the contrasts of a stripped brain that lie on one grid."""
    images = [load(path, None, None) for path in paths]
    known = np.all([image.voxels != image.voxels[0, 0, 0] for image in images], axis=0)
    known = ndimage.binary_fill_holes(known)
    grid = _grid_about(known, images[0].affine)
    brain = _sample(known.astype(np.float32), images[0].affine, grid) > 0.5
    labels = np.zeros(brain.shape, np.uint8)
    labels[brain] = _clusters([_sample_image(i, grid) for i in images], brain, classes, seed)
    return HeadMap(labels, brain)


def whole(paths: Sequence[Path], brain: Loaded, seed: int) -> HeadMap:
    """Cluster the contrasts of a whole head, inside and outside its brain by themselves.

    Parameters
    ----------
    paths : sequence of Path
        Contrasts in one position.
    brain : Loaded
        Its mask; holes are filled, and sulci narrower than 12 mm.
    seed : int
    """
    images = [load(path, None, None) for path in paths]
    grid = _grid_about(brain.voxels > 0.5, brain.affine)
    inside = _closed(_sample(brain.voxels, brain.affine, grid) > 0.5)
    shown = tuple(_sample_image(image, grid) for image in images)
    ones = [_sample(np.ones_like(i.voxels), i.affine, grid) for i in images]
    seen = np.min(ones, axis=0) > 0.5
    inside &= seen
    labels = np.ones(inside.shape, np.uint8)
    outside = seen & ~inside
    labels[outside] = _clusters(shown, outside, _CLASSES, seed) + 1
    found = np.unique(labels[outside])
    air = found[np.argmin([shown[0][labels == k].mean() for k in found])]
    labels[~seen | (labels == air)] = 0
    labels[inside] = _clusters(shown, inside, _CLASSES, seed) + _CLASSES + 2
    return HeadMap(labels, inside, shown)


def _closed(mask: Mask) -> Mask:
    closed = ndimage.binary_closing(np.pad(mask, 3), iterations=2)[3:-3, 3:-3, 3:-3]
    return np.asarray(ndimage.binary_fill_holes(closed | mask))


def _paint(seed: int, cavity: Voxels | None) -> tuple[Labels, Head]:
    head = Head(np.random.default_rng([seed, 77]), AXES_MM)
    if cavity is not None:
        head.cavity = cavity
    labels = np.zeros(head.cavity.shape, np.uint8)
    for tissue, distance in head.layers():
        labels[distance > 0] = LABELS[tissue]
    return labels, head


def _grid_about(mask: Mask, affine: Grid) -> Grid:
    """World coordinates (3, X, Y, Z) of a map's voxels, around a brain as around a phantom's."""
    corner = np.argwhere(mask)
    middle = affine @ [*(corner.min(0) + corner.max(0)) / 2, 1]
    shift = middle[:3] - _CENTRE_MM
    axes = [axis + s for axis, s in zip(AXES_MM, shift, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _sample_image(image: Loaded, grid: Grid) -> Voxels:
    return _sample(image.voxels, image.affine, grid)


def _sample(voxels: Voxels, affine: Grid, grid: Grid) -> Voxels:
    back = np.linalg.inv(affine)
    step = np.linalg.norm(affine[:3, :3], axis=0)
    smooth = ndimage.gaussian_filter(
        voxels.astype(np.float32), np.maximum(STEP_MM / step - 1, 0) / 2
    )
    places = np.einsum("ij,jxyz->ixyz", back[:3, :3], grid) + back[:3, 3, None, None, None]
    return np.asarray(ndimage.map_coordinates(smooth, places, order=1, mode="constant"), np.float32)


def _clusters(images: Sequence[Voxels], where: Mask, k: int, seed: int) -> Labels:
    """Give each voxel the number of its k-means cluster, from 0."""
    points = np.stack([image[where] for image in images], axis=1)
    points = (points - points.mean(0)) / (points.std(0) + 1e-6)
    some = points[:: max(1, len(points) // 20000)]
    centres, _ = kmeans2(some, k, iter=30, minit="++", seed=seed)
    distance = np.stack([((points - centre) ** 2).sum(1) for centre in centres])
    return distance.argmin(0).astype(np.uint8)
