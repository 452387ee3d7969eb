"""Two images as one checkerboard, in three planes: edges go on from square to square, or do not."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medtrans.registration.placed import Placed, Places
from medtrans.report.pictures import draw_grid, encode, upright
from medtrans.system.atomic import replacing
from medtrans.volumes.geometry import RAS_LABELS, Affine

_SQUARE_MM = 20
_MARGIN_MM = 5.0
_SCALE = 2  # pixels per mm


def save_checkerboard(
    path: Path, fixed: Placed, moving: Placed, movement: Affine, names: tuple[str, str]
) -> None:
    """Write a PNG of both images, and checkerboards of them before and after registration.

    Parameters
    ----------
    path : Path
    fixed, moving : Placed
    movement : array
        Shape (4, 4), from a place of the fixed image to that of the moving one, RAS mm.
    names : (str, str)
        Captions of the fixed and the moving image.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    rows, sides = [], []
    for axis in (2, 1, 0):
        places, shape = _plane(fixed, axis)
        shown = _grey(fixed, places, shape)
        before = _grey(moving, places, shape)
        after = _grey(moving, places @ movement.T, shape)
        tiles = (shown, after, _checkered(shown, before), _checkered(shown, after))
        rows.append([upright(tile) for tile in tiles])
        low, high = RAS_LABELS[1 if axis == 0 else 0]
        sides.append((high, low))
    captions = (names[0], f"{names[1]}, registered", "as the headers say", "registered")
    picture = draw_grid(rows, captions, _SCALE, sides)
    with replacing(path) as partial:
        partial.write_bytes(encode(picture))


def _plane(fixed: Placed, axis: int) -> tuple[Places, tuple[int, int]]:
    """Lay places of 1 mm across a RAS axis, through the middle of the region."""
    low, high = _box(fixed)
    u, v = (other for other in range(3) if other != axis)
    across, up = (np.arange(low[a], high[a]) for a in (u, v))
    places = np.ones((len(across), len(up), 4))
    places[..., axis] = fixed.centre_mm[axis]
    places[..., u], places[..., v] = across[:, None], up[None, :]
    return places.reshape(-1, 4), (len(across), len(up))


def _box(fixed: Placed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds of the region in RAS mm, with a margin."""
    spans = [np.flatnonzero(fixed.region.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    corners = np.array([[*corner, 1] for corner in product(*((s[0], s[-1]) for s in spans))])
    places = (corners @ fixed.affine.T)[:, :3]
    return places.min(axis=0) - _MARGIN_MM, places.max(axis=0) + _MARGIN_MM


def _grey(placed: Placed, places: Places, shape: tuple[int, int]) -> NDArray[np.float32]:
    low, high = placed.window()
    inside, values = placed.read(places)
    grey = np.zeros(len(places), dtype=np.float32)
    grey[inside] = np.clip((values - low) / (high - low), 0, 1)
    return grey.reshape(shape)


def _checkered(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    across, up = np.indices(a.shape) // _SQUARE_MM
    return np.where((across + up) % 2 == 0, a, b)
