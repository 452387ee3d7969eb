"""What counts as the same grid, a regular grid, and a usable affine: every tolerance is here.

Affines are 4 x 4, float64, voxel index to RAS+ millimetres, unless a name says LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medtrans.errors import GeometryError

Affine = npt.NDArray[np.float64]


class OnGrid(Protocol):
    """Anything with a shape (..., X, Y, Z) and an affine: a MetaTensor, a nibabel image."""

    @property
    def shape(self) -> Sequence[int]:
        """Voxels along each axis."""

    @property
    def affine(self) -> npt.ArrayLike:
        """Voxel to millimetres, shape (4, 4)."""


# Two grids are one grid when no corner of one lies further than this from that of the other.
SAME_GRID_MM = 1e-3
# qform and sform of one NIfTI header are told apart beyond this (both are stored as float32).
FORMS_AGREE_MM = 1e-2
# A spacing or an origin outside these is a damaged header, not a body.
SPACING_MM = (1e-3, 1e3)
MAX_ORIGIN_MM = 1e6
# Columns whose unit vectors span less volume than this are (nearly) in one plane.
MIN_UNIT_VOLUME = 1e-3
# Unit vectors that are this far from a right angle (as a cosine) are reported as shear.
SHEAR_COSINE = 1e-3
# DICOM cosines are decimal strings of at most 16 characters; vendors differ in the fifth digit.
DIRECTION_COSINE = 1e-4
UNIT_COSINE = 1e-3
# Where the cosines differ by more (anonymisers round them), the mean orientation may stand for all
# slices if it moves no corner of a slice by more than this share of the shortest side of a voxel.
CORNER_SHIFT_FRACTION = 0.1
# An image is in another plane than the stack, as a localizer's are, from this angle on.
OTHER_PLANE_DEGREES = 45.0
# A slice may lie this far from its place on the regular stack: whichever is larger, since
# positions are often written with two decimals.
SLICE_POSITION_MM = 0.02
SLICE_POSITION_FRACTION = 0.01
# Slices nearer than this to each other are at one position.
SAME_POSITION_MM = 1e-3
# Sideways drift of a whole stack per millimetre along its normal; a gantry tilt starts at 0.5 deg.
TILT_TANGENT = 2e-3
MIN_SLICES = 3

# Voxels and bytes of one volume on disk: 512 x 512 x 1024 of 4 bytes, whatever it is packed to.
MAX_VOXELS = 2**28
MAX_BYTES = 2**30

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Names of the two ends of each RAS axis, from negative to positive, as MONAI's Orientation takes
# them.
RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def spacing_mm(affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Length of each voxel axis in millimetres, shape (3,).

    Parameters
    ----------
    affine
        Shape (4, 4), voxel to millimetres; an array or a CPU tensor.
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    with np.errstate(over="ignore"):  # a damaged affine may hold 1e300: infinity says so too
        return np.asarray(np.sqrt((columns**2).sum(axis=0)))


def orientation(affine: Affine) -> str:
    """Nearest anatomical direction of each voxel axis, for instance ``"LPS"``."""
    cosines = affine[:3, :3] / spacing_mm(affine)
    letters = ["", "", ""]
    free = {0, 1, 2}
    for axis in np.argsort(-np.abs(cosines).max(axis=0), kind="stable"):
        world = max(free, key=lambda w: abs(cosines[w, axis]))
        free.remove(world)
        letters[axis] = RAS_LABELS[world][int(cosines[world, axis] > 0)]
    return "".join(letters)


def check_affine(affine: Affine, where: str) -> None:
    """Refuse an affine that does not map voxels one to one into a body-sized space.

    Parameters
    ----------
    affine
        Shape (4, 4), voxel to millimetres.
    where
        What to name in the sentence: the file, and the field in it.

    Raises
    ------
    GeometryError
        If it holds NaN or infinity, is singular, or has an impossible spacing or origin.
    """
    if not np.isfinite(affine).all():
        raise GeometryError(
            f"{where}: the affine holds NaN or infinity, so no voxel has a place; "
            "expected finite numbers. Convert the image again from its source."
        )
    spacing = spacing_mm(affine)
    low, high = SPACING_MM
    if not ((spacing >= low) & (spacing <= high)).all():
        raise GeometryError(
            f"{where}: the voxel spacing is {numbers(spacing)} mm; expected {low:g} to {high:g} mm "
            "on each axis. The header is damaged or in other units: convert the image again."
        )
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < MIN_UNIT_VOLUME:
        raise GeometryError(
            f"{where}: the affine is singular (two voxel axes point the same way), so the voxels "
            "do not fill a volume. Convert the image again from its source."
        )
    if np.abs(affine[:3, 3]).max() > MAX_ORIGIN_MM:
        raise GeometryError(
            f"{where}: the first voxel lies at {numbers(affine[:3, 3])} mm; expected within "
            f"{MAX_ORIGIN_MM:g} mm of the origin. The header is damaged: convert the image again."
        )


def is_sheared(affine: Affine) -> bool:
    """Whether two voxel axes are not at a right angle."""
    unit = affine[:3, :3] / spacing_mm(affine)
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() > SHEAR_COSINE)


def check_size(shape: Sequence[int], itemsize: int, where: str) -> None:
    """Refuse a volume too large to load, before anything is allocated.

    Parameters
    ----------
    shape
        Voxels along each axis, as the header declares them.
    itemsize
        Bytes of one voxel.
    where
        What to name in the sentence.

    Raises
    ------
    GeometryError
        If an axis is empty or the volume holds more than `MAX_VOXELS` voxels or `MAX_BYTES` bytes.
    """
    count = 1
    for length in shape:
        count *= int(length)
    if min(shape, default=0) < 1:
        raise GeometryError(
            f"{where}: the header declares the shape {grid(shape)}; expected at least one voxel "
            "on each axis. The header is damaged: convert the image again."
        )
    if count > MAX_VOXELS or count * itemsize > MAX_BYTES:
        raise GeometryError(
            f"{where}: the header declares {grid(shape)} voxels of {itemsize} bytes; medtrans "
            f"reads at most {MAX_VOXELS} voxels and {MAX_BYTES} bytes. Crop or resample the image."
        )


def corner_distance_mm(a: npt.ArrayLike, b: npt.ArrayLike, shape: Sequence[int]) -> float:
    """Largest distance in mm between the places that two affines give to one corner voxel.

    Parameters
    ----------
    a, b
        Affines, shape (4, 4), voxel to millimetres.
    shape
        Of the grid whose corners are compared; the first three axes count.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    last = [max(int(n) - 1, 0) for n in tuple(shape)[:3]]
    corners = np.array([[x, y, z, 1] for x in (0, last[0]) for y in (0, last[1])
                        for z in (0, last[2])], dtype=np.float64)  # fmt: skip
    return float(np.sqrt((((corners @ difference.T)[:, :3]) ** 2).sum(axis=1)).max())


