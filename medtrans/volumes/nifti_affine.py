"""Where a NIfTI header places its voxels: forms, their codes and units, checked.

The rule is the standard's: the sform where its code is above 0, else the qform where its code is,
else the spacing alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from medtrans.errors import GeometryError
from medtrans.volumes import geometry
from medtrans.volumes.geometry import Affine

UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


class Header(Protocol):
    """What is used of nibabel's header."""

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]: ...
    def copy(self) -> Self: ...
    def get_qform(self) -> Affine: ...
    def get_base_affine(self) -> Affine: ...


def place(fields: Header, affine: Affine | None, path: Path) -> tuple[Affine, list[str]]:
    """Place an image of nibabel's as a file with its header would be.

    Parameters
    ----------
    fields
        The image's header.
    affine
        The image's own affine, in the header's unit; it counts where the header differs.
    path
        What to name in a sentence.

    Returns
    -------
    affine : array (4, 4)
        Voxel to RAS+ mm.
    warnings : list of str

    Raises
    ------
    GeometryError
        If the affine is unusable.
    """
    stated = None if affine is None else _in_mm(fields, path) @ affine
    if stated is None or _agree(stated, _in_mm(fields, path) @ _form(fields)[0], fields):
        return affine_of(fields, path)
    geometry.check_affine(stated, str(path))
    return stated, _shear(stated, f"{path}: the affine")


def affine_of(fields: Header, path: Path) -> tuple[Affine, list[str]]:
    """Return the affine, voxel to RAS+ mm, and a sentence for each thing that is odd about it.

    Raises
    ------
    GeometryError
        If it is unusable.
    """
    form, name = _form(fields)
    warnings = []
    if name == "pixdim":
        warnings.append(
            f"{path}: neither qform nor sform is set, so left and right are assumed, not known."
        )
    scale = _in_mm(fields, path)
    affine = scale @ form
    geometry.check_affine(affine, f"{path} ({name})")
    if name == "sform" and int(fields["qform_code"]) > 0:
        warnings += _disagreement(affine, scale @ _qform(fields), fields, path)
    return affine, [*warnings, *_shear(affine, f"{path}: the {name}")]


def _form(fields: Header) -> tuple[Affine, str]:
    """Return the affine by the standard's rule: sform, else qform, else the spacing alone."""
    if int(fields["sform_code"]) > 0:
        return _sform(fields), "sform"
    if int(fields["qform_code"]) > 0:
        return _qform(fields), "qform"
    return np.asarray(fields.get_base_affine(), dtype=np.float64), "pixdim"


def _in_mm(fields: Header, path: Path) -> Affine:
    """Return the affine from the header's unit of length to millimetres."""
    scale = UNIT_MM.get(int(fields["xyzt_units"]) & 7)
    if scale is None:
        raise GeometryError(
            f"{path}: the header field xyzt_units is {int(fields['xyzt_units'])}; expected metres, "
            "millimetres or micrometres. The header is damaged: convert it again."
        )
    return np.diag([scale, scale, scale, 1.0])


def _agree(a: Affine, b: Affine, fields: Header) -> bool:
    return (
        geometry.corner_distance_mm(a, b, [int(n) for n in fields["dim"][1:4]])
        <= geometry.FORMS_AGREE_MM
    )


def _shear(affine: Affine, what: str) -> list[str]:
    if not geometry.is_sheared(affine):
        return []
    return [f"{what} is sheared: its voxel axes are not at right angles."]


def _disagreement(sform: Affine, qform: Affine, fields: Header, path: Path) -> list[str]:
    shape = [int(n) for n in fields["dim"][1:4]]
    distance = geometry.corner_distance_mm(sform, qform, shape)
    if distance <= geometry.FORMS_AGREE_MM:
        return []
    apart = f"{distance:.3g} mm apart" if np.isfinite(distance) else "the qform is damaged"
    return [
        f"{path}: sform (code {int(fields['sform_code'])}) and qform (code "
        f"{int(fields['qform_code'])}) disagree ({apart}); the sform is used, and both are kept."
    ]


def _sform(fields: Header) -> Affine:
    rows = [np.asarray(fields[f"srow_{axis}"], dtype=np.float64) for axis in "xyz"]
    return np.vstack([*rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(fields: Header) -> Affine:
    copy = fields.copy()
    if float(copy["pixdim"][0]) not in (-1.0, 1.0):
        copy["pixdim"][0] = 1.0  # the standard takes 0, and nibabel nothing, for "not flipped"
    try:
        return np.asarray(copy.get_qform(), dtype=np.float64)
    except Exception:  # nibabel's own kinds, over numbers that are no rotation
        return np.full((4, 4), np.nan)
