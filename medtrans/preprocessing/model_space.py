"""A volume as the networks see it, and the way back: orientation, resampling, intensities, crop.

`to_model_space` orients, resamples and maps intensities; `ModelSpace.cropped` cuts and pads to what
the networks take; `to_input_space` undoes the geometry exactly. MONAI turns and resamples, and its
record of what it did is what the way back follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Orientationd, Spacingd
from numpy.typing import NDArray

from medtrans.config.schema import PercentileScale, WindowScale
from medtrans.errors import FileError
from medtrans.preprocessing.foreground import Region
from medtrans.preprocessing.intensity import Profile, measure_profile
from medtrans.volumes.geometry import RAS_LABELS, spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

_SAME_SPACING = 1e-3  # relative; a smaller difference is not worth an interpolation
_IMAGE, _REGION = "image", "region"
_MARGIN, _FOREGROUND = 1, 2  # labels of a region's voxels; 0 is background
Voxel = TypeVar("Voxel", bound=np.generic)


@dataclass(frozen=True)
class Crop:
    """Where a cropped and padded volume lies in the whole one.

    Attributes
    ----------
    whole, size : tuple of int
        Shape before and after.
    start : tuple of int
        The crop's first voxel in the whole volume.
    before : tuple of int
        Voxels of padding before it.
    kept : tuple of int
        Shape of what the two have in common.
    """

    whole: tuple[int, ...]
    size: tuple[int, ...]
    start: tuple[int, ...]
    before: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def shift(self) -> NDArray[np.float64]:
        """The (4, 4) matrix from voxels of the cropped volume to voxels of the whole one."""
        matrix = np.eye(4)
        matrix[:3, 3] = np.array(self.start) - self.before
        return matrix

    @property
    def outer(self) -> tuple[slice, ...]:
        """What was kept, in the whole volume."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.kept, strict=True))

    @property
    def inner(self) -> tuple[slice, ...]:
        """What was kept, in the cropped volume."""
        return tuple(slice(a, a + n) for a, n in zip(self.before, self.kept, strict=True))

    def apply(self, voxels: NDArray[Voxel], outside: float) -> NDArray[Voxel]:
        """(X, Y, Z) of shape `whole` -> `size`."""
        out = np.full(self.size, outside, dtype=voxels.dtype)
        out[self.inner] = voxels[self.outer]
        return out

    def undo(self, voxels: NDArray[Voxel], outside: float) -> NDArray[Voxel]:
        """(X, Y, Z) of shape `size` -> `whole`."""
        out = np.full(self.whole, outside, dtype=voxels.dtype)
        out[self.outer] = voxels[self.inner]
        return out


@dataclass(frozen=True)
class Placement:
    """How a volume was brought into the space of the networks: what `to_input_space` undoes.

    Attributes
    ----------
    turned : MetaTensor
        Shape (1, X, Y, Z) after orientation and resampling, with its affine and MONAI's record,
        but without voxels: it takes no memory.
    steps : Compose
        The orientation and resampling that were applied.
    crop : Crop or None
        What was cut after that.
    """

    turned: MetaTensor
    steps: Compose
    crop: Crop | None = None

    @property
    def affine(self) -> NDArray[np.float64]:
        """The (4, 4) matrix from voxels of the (cropped) volume to RAS in mm."""
        affine = np.asarray(self.turned.affine, dtype=np.float64)
        return affine if self.crop is None else affine @ self.crop.shift

    def filled(self, voxels: NDArray[np.generic]) -> MetaTensor:
        """Give the turned volume voxels (X, Y, Z), with a copy of the record."""
        record = deepcopy(self.turned.applied_operations)  # an inverse takes it apart
        tensor = torch.from_numpy(np.ascontiguousarray(voxels))[None]
        return MetaTensor(tensor, meta=dict(self.turned.meta), applied_operations=record)


@dataclass(frozen=True)
class ModelSpace:
    """A volume as the networks see it.

    Attributes
    ----------
    image : array of float32
        Shape (X, Y, Z), RAS, in [-1, 1]; -1 outside the foreground.
    margin : array of bool
        Shape (X, Y, Z): the dilated foreground, which a crop keeps.
    profile : Profile
        What the input's intensities were mapped with.
    placement : Placement
        Where it lies, and the way back.
    """

    image: Voxels
    margin: Mask
    profile: Profile
    placement: Placement

    def cropped(self, axes: Sequence[int], divisible: int) -> ModelSpace:
        """Cut to the margin, and pad in-plane to what the networks can halve.

        Parameters
        ----------
        axes : sequence of int
            What slices are cut along; an axis that is in-plane for one of them is padded.
        divisible : int
            What in-plane sizes become a multiple of, in voxels.
        """
        box = crop_to(self.margin, axes, divisible)
        return replace(
            self,
            image=box.apply(self.image, -1),
            margin=box.apply(self.margin, 0),
            placement=replace(self.placement, crop=box),
        )


