"""Images of other libraries into volumes and back, for `Translator.translate`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from medtrans.errors import UsageError
from medtrans.volumes.geometry import Affine, check_affine
from medtrans.volumes.voxels import Stored, Voxels


def from_image(image: object) -> MetaTensor:
    """Turn an image into a volume.

    Parameters
    ----------
    image : MetaTensor, nibabel image, SimpleITK image or (array, affine)
        Three-dimensional; an array is (X, Y, Z) with a voxel-to-RAS affine in mm.

    Returns
    -------
    MetaTensor
        Shape (X, Y, Z), float32; its affine is float64, voxel to RAS mm.

    Raises
    ------
    UsageError
        For anything else, or another number of dimensions.
    GeometryError
        When the affine is unusable.
    """
    array, affine = _unpack(image)
    if array.ndim != 3 or array.size == 0:
        raise UsageError(f"Expected an image of three dimensions, found shape {array.shape}.")
    if np.iscomplexobj(array) or not np.isfinite(array).all():
        raise UsageError("Expected finite real voxels, found complex numbers, NaN or infinity.")
    check_affine(affine, "the image")
    voxels = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return MetaTensor(voxels, affine=torch.from_numpy(np.array(affine, dtype=np.float64)))


def to_image(voxels: Voxels, like: object) -> object:
    """Turn voxels (X, Y, Z) on the grid of `like` into an image of its kind.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z).
    like
        An image that `from_image` takes.
    """
    if isinstance(like, MetaTensor):
        return MetaTensor(torch.from_numpy(voxels), affine=like.affine)
    if isinstance(like, tuple):
        return voxels, np.array(like[1], dtype=np.float64)
    if _library(like) == "nibabel":
        return _nibabel_like(voxels, like)
    from medtrans.volumes import itk

    return itk.image_like(voxels, like)


def _unpack(image: object) -> tuple[Stored, Affine]:
    if isinstance(image, MetaTensor):
        return image.numpy(), np.asarray(image.affine, dtype=np.float64)
    if isinstance(image, tuple) and len(image) == 2:
        return np.asarray(image[0]), np.asarray(image[1], dtype=np.float64)
    if _library(image) == "nibabel":
        return _unpack_nibabel(image)
    if _library(image) == "SimpleITK":
        from medtrans.volumes import itk

        return itk.voxels_of(image), itk.affine_of(image)
    raise UsageError(
        f"Expected a path, a nibabel or SimpleITK image, or (array, affine); found {type(image)}."
    )


def _unpack_nibabel(image: Any) -> tuple[Stored, Affine]:
    return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)


def _nibabel_like(voxels: Voxels, like: Any) -> object:
    """Keep affine, qform, sform and units; drop the input's type, scaling and free text."""
    header = like.header.copy()
    header.set_data_dtype(np.float32)
    if "descrip" in header:
        header["descrip"] = b"SYNTHETIC by medtrans; not acquired"
    return type(like)(voxels, like.affine, header)


def _library(image: object) -> str:
    return type(image).__module__.partition(".")[0]
