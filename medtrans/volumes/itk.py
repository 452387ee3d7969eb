"""MHA, MHD and NRRD: the only home of SimpleITK, which also decodes what pydicom cannot."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK

from medtrans.errors import GeometryError, OutputError, UsageError
from medtrans.system.atomic import replacing
from medtrans.volumes import geometry, stream
from medtrans.volumes.contrast import from_name
from medtrans.volumes.geometry import Affine
from medtrans.volumes.itk_header import read_header
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.sidecar import Claim, sidecar_of, write_sidecar
from medtrans.volumes.source import Source, require_file, split_suffix, unreadable_on_error
from medtrans.volumes.voxels import Integers, Loaded, Stored, Voxels, to_float32


class Placement(NamedTuple):
    """Where an ITK image lies, in LPS: spacing and origin in mm, direction cosines row by row."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


def read(path: Path, volume: int | None = None) -> Loaded:
    """Read an MHA, MHD, NRRD or NHDR file into voxels in the file's own axis order.

    Parameters
    ----------
    path
        The file, or the header of a detached pair.
    volume
        Which one, from 0, of a file with several volumes.

    Returns
    -------
    Loaded
        Voxels float32 of shape (X, Y, Z); affine to RAS+ mm.

    Raises
    ------
    UnreadableFileError, GeometryError
        If the file is damaged, of another kind, or several volumes.
    """
    require_file(path)
    with unreadable_on_error(path), _quiet():
        header = read_header(path)
        header.verify()
        image = SimpleITK.ReadImage(str(path), imageIO=header.reader)  # whatever the name
        if tuple(image.GetSize()) != header.shape or image.GetNumberOfComponentsPerPixel() != 1:
            raise GeometryError(
                f"{path}: SimpleITK finds {geometry.grid(image.GetSize())} voxels of "
                f"{image.GetNumberOfComponentsPerPixel()} value(s) where the header declares "
                f"{geometry.grid(header.shape)} of one. Convert it to NIfTI."
            )
        stored = SimpleITK.GetArrayViewFromImage(image).T
        stored = _one_volume(stored, volume, path)
        affine = affine_of(image)
        geometry.check_affine(affine, str(path))
        array, warnings = to_float32(stored, 1.0, 0.0, str(path))
        digest = stream.sha256(path)
        if header.data != path:
            digest = hashlib.sha256(f"{digest}{stream.sha256(header.data)}".encode()).hexdigest()
    several = len(header.shape) == 4 and header.shape[3] > 1
    source = Source(
        path=path,
        kind="itk",
        sha256=digest,
        shape=header.shape[:3] if several else header.shape,
        affine=tuple(affine.ravel().tolist()),
        header=_placement(image, 3 if several else len(header.shape)),
        warnings=(*header.warnings, *warnings),
        contrast=from_name(split_suffix(path)[0]),
    )
    return Loaded(array, affine, source, str(stored.dtype))


def write(voxels: Stored, path: Path, source: Source, provenance: Provenance) -> list[Path]:
    """Write voxels as ``.mha`` or ``.nrrd``, labelled synthetic, with a JSON sidecar.

    An ITK source gives its spacing, origin and direction as they are: MHA repeats them bit for
    bit, NRRD, which stores their product, to within one unit in the last place.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z); integers keep their type, everything else becomes float32.
    path
        ``.mha`` or ``.nrrd``.
    source
        Whose grid the voxels lie on.
    provenance
        The label.

    Returns
    -------
    list of Path
        The image and the sidecar.

    Raises
    ------
    OutputError
        If the file cannot be written, or cannot hold the grid.
    """
    data = voxels.astype(np.uint8) if voxels.dtype == np.bool_ else voxels
    data = data if data.dtype.kind in "iu" else data.astype(np.float32)
    image = SimpleITK.GetImageFromArray(data.reshape(source.shape).T, isVector=False)
    placement = source.header
    if not isinstance(placement, Placement):
        placement = _from_affine(source.affine_matrix, len(source.shape), path)
    image.SetSpacing(placement.spacing)
    image.SetOrigin(placement.origin)
    image.SetDirection(placement.direction)
    image.SetMetaData("Comment", provenance.label())
    sidecar = sidecar_of(path, "itk")
    with replacing(path) as temporary, replacing(sidecar) as label, _quiet():
        try:
            SimpleITK.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError:
            raise OutputError(
                f"{path}: SimpleITK could not write the image. Check the folder's permissions "
                "and the free space, or ask for nifti output."
            ) from None
        claim = Claim.of(source, provenance)
        write_sidecar(label, provenance, sidecar, claim, {path: temporary})
    return [path, sidecar]