def require_same_grid(a: OnGrid, b: OnGrid, what: str) -> None:
    """Refuse two volumes that do not lie on one voxel grid.

    Parameters
    ----------
    a, b
        Volumes with ``.shape`` (..., X, Y, Z) and ``.affine``.
    what
        What the two are, for the sentence: ``"the mask and the image"``.

    Raises
    ------
    GeometryError
        If the shapes differ, or a corner voxel lies more than `SAME_GRID_MM` apart.
    """
    remedy = "Register and resample one onto the other first (medtrans align does so)."
    if tuple(a.shape[-3:]) != tuple(b.shape[-3:]):
        raise GeometryError(
            f"{what} are not on one grid: expected the same shape, found {grid(a.shape[-3:])} "
            f"and {grid(b.shape[-3:])}. {remedy}"
        )
    distance = corner_distance_mm(a.affine, b.affine, a.shape[-3:])
    if not distance <= SAME_GRID_MM:
        raise GeometryError(
            f"{what} are not on one grid: the same corner voxel lies {distance:.3g} mm apart; "
            f"expected at most {SAME_GRID_MM:g} mm. {remedy}"
        )


def grid(shape: Sequence[int]) -> str:
    """Spell a shape: ``"182 x 218 x 182"``."""
    return " x ".join(str(int(n)) for n in shape)


def numbers(values: npt.ArrayLike) -> str:
    """Spell a few numbers: ``"1, 1, 2.5"``."""
    return ", ".join(f"{float(v):.6g}" for v in np.asarray(values, dtype=np.float64).ravel())
