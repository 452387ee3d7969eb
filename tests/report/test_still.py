"""The still picture: the right way up however a volume is stored, black where there is no one."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtrans.report.pictures import draw_grid
from medtrans.report.scene import arrange
from medtrans.report.still import draw_small, save_picture
from tests import helpers
from tests.report import builders


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_volume_is_shown_the_same_however_it_is_stored(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    image, affine = helpers.head(shape=(24, 28, 20))
    plain, other = tmp_path / "plain.png", tmp_path / "other.png"
    save_picture(plain, arrange([builders.layer(image, affine)]))
    stored = helpers.stored_as(image, affine, order, (-1, 1, -1))
    save_picture(other, arrange([builders.layer(*stored)]))
    assert np.array_equal(pixels_of(plain), pixels_of(other))


def test_a_single_slice(tmp_path: Path) -> None:
    plane = helpers.marked_head()[:, :, 4:5]
    scene = arrange([builders.layer(plane), builders.layer(plane, role="synthetic")])
    save_picture(tmp_path / "p.png", scene)
    assert pixels_of(tmp_path / "p.png").shape[1] > 20


def test_changes_are_red_where_it_is_brighter_and_blue_where_darker(tmp_path: Path) -> None:
    one = np.zeros((40, 40, 40), dtype=np.float32)
    one[8:32, 8:32, 8:32] = 400 + np.arange(24)
    one[8:20, 8:32, 8:32] = 100 + np.arange(24)  # to the patient's left; shown on the right
    other = np.where(one > 0, 520 - one, 0).astype(np.float32)
    scene = arrange([builders.layer(one), builders.layer(other, role="synthetic")])
    save_picture(tmp_path / "p.png", scene, scale=1, changes=True)
    pixels = pixels_of(tmp_path / "p.png").astype(int)[26:62]  # the axial planes, of 36 x 36
    change = pixels[:12, -40:-4]  # above the letters
    blue, red = change[7:, 7:17], change[7:, 19:29]
    assert (blue[..., 2] > blue[..., 0] + 100).all()
    assert (red[..., 0] > red[..., 2] + 100).all()
    assert not change[:5].any()
    assert np.ptp(pixels[:12, :-40], axis=2).max() == 0  # the volumes themselves are grey


def test_a_small_picture(tmp_path: Path) -> None:
    image, affine = helpers.head(shape=(240, 280, 20), spacing_mm=(0.8, 0.8, 8.0))
    layers = [builders.layer(image, affine), builders.layer(image, affine, role="error")]
    small = draw_small(arrange(layers), {"error": "error", "source": "T1", "synthetic": "none"})
    with Image.open(BytesIO(small)) as picture:
        assert picture.format == "JPEG"
        assert picture.width < 340
        tiles = np.asarray(picture)
    assert len(small) < 12_000
    assert all(half[30:].mean() > 10 for half in np.array_split(tiles, 2, axis=1))


def test_the_sides_are_marked() -> None:
    blank = np.zeros((60, 60), dtype=np.float32)
    plain = np.asarray(draw_grid([[blank, blank]], ["", ""]))
    marked = np.asarray(draw_grid([[blank, blank]], ["", ""], sides=[("R", "L")]))
    columns = np.flatnonzero((plain != marked).any(axis=0))
    places = [(columns >= low) & (columns < low + 20) for low in (4, 44, 68, 108)]
    assert all(place.any() for place in places)
    assert np.logical_or.reduce(places).all()


@pytest.mark.parametrize("background", [0.0, -700.0, 5000.0])
def test_the_background_is_black_whatever_its_value(tmp_path: Path, background: float) -> None:
    rng = np.random.default_rng(0)
    voxels = np.full((16, 16, 16), background, dtype=np.float32)
    voxels[4:12, 4:12, 4:12] = rng.normal(0, 300, (8, 8, 8))
    save_picture(tmp_path / "p.png", arrange([builders.layer(voxels)]), scale=1)
    pixels = pixels_of(tmp_path / "p.png")[-16:]  # the last plane, with its margin below
    assert pixels[4, 9] > 0
    assert not pixels[-5:].any()
