"""A still picture of volumes: three planes through the middle of the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medtrans.report.pictures import draw_grid, encode, upright
from medtrans.report.scene import Scene, grid_of, isotropic
from medtrans.system.atomic import replacing
from medtrans.volumes.geometry import RAS_LABELS


def save_picture(path: Path, scene: Scene, scale: int = 2) -> None:
    """Write a PNG: a column for each volume, a row for each plane through the middle.

    Parameters
    ----------
    path : Path
        The file to write or replace.
    scene : Scene
    scale : int
        Integer enlargement.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(encode(draw_scene(scene, scale)))


def draw_scene(scene: Scene, scale: int = 1) -> Image.Image:
    """Draw what `save_picture` saves."""
    spacing, greys = grid_of(scene), [shown.grey() for shown in scene.shown]
    rows = [
        [isotropic(upright(np.take(v, scene.centre[axis], axis)), axis, spacing) for v in greys]
        for axis in scene.planes
    ]
    names, ends = [shown.layer.name for shown in scene.shown], [RAS_LABELS[a] for a in (1, 0, 0)]
    sides = [(high, low) for low, high in (ends[axis] for axis in scene.planes)]
    return draw_grid(rows, names, scale, sides)
