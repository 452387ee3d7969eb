"""A still picture of volumes: three planes through the middle of the patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from medtrans.report.pictures import draw_grid, encode, shrink, upright
from medtrans.report.scene import Role, Scene, Shown, grid_of, isotropic
from medtrans.system.atomic import replacing
from medtrans.volumes.geometry import RAS_LABELS
from medtrans.volumes.voxels import Voxels

_SMALL = 140  # pixels, the longer side of a plane in a small picture
_SIDE = 14  # pixels, beside such a plane


def save_picture(path: Path, scene: Scene, scale: int = 2, *, changes: bool = False) -> None:
    """Write a PNG: a column for each volume, a row for each plane through the middle.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    scene : Scene
    scale : int
        Integer enlargement.
    changes : bool
        Add a column: where the second volume is brighter than the first, each in its own window,
        in red, and where it is darker in blue.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(encode(draw_scene(scene, scale, changes=changes)))


def draw_scene(scene: Scene, scale: int = 1, *, changes: bool = False) -> Image.Image:
    """Draw what `save_picture` saves."""
    names = [shown.layer.name for shown in scene.shown]
    rows = [_row(scene, axis, scene.shown) for axis in scene.planes]
    if changes:
        names.append("Difference: red +, blue -")
        rows = [[*row, _change(*row[:2])] for row in rows]
    return draw_grid(rows, names, scale, [_sides(axis) for axis in scene.planes])


def draw_small(scene: Scene, captions: Mapping[Role, str]) -> bytes:
    """Draw the first plane of some layers small, as a JPEG.

    Parameters
    ----------
    scene : Scene
    captions : mapping
        Role -> what to write above it, for the first layer of that role, if there is one.
    """
    axis = scene.planes[0]
    first = {shown.layer.role: shown for shown in reversed(scene.shown)}
    chosen = {role: first[role] for role in captions if role in first}
    row = [shrink(plane, _SMALL) for plane in _row(scene, axis, list(chosen.values()))]
    framed = [np.pad(plane, ((0, 0), (_SIDE, _SIDE))) for plane in row]  # for the letters
    written = BytesIO()
    drawn = draw_grid([framed], [captions[role] for role in chosen], 1, [_sides(axis)])
    drawn.save(written, "JPEG", quality=80)
    return written.getvalue()


def _row(scene: Scene, axis: int, layers: Sequence[Shown]) -> list[Voxels]:
    """Cut the plane across an axis through the middle of the patient, from each layer."""
    spacing, index = grid_of(scene), scene.centre[axis]
    planes = (upright(np.take(shown.grey(), index, axis)) for shown in layers)
    return [isotropic(plane, axis, spacing) for plane in planes]


def _change(first: Voxels, second: Voxels) -> Voxels:
    """Colour a difference of two planes in [0, 1]: black where there is none, (H, W, 3)."""
    change = np.clip(second, 0, 1) - np.clip(first, 0, 1)
    more, less = np.maximum(change, 0), np.maximum(-change, 0)
    return np.stack([more + less / 4, (more + less) / 2.5, less + more / 8], axis=-1)


def _sides(axis: int) -> tuple[str, str]:
    """Name the left and the right end of the plane across an axis, as `upright` turns it."""
    low, high = RAS_LABELS[1 if axis == 0 else 0]
    return high, low
