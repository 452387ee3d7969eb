"""Images of other libraries into volumes and back, for `Translator.translate`.

What a file's reader checks, converts and warns of, it checks, converts and warns of here, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.data import MetaTensor

from medtrans.config.terms import Kind
from medtrans.errors import InputWarning, UsageError
from medtrans.volumes import geometry
from medtrans.volumes.contrast import from_name
from medtrans.volumes.files import to_volume
from medtrans.volumes.geometry import Affine
from medtrans.volumes.nifti_affine import place
from medtrans.volumes.source import Source, split_suffix, unreadable_on_error
from medtrans.volumes.voxels import Loaded, Stored, Voxels, to_float32

_UNNAMED = Path("the image")


class _Image(NamedTuple):
    """What there is to know of an image: its affine is voxel to RAS+ mm."""

    array: Stored
    affine: Affine
    kind: Kind = "nifti"
    path: Path = _UNNAMED
    warnings: tuple[str, ...] = ()
    source: Source | None = None


def from_image(image: object) -> MetaTensor:
    """Turn an image into a volume.

    Parameters
    ----------
    image : MetaTensor, nibabel image, SimpleITK image or (array, affine)
        Three-dimensional; an array is (X, Y, Z) with a voxel-to-RAS affine in mm. Images of
        nibabel and SimpleITK may have two axes, or further ones of length 1, as their files.

    Returns
    -------
    MetaTensor
        As `read_volume` gives it; the warnings are in its `Source`.

    Raises
    ------
    UsageError
        For anything else, another number of dimensions, or voxels that are no real numbers.
    UnreadableFileError
        When more than half of the voxels are not finite.
    GeometryError
        When the affine is unusable, or the image too large.
    """
    found = _unpack(image)
    array, where = found.array, str(found.path)
    if array.ndim != 3 or array.size == 0:
        raise UsageError(f"Expected an image of three dimensions, found shape {array.shape}.")
    if array.dtype.kind not in "biuf":
        raise UsageError(f"Expected real numbers as voxels, found the type {array.dtype}.")
    geometry.check_size(array.shape, array.dtype.itemsize, where)
    geometry.check_affine(found.affine, where)
    voxels, noted = to_float32(array, 1.0, 0.0, where)
    source = found.source or Source(
        path=found.path,
        kind=found.kind,
        sha256="",
        shape=array.shape,
        affine=tuple(found.affine.ravel().tolist()),
        header=None,
        warnings=(*found.warnings, *noted),
        contrast=None if found.path == _UNNAMED else from_name(split_suffix(found.path)[0]),
    )
    return to_volume(Loaded(voxels, found.affine, source, str(array.dtype)))


def to_image(voxels: Voxels, like: object) -> object:
    """Turn voxels (X, Y, Z) on the grid of `like` into an image of its kind.

    Of its header only what places the voxels is kept, and no text.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z).
    like
        An image that `from_image` takes.
    """
    if isinstance(like, MetaTensor):
        import torch

        return MetaTensor(torch.from_numpy(voxels), affine=like.affine)
    if isinstance(like, tuple):
        return voxels, np.array(like[1], dtype=np.float64)
    if _library(like) == "nibabel":
        return _nibabel_like(voxels, like)
    from medtrans.volumes import itk

    return itk.image_like(voxels, like)


def warn_of(sentences: Iterable[str]) -> None:
    """Tell whoever called our caller what is unusual about an image, as an `InputWarning` each."""
    for sentence in sentences:
        warnings.warn(sentence, InputWarning, stacklevel=3)


def _unpack(image: object) -> _Image:
    if isinstance(image, MetaTensor):
        source = image.meta.get("source")
        known = source if isinstance(source, Source) else None
        return _Image(image.numpy(), np.asarray(image.affine, dtype=np.float64), source=known)
    if isinstance(image, tuple) and len(image) == 2:
        return _Image(np.asarray(image[0]), np.asarray(image[1], dtype=np.float64))
    if _library(image) == "nibabel":
        return _unpack_nibabel(image)
    if _library(image) == "SimpleITK":
        from medtrans.volumes import itk

        return _Image(_three_axes(itk.voxels_of(image)), itk.affine_of(image), "itk")
    raise UsageError(
        f"Expected a path, a nibabel or SimpleITK image, or (array, affine); found {type(image)}."
    )


def _unpack_nibabel(image: Any) -> _Image:
    path = Path(image.get_filename() or _UNNAMED)
    geometry.check_size(image.shape, 1, str(path))
    with unreadable_on_error(path):
        array = _three_axes(np.asanyarray(image.dataobj))
    affine = np.asarray(image.affine, dtype=np.float64)
    if "xyzt_units" not in image.header:  # MGH and others are in millimetres
        return _Image(array, affine, path=path)
    affine, noted = place(image.header, affine, path)
    return _Image(array, affine, path=path, warnings=tuple(noted))


def _three_axes(array: Stored) -> Stored:
    """Give a 2D image its third axis, and take further axes of length 1 away."""
    if array.ndim == 2 or (array.ndim > 3 and set(array.shape[3:]) == {1}):
        return array.reshape((*array.shape, 1)[:3])
    return array


def _nibabel_like(voxels: Voxels, like: Any) -> object:
    """Keep affine, qform, sform and units; drop the input's type, scaling and every text."""
    shaped = voxels.reshape(like.shape)
    if "xyzt_units" not in like.header:
        return type(like)(shaped, like.affine)
    from medtrans.volumes import nifti

    header = nifti.grid_only(like.header)
    header.set_data_dtype(np.float32)
    header["descrip"] = b"SYNTHETIC by medtrans; not acquired"
    return type(like)(shaped, like.affine, header)


def _library(image: object) -> str:
    return type(image).__module__.partition(".")[0]
