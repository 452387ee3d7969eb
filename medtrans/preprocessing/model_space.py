"""The MONAI pipeline of a recipe: a volume as the networks see it, and the way back.

`to_model_space` orients, resamples, finds the foreground and maps intensities; `crop` cuts and
pads to what the networks take; `to_input_space` undoes the geometry exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, Spacingd
from numpy.typing import NDArray

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Contrast
from medtrans.errors import FileError
from medtrans.preprocessing.foreground import dilate, find_foreground
from medtrans.preprocessing.intensity import Profile, measure_profile
from medtrans.volumes.voxels import Mask

_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
_SAME_SPACING = 1e-3  # relative; a smaller difference is not worth an interpolation
_IMAGE, _MASK = "image", "mask"
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
class ModelSpace:
    """A volume as the networks see it.

    Attributes
    ----------
    image : MetaTensor
        Shape (1, X, Y, Z), float32, RAS, in [-1, 1]; -1 outside the foreground.
    mask : MetaTensor
        Shape (1, X, Y, Z), bool: the dilated foreground, where something may be synthesised.
    profile : Profile
        What the input's intensities were mapped with.
    steps : Compose
        The orientation and resampling that were applied, which `to_input_space` walks back.
    crop : Crop or None
        What was cut after that.
    """

    image: MetaTensor
    mask: MetaTensor
    profile: Profile
    steps: Compose
    crop: Crop | None = None

    def without_voxels(self) -> ModelSpace:
        """Return only what `to_input_space` needs; for large volumes the rest is much memory."""
        empty = torch.empty(1).expand(self.image.shape)
        bare = MetaTensor(
            empty, meta=dict(self.image.meta), applied_operations=self.image.applied_operations
        )
        return replace(self, image=bare, mask=bare)


def to_model_space(
    volume: MetaTensor, contrast: Contrast, pipeline: Pipeline, mask: Mask | None = None
) -> ModelSpace:
    """Bring a volume into the space of a recipe.

    Parameters
    ----------
    volume : MetaTensor
        Shape (X, Y, Z) in the file's own orientation and unit, with its affine.
    contrast : str
        Chooses the recipe's intensity scale.
    pipeline : Pipeline
    mask : array of bool, optional
        Shape (X, Y, Z), on the volume's grid: the foreground, instead of finding it.

    Raises
    ------
    FileError
        When the volume has no foreground or no contrast, or the mask is empty.
    """
    found = find_foreground(volume.numpy()) if mask is None else mask
    image, inside, steps = _regrid(volume, found, pipeline)
    if not inside.any():
        raise FileError(
            "The mask marks no voxel to translate: expected some above 0, found none, or too few "
            "for the model's spacing. Give a mask that covers the patient."
        )
    voxels = image.numpy()[0]
    profile = measure_profile(voxels, inside, pipeline.contrasts[contrast])
    normalised = profile.normalise(voxels)
    normalised[~inside] = -1
    if not (normalised > -1).any():
        raise FileError(
            f"No voxel of the foreground is above {profile.low:g}, which is black for {contrast}: "
            "there is nothing to translate. Check the image's contrast and its unit."
        )
    support = dilate(inside, pipeline.volume.dilation_mm, spacing_mm(image))
    return ModelSpace(_like(image, normalised), _like(image, support), profile, steps)


def crop(space: ModelSpace, pipeline: Pipeline, axes: Sequence[int]) -> ModelSpace:
    """Cut to the foreground, and pad in-plane to what the networks can halve.

    `axes` are those that slices are cut along; an axis that is in-plane for one of them is padded.
    """
    in_plane = [any(other != a for other in axes) for a in range(3)]
    divisor = [pipeline.volume.divisible if flat else 1 for flat in in_plane]
    image, mask = space.image.numpy()[0], space.mask.numpy()[0]
    cut = _crop_of(mask, divisor)
    affine = np.asarray(space.image.affine) @ cut.shift
    return replace(
        space,
        image=_like(space.image, cut.apply(image, -1), affine),
        mask=_like(space.mask, cut.apply(mask, 0), affine),
        crop=cut,
    )


def to_input_space(
    prediction: NDArray[np.float32], space: ModelSpace, outside: float = -1
) -> NDArray[np.float32]:
    """Undo padding, cropping, resampling and reorientation.

    Parameters
    ----------
    prediction : array of float32
        Shape (X, Y, Z) of `space`.
    space : ModelSpace
        The (cropped) input that was translated.
    outside : float
        Fills what the crop had cut away.

    Returns
    -------
    array of float32
        Shape of the input volume, on its grid and in its orientation.
    """
    affine, whole = np.asarray(space.image.affine), prediction
    if space.crop is not None:
        affine, whole = affine @ np.linalg.inv(space.crop.shift), space.crop.undo(whole, outside)
    restored = space.steps.inverse({_IMAGE: _like(space.image, whole, affine)})[_IMAGE]
    return np.ascontiguousarray(restored.numpy()[0])


def spacing_mm(volume: MetaTensor) -> tuple[float, ...]:
    """Return the voxel size along each array axis, in mm."""
    return tuple(float(v) for v in np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0))


def _regrid(volume: MetaTensor, mask: Mask, pipeline: Pipeline) -> tuple[MetaTensor, Mask, Compose]:
    """Orient to RAS and, where the recipe asks for it and it matters, resample."""
    data = {
        _IMAGE: MetaTensor(volume.as_tensor()[None], affine=volume.affine),
        _MASK: MetaTensor(torch.from_numpy(mask.astype(np.uint8))[None], affine=volume.affine),
    }
    both = (_IMAGE, _MASK)
    steps: list[Any] = [
        Orientationd(both, axcodes="RAS", labels=_RAS_LABELS, allow_missing_keys=True)
    ]
    data = steps[0](data)
    own = spacing_mm(data[_IMAGE])
    wanted = [w if w > 0 else o for w, o in zip(pipeline.volume.spacing_mm, own, strict=True)]
    if not np.allclose(wanted, own, rtol=_SAME_SPACING, atol=0):
        modes = ("bilinear", "nearest")
        steps.append(
            Spacingd(both, wanted, mode=modes, padding_mode="border", allow_missing_keys=True)
        )
        data = steps[1](data)
    image = data[_IMAGE].to(torch.float32)
    return image, data[_MASK].numpy()[0] > 0, Compose(steps)


def _crop_of(mask: Mask, divisor: list[int]) -> Crop:
    """Lay a box around a mask, widened to multiples of `divisor` evenly on both sides."""
    spans = [np.flatnonzero(mask.any(axis=(a, b))) for a, b in ((1, 2), (0, 2), (0, 1))]
    start = tuple(int(span[0]) for span in spans)
    kept = tuple(int(span[-1]) + 1 - first for span, first in zip(spans, start, strict=True))
    size = tuple(-(-n // k) * k for n, k in zip(kept, divisor, strict=True))
    before = tuple((n - k) // 2 for n, k in zip(size, kept, strict=True))
    return Crop(mask.shape, size, start, before, kept)


def _like(image: MetaTensor, voxels: NDArray[Any], affine: Any = None) -> MetaTensor:
    """Give `image` other voxels: same affine unless given, same record of applied transforms."""
    tensor = torch.from_numpy(np.ascontiguousarray(voxels))[None]
    record = deepcopy(image.applied_operations)  # an inverse takes it apart
    placed = MetaTensor(tensor, meta=dict(image.meta), applied_operations=record)
    if affine is not None:
        placed.affine = torch.as_tensor(affine)
    return placed