def to_model_space(
    volume: MetaTensor,
    region: Region,
    scale: PercentileScale | WindowScale,
    target_mm: Sequence[float],
) -> ModelSpace:
    """Bring a volume into the space of the networks, whole.

    Parameters
    ----------
    volume : MetaTensor
        Shape (X, Y, Z) in the file's own orientation and unit, with its affine.
    region : Region
        Where the patient is, on the volume's grid.
    scale : PercentileScale or WindowScale
        How the recipe maps the contrast's intensities.
    target_mm : sequence of float
        Spacing along each RAS axis; 0 keeps the volume's own.

    Raises
    ------
    FileError
        When the region is empty or the volume has no contrast.
    """
    turned, labels, steps = _regrid(volume, region, target_mm)
    inside = labels == _FOREGROUND
    if not inside.any():
        raise FileError(
            "The mask marks no voxel to translate: expected some above 0, found none, or too few "
            "for the model's spacing. Give a mask that covers the patient."
        )
    voxels = turned.numpy()[0]
    profile = measure_profile(voxels, inside, scale)
    image = profile.normalise(voxels)
    image[~inside] = -1
    if not (image > -1).any():
        raise FileError(
            f"No voxel of the foreground is above {profile.low:g}, which is black for the model: "
            "there is nothing to translate. Check the image's contrast and its unit."
        )
    return ModelSpace(image, labels >= _MARGIN, profile, Placement(_without_voxels(turned), steps))


def to_input_space(prediction: Voxels, placement: Placement, outside: float = -1) -> Voxels:
    """Undo padding, cropping, resampling and reorientation.

    Parameters
    ----------
    prediction : array of float32
        Shape (X, Y, Z) of the space.
    placement : Placement
        Of the (cropped) input that was translated.
    outside : float
        Fills what the crop had cut away.

    Returns
    -------
    array of float32
        Shape of the input volume, on its grid and in its orientation.
    """
    crop = placement.crop
    whole = prediction if crop is None else crop.undo(prediction, outside)
    restored = placement.steps.inverse({_IMAGE: placement.filled(whole)})[_IMAGE]
    return np.ascontiguousarray(restored.numpy()[0])


def _regrid(
    volume: MetaTensor, region: Region, target_mm: Sequence[float]
) -> tuple[MetaTensor, NDArray[np.uint8], Compose]:
    """Orient to RAS and, where the recipe asks for it and it matters, resample.

    The region travels as one image of labels.
    """
    labels = region.margin.astype(np.uint8)
    labels[region.foreground] = _FOREGROUND
    data = {
        _IMAGE: MetaTensor(volume.as_tensor()[None], affine=volume.affine),
        _REGION: MetaTensor(torch.from_numpy(labels)[None], affine=volume.affine),
    }
    both = (_IMAGE, _REGION)
    steps: list[MapTransform] = [
        Orientationd(both, axcodes="RAS", labels=RAS_LABELS, allow_missing_keys=True)
    ]
    data = steps[0](data)
    stored_mm = spacing_mm(np.asarray(data[_IMAGE].affine))
    new_mm = [new if new > 0 else old for new, old in zip(target_mm, stored_mm, strict=True)]
    if not np.allclose(new_mm, stored_mm, rtol=_SAME_SPACING, atol=0):
        modes = ("bilinear", "nearest")
        steps.append(
            Spacingd(both, new_mm, mode=modes, padding_mode="border", allow_missing_keys=True)
        )
        data = steps[1](data)
    return data[_IMAGE].to(torch.float32), data[_REGION].numpy()[0], Compose(steps)


def _without_voxels(volume: MetaTensor) -> MetaTensor:
    """Keep a volume's shape, affine and record; for large volumes the rest is much memory."""
    empty = torch.empty(1).expand(volume.shape)
    return MetaTensor(empty, meta=dict(volume.meta), applied_operations=volume.applied_operations)


def crop_to(mask: Mask, axes: Sequence[int], divisible: int) -> Crop:
    """Lay a box around a mask that is not empty, widened evenly on both sides.

    Parameters
    ----------
    mask : array of bool
        Shape (X, Y, Z).
    axes, divisible
        As for `ModelSpace.cropped`.
    """
    in_plane = [any(other != axis for other in axes) for axis in range(3)]
    divisor = [divisible if flat else 1 for flat in in_plane]
    spans = [np.flatnonzero(mask.any(axis=(a, b))) for a, b in ((1, 2), (0, 2), (0, 1))]
    start = tuple(int(span[0]) for span in spans)
    kept = tuple(int(span[-1]) + 1 - first for span, first in zip(spans, start, strict=True))
    size = tuple(-(-n // k) * k for n, k in zip(kept, divisor, strict=True))
    before = tuple((n - k) // 2 for n, k in zip(size, kept, strict=True))
    return Crop(mask.shape, size, start, before, kept)
