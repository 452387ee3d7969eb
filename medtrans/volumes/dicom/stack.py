"""Slices to a stack: sorted along the normal, evenly spaced, straight, or refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medtrans.errors import GeometryError
from medtrans.volumes import geometry
from medtrans.volumes.geometry import numbers

Floats = npt.NDArray[np.float64]

_POSITION = "(0020,0032) ImagePositionPatient"
_ORIENTATION = "(0020,0037) ImageOrientationPatient"
_AGAIN = "Export the whole series again from the scanner or archive."


@dataclass(frozen=True)
class Stack:
    """Order of the slices along the normal, and the affine of the sorted stack."""

    order: tuple[int, ...]
    affine: geometry.Affine


def normal(orientation: Floats) -> Floats:
    """Return the unit normal of a slice, shape (3,), LPS.

    Parameters
    ----------
    orientation
        Six direction cosines, of the rows and then of the columns (PS3.3 C.7.6.2.1.1).
    """
    cross = np.cross(orientation[:3], orientation[3:])
    return np.asarray(cross / np.linalg.norm(cross))


def common_orientation(
    orientations: Floats, sides_mm: Floats, voxel_mm: float, where: str
) -> tuple[Floats, list[str]]:
    """Find the one orientation of all slices, or refuse slices that are not parallel.

    Parameters
    ----------
    orientations
        Shape (slices, 6), as in ImageOrientationPatient.
    sides_mm
        Length of a row and of a column of the image.
    voxel_mm
        Shortest side of a voxel.
    where
        What to name in the sentence.

    Returns
    -------
    orientation : array (6,)
        The first slice's where all agree to `geometry.DIRECTION_COSINE`, else their mean.
    warnings : list of str
        What was corrected.

    Raises
    ------
    GeometryError
        If the cosines are no right-handed pair, or the mean would move a corner of a slice by more
        than `geometry.CORNER_SHIFT_FRACTION` of a voxel.
    """
    first = orientations[0]
    gram = first.reshape(2, 3) @ first.reshape(2, 3).T
    if not np.abs(gram - np.eye(2)).max() <= geometry.UNIT_COSINE:
        raise GeometryError(
            f"{where}: {_ORIENTATION} is {numbers(first)}; expected two unit vectors at a right "
            f"angle. {_AGAIN}"
        )
    away = np.abs(orientations - first).max(axis=1)
    if (away <= geometry.DIRECTION_COSINE).all():
        return first, []
    mean = _right_angled(orientations.mean(axis=0))
    shift = _corner_shift_mm(orientations - mean, sides_mm)
    if shift <= geometry.CORNER_SHIFT_FRACTION * voxel_mm:
        return mean, [
            f"{where}: {_ORIENTATION} differs between slices by up to {away.max():.1g}, as after "
            f"rounding; the mean is used, which moves no corner by more than {shift:.2g} mm."
        ]
    other = orientations[int(np.argmax(away))]
    raise GeometryError(
        f"{where}: the slices are not parallel: {_ORIENTATION} is {numbers(first)} in one and "
        f"{numbers(other)} in another; expected one orientation. Keep one stack of the series "
        "(a localizer or a reformat is mixed in) and leave the others out."
    )


def _right_angled(orientation: Floats) -> Floats:
    """Turn both vectors just so far that they are unit vectors at a right angle."""
    u, _, v = np.linalg.svd(orientation.reshape(2, 3), full_matrices=False)
    return np.asarray((u @ v).ravel())


def _corner_shift_mm(differences: Floats, sides_mm: Floats) -> float:
    """Largest way that a corner moves when the cosines of each slice change so much."""
    row, column = (differences.reshape(-1, 2, 3) * sides_mm[:, None]).transpose(1, 0, 2)
    return float(np.linalg.norm([row, column, row + column], axis=2).max())


def in_other_planes(orientations: Floats) -> list[int]:
    """Find the few images that lie in another plane than the stack, as those of a localizer.

    Parameters
    ----------
    orientations
        Shape (images, 6), as in ImageOrientationPatient.

    Returns
    -------
    list of int
        Their indices. Empty where there is no largest stack, or a second one of
        `geometry.MIN_SLICES` images.
    """
    with np.errstate(all="ignore"):
        normals = np.array([normal(orientation) for orientation in orientations])
    planes: list[list[int]] = []
    least = np.cos(np.radians(geometry.OTHER_PLANE_DEGREES))
    for index, direction in enumerate(normals):
        home = next((p for p in planes if abs(direction @ normals[p[0]]) > least), None)
        if home is None:
            planes.append([index])
        else:
            home.append(index)
    main, *others = sorted(planes, key=len, reverse=True)
    if len(main) < geometry.MIN_SLICES or any(len(o) >= geometry.MIN_SLICES for o in others):
        return []
    return sorted(index for plane in others for index in plane)


def positions_along(positions: Floats, orientation: Floats) -> Floats:
    """Distance of each slice from the origin along the normal, in mm, shape (slices,).

    Parameters
    ----------
    positions
        Shape (slices, 3), ImagePositionPatient in LPS mm.
    orientation
        Six direction cosines that all slices share.
    """
    return np.asarray(positions @ normal(orientation))


def group_by_position(positions: Floats, orientation: Floats) -> list[list[int]]:
    """Return the slices at each distinct position along the normal, in that order.

    Parameters
    ----------
    positions, orientation
        As for `positions_along`.

    Returns
    -------
    list of list of int
        Indices into `positions`; slices nearer than `geometry.SAME_POSITION_MM` are at one.
    """
    along = positions_along(positions, orientation)
    groups: list[list[int]] = []
    last = -np.inf
    for index in np.argsort(along, kind="stable"):
        if along[index] - last > geometry.SAME_POSITION_MM:
            groups.append([])
        groups[-1].append(int(index))
        last = along[index]
    return groups


def build(positions: Floats, orientation: Floats, pixel_spacing: Floats, where: str) -> Stack:
    """Sort one image per position into a volume.

    Parameters
    ----------
    positions
        Shape (slices, 3), ImagePositionPatient in LPS mm, in any order.
    orientation
        Six direction cosines that all slices share.
    pixel_spacing
        (between rows, between columns) in mm, as in PixelSpacing.
    where
        What to name in the sentence.

    Returns
    -------
    Stack
        Its affine maps (column, row, slice) to RAS+ mm.

    Raises
    ------
    GeometryError
        Too few, duplicate, missing, unevenly spaced or tilted slices.
    """
    along = positions_along(positions, orientation)
    order = np.argsort(along, kind="stable")
    along, positions = along[order], positions[order]
    _check_count(along, where)
    _check_gaps(along, where)
    _check_tilt(positions, orientation, where)
    step = (positions[-1] - positions[0]) / (len(order) - 1)
    lps = np.eye(4)
    lps[:3, 0] = orientation[:3] * pixel_spacing[1]
    lps[:3, 1] = orientation[3:] * pixel_spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = positions[0]
    affine = geometry.LPS_TO_RAS @ lps
    geometry.check_affine(affine, where)
    return Stack(tuple(int(i) for i in order), affine)


def _check_count(along: Floats, where: str) -> None:
    distinct = 1 + int((np.diff(along) > geometry.SAME_POSITION_MM).sum())
    if distinct < geometry.MIN_SLICES:
        raise GeometryError(
            f"{where}: too few slices: {len(along)} image(s) at {distinct} position(s) "
            f"({_POSITION}); expected at least {geometry.MIN_SLICES} positions. Name the folder "
            "that holds the whole series."
        )
    if distinct < len(along):
        index = int(np.argmin(np.diff(along)))
        raise GeometryError(
            f"{where}: duplicate slices: images {index + 1} and {index + 2} along the normal lie "
            f"at one position ({_POSITION}); expected one image per position. Remove the "
            f"duplicates, or split the series."
        )


def _check_gaps(along: Floats, where: str) -> None:
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    slack = max(geometry.SLICE_POSITION_MM, geometry.SLICE_POSITION_FRACTION * usual)
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > slack:
        _refuse_gap(gaps, worst, usual, slack, where)
    even = along[0] + (along[-1] - along[0]) * np.arange(len(along)) / (len(along) - 1)
    drift = float(np.abs(along - even).max())
    if drift > slack:
        raise GeometryError(
            f"{where}: the slices are unevenly spaced: their gaps drift, so that one lies "
            f"{drift:.3g} mm from its place on an even stack ({_POSITION}); expected at most "
            f"{slack:.3g} mm. Resample the series to even spacing first."
        )


def _refuse_gap(gaps: Floats, worst: int, usual: float, slack: float, where: str) -> None:
    gap = (
        f"{where}: the gap between slices {worst + 1} and {worst + 2} along the normal is "
        f"{gaps[worst]:.4g} mm ({_POSITION}); expected {usual:.4g} mm as in the others."
    )
    times = gaps[worst] / usual
    if round(times) >= 2 and abs(gaps[worst] - round(times) * usual) <= slack * round(times):
        raise GeometryError(f"{gap} {round(times) - 1} slice(s) are missing there. {_AGAIN}")
    raise GeometryError(
        f"{gap} The slices are unevenly spaced. Resample the series to even spacing first, or "
        "leave the odd slices out."
    )


def _check_tilt(positions: Floats, orientation: Floats, where: str) -> None:
    """Refuse a stack whose slices shift sideways: a tilted gantry, or a sheared export."""
    run = positions - positions[0]
    height = run @ normal(orientation)
    sideways = run - np.outer(height, normal(orientation))
    shift = float(np.linalg.norm(sideways, axis=1).max())
    allowed = max(geometry.SLICE_POSITION_MM, geometry.TILT_TANGENT * float(height[-1]))
    if shift > allowed:
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(sideways[-1]), height[-1])))
        raise GeometryError(
            f"{where}: the gantry was tilted: the stack leans {degrees:.1f} degrees from the "
            f"slices' normal ({_POSITION} moves {shift:.3g} mm sideways; expected at most "
            f"{allowed:.3g} mm). Resample it to a straight stack first (dcm2niix does)."
        )
