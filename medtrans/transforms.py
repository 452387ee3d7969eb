"""The MONAI pipeline of a recipe: a volume as the networks see it, and the way back.

`to_model_space` orients, resamples, finds the foreground and maps intensities; `crop` cuts and
pads to what the networks take; `to_input_space` undoes the geometry exactly.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, DivisiblePadd, Orientationd, Spacingd
from numpy.typing import NDArray

from medtrans.config import Pipeline
from medtrans.errors import FileError
from medtrans.foreground import Mask, dilate, find_foreground
from medtrans.intensity import Profile, measure_profile

_RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))
_SAME_SPACING = 1e-3  # relative; a smaller difference is not worth an interpolation
_IMAGE, _MASK = "image", "mask"


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
        The geometric transforms that were applied, which `to_input_space` walks back.
    """

    image: MetaTensor
    mask: MetaTensor
    profile: Profile
    steps: Compose


def to_model_space(
    volume: MetaTensor, contrast: str, pipeline: Pipeline, mask: Mask | None = None
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
    profile = measure_profile(voxels, inside, pipeline.contrasts[contrast])  # type: ignore[index]
    normalised = np.where(inside, profile.normalise(voxels), np.float32(-1))
    if not (normalised > -1).any():
        raise FileError(
            f"No voxel of the foreground is above {profile.low:g}, which is black for {contrast}: "
            "there is nothing to translate. Check the image's contrast and its unit."
        )
    support = dilate(inside, pipeline.volume.dilation_mm, spacing_mm(image))
    return ModelSpace(_like(image, normalised), _like(image, support), profile, steps)


def crop(space: ModelSpace, pipeline: Pipeline, axis: int) -> ModelSpace:
    """Cut to the foreground, and pad in-plane (across `axis`) to what the networks can halve."""
    divisor = [1 if a == axis else pipeline.volume.divisible for a in range(3)]
    both = (_IMAGE, _MASK)
    steps = [
        CropForegroundd(both, source_key=_MASK, allow_smaller=True, allow_missing_keys=True),
        DivisiblePadd(_IMAGE, k=divisor, mode="constant", constant_values=-1),
        DivisiblePadd(_MASK, k=divisor, mode="constant", value=0, allow_missing_keys=True),
    ]
    done = Compose(steps)({_IMAGE: space.image, _MASK: space.mask})
    return ModelSpace(done[_IMAGE], done[_MASK], space.profile, Compose([space.steps, *steps]))


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
        Fills what the crop had cut away. MONAI fills it with 0, the middle of the range, which
        resampling would blend into the outermost voxels.

    Returns
    -------
    array of float32
        Shape of the input volume, on its grid and in its orientation.
    """
    known = torch.from_numpy(np.stack([prediction, np.ones_like(prediction)]))
    record = deepcopy(space.image.applied_operations)  # the inverse takes it apart
    both = MetaTensor(known, meta=dict(space.image.meta), applied_operations=record)
    restored, share = space.steps.inverse({_IMAGE: both})[_IMAGE].numpy()
    return np.ascontiguousarray(restored + np.float32(outside) * (1 - share), dtype=np.float32)


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


def _like(image: MetaTensor, voxels: NDArray[Any]) -> MetaTensor:
    """Give `image` other voxels: same affine, same record of applied transforms."""
    tensor = torch.from_numpy(np.ascontiguousarray(voxels))[None]
    return MetaTensor(tensor, meta=dict(image.meta), applied_operations=image.applied_operations)
