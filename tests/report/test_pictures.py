"""Tiles in a grid: every one is shown, the right way up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medtrans.report.pictures import save_grid, upright


def test_grid_shows_every_tile_once(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    tiles = [np.full((10, 12), v, dtype=np.float32) for v in (0.2, 0.4, 0.6, 0.8)]
    save_grid(path, [tiles[:2], tiles[2:]], ["a", "b"], scale=2)
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    for value in (51, 102, 153, 204):
        assert (pixels == value).sum() >= 20 * 24
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_values_outside_the_range_and_nan(tmp_path: Path) -> None:
    tile = np.array([[-3, 4], [np.nan, 1]], dtype=np.float32)
    save_grid(tmp_path / "g.png", [[tile]], [""])
    assert (tmp_path / "g.png").stat().st_size > 0


def test_upright_has_superior_on_top_and_right_on_the_left() -> None:
    plane = np.zeros((4, 6), dtype=np.float32)
    plane[3, 5] = 1  # right, superior
    shown = upright(plane)
    assert shown.shape == (6, 4)
    assert shown[0, 0] == 1