def image_like(voxels: Voxels, like: SimpleITK.Image) -> SimpleITK.Image:
    """Make an image with the spacing, origin and direction of another.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z).
    like
        An image of as many voxels.
    """
    image = SimpleITK.GetImageFromArray(voxels.reshape(like.GetSize()).T, isVector=False)
    image.CopyInformation(like)
    return image


def decode(content: bytes) -> Integers:
    """Decode the pixels of a DICOM file that holds nothing but pixels.

    Parameters
    ----------
    content
        The file's bytes, without rescale attributes, so that the stored integers come back.

    Returns
    -------
    array
        Shape (frames, rows, columns).
    """
    with tempfile.TemporaryDirectory(prefix="medtrans-") as folder, _quiet():
        file = Path(folder) / "pixels.dcm"
        file.write_bytes(content)
        image = SimpleITK.ReadImage(str(file), imageIO="GDCMImageIO")
    return np.asarray(SimpleITK.GetArrayFromImage(image))


def voxels_of(image: SimpleITK.Image) -> Stored:
    """Copy the voxels of an image; shape as its axes: (X, Y, Z) of a volume.

    Raises
    ------
    UsageError
        If a voxel holds several values.
    """
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise UsageError(
            f"Expected one value a voxel, found {image.GetNumberOfComponentsPerPixel()}: make the "
            "image grey first."
        )
    return np.asarray(SimpleITK.GetArrayFromImage(image).T)


def affine_of(image: SimpleITK.Image) -> Affine:
    """Affine of an image's first three axes: shape (4, 4), voxel to RAS+ mm."""
    axes = min(image.GetDimension(), 3)
    direction = np.array(image.GetDirection(), dtype=np.float64)
    direction = direction.reshape(image.GetDimension(), -1)[:axes, :axes]
    lps = np.eye(4)
    lps[:axes, :axes] = direction * np.array(image.GetSpacing()[:axes])
    lps[:axes, 3] = image.GetOrigin()[:axes]
    return np.asarray(geometry.LPS_TO_RAS @ lps)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence ITK's own warnings on stderr: they quote the file."""
    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)


def _one_volume(stored: Stored, volume: int | None, path: Path) -> Stored:
    """Pick one of (X, Y, Z, T), or give a 2D image its third axis."""
    count = stored.shape[3] if stored.ndim == 4 else 1
    if (volume is None and count > 1) or (volume is not None and not 0 <= volume < count):
        asked = "expected one volume" if volume is None else f"there is no volume {volume}"
        raise GeometryError(
            f"{path}: {asked}; the file has {count} ({geometry.grid(stored.shape)}). Pick one "
            f"with --volume 0 to {count - 1}."
        )
    return stored[..., volume or 0] if stored.ndim == 4 else stored.reshape((*stored.shape, 1)[:3])


def _placement(image: SimpleITK.Image, axes: int) -> Placement:
    """Spacing, origin and direction of the first `axes` axes."""
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:axes, :axes]
    return Placement(
        tuple(image.GetSpacing()[:axes]),
        tuple(image.GetOrigin()[:axes]),
        tuple(direction.ravel().tolist()),
    )


def _from_affine(affine: Affine, axes: int, path: Path) -> Placement:
    if geometry.is_sheared(affine) or axes == 2:
        raise OutputError(
            f"{path}: an MHA or NRRD file cannot hold the grid of this input (it is sheared, or "
            "a single slice in space). Ask for nifti output."
        )
    lps = geometry.LPS_TO_RAS @ affine
    spacing = geometry.spacing_mm(affine)
    direction, origin = np.eye(axes), np.zeros(axes)
    direction[:3, :3], origin[:3] = lps[:3, :3] / spacing, lps[:3, 3]
    lengths = np.ones(axes)
    lengths[:3] = spacing
    return Placement(
        tuple(lengths.tolist()), tuple(origin.tolist()), tuple(direction.ravel().tolist())
    )
