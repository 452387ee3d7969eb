"""Images of other libraries into volumes and back, for `Translator.translate`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from medtrans.errors import UsageError
from medtrans.volumes.geometry import LPS_TO_RAS, check_affine


def from_image(image: Any) -> MetaTensor:
    """Turn an image into a volume.

    Parameters
    ----------
    image : MetaTensor, nibabel image, SimpleITK image or (array, affine)
        Three-dimensional; an array is (X, Y, Z) with a voxel-to-RAS affine in mm.

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


def to_image(voxels: NDArray[np.float32], like: Any) -> Any:
    """Turn voxels (X, Y, Z) on `like`'s grid into an image of `like`'s kind."""
    if isinstance(like, MetaTensor):
        return MetaTensor(torch.from_numpy(voxels), affine=like.affine)
    if isinstance(like, tuple):
        return voxels, np.array(like[1], dtype=np.float64)
    if _library(like) == "nibabel":
        return _nibabel_like(voxels, like)
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    image.CopyInformation(like)
    return image


def _unpack(image: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    if isinstance(image, MetaTensor):
        return image.numpy(), np.asarray(image.affine, dtype=np.float64)
    if isinstance(image, tuple) and len(image) == 2:
        return np.asarray(image[0]), np.asarray(image[1], dtype=np.float64)
    if _library(image) == "nibabel":
        return np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64)
    if _library(image) == "SimpleITK":
        return _unpack_itk(image)
    raise UsageError(
        f"Expected a path, a nibabel or SimpleITK image, or (array, affine); found {type(image)}."
    )


def _unpack_itk(image: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import SimpleITK as sitk

    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)
    if image.GetDimension() == 3:
        affine[:3, :3] = direction * np.array(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image)
    return voxels.transpose(range(voxels.ndim)[::-1]), LPS_TO_RAS @ affine


def _nibabel_like(voxels: NDArray[np.float32], like: Any) -> Any:
    """Keep affine, qform, sform and units; drop the input's type, scaling and free text."""
    header = like.header.copy()
    header.set_data_dtype(np.float32)
    if "descrip" in header:
        header["descrip"] = b"SYNTHETIC by medtrans; not acquired"
    return type(like)(voxels, like.affine, header)


def _library(image: Any) -> str:
    return type(image).__module__.partition(".")[0]
