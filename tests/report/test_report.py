"""Pictures and pages: every tile is shown, the right way up, and one file holds a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtrans.report.page import save_html, save_picture
from medtrans.report.pictures import save_grid, upright
from tests import helpers


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_grid_shows_every_tile_once(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    tiles = [np.full((10, 12), v, dtype=np.float32) for v in (0.2, 0.4, 0.6, 0.8)]
    save_grid(path, [tiles[:2], tiles[2:]], ["a", "b"], scale=2)
    pixels = pixels_of(path)
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


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_volume_is_shown_the_same_however_it_is_stored(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    image, affine = helpers.head(shape=(24, 28, 20))
    plain = tmp_path / "plain.png"
    save_picture(plain, {"T1": helpers.volume(image, affine)})
    stored = helpers.stored_as(image, affine, order, (-1, 1, -1))
    other = tmp_path / "other.png"
    save_picture(other, {"T1": helpers.volume(*stored)})
    assert np.array_equal(pixels_of(plain), pixels_of(other))


def test_a_single_slice(tmp_path: Path) -> None:
    plane = helpers.marked_head()[:, :, 4:5]
    save_picture(tmp_path / "p.png", {"a": helpers.volume(plane), "b": helpers.volume(plane)})
    assert pixels_of(tmp_path / "p.png").shape[1] > 20


def test_page_is_one_file_and_escapes(tmp_path: Path) -> None:
    tile = np.zeros((8, 8), dtype=np.float32)
    save_grid(tmp_path / "p.png", [[tile]], [""])
    sections = {"Facts": {"model": "<script>"}, "Warnings": ["a < b"], "None": []}
    save_html(tmp_path / "p.html", "T1 & T2", tmp_path / "p.png", sections)
    page = (tmp_path / "p.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "T1 &amp; T2" in page
    assert "Synthetic image" in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
