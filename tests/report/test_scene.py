"""A scene: volumes on one grid, in RAS, cut to the patient, with sensible grey levels."""

from __future__ import annotations

import numpy as np
import pytest

from medtrans.errors import GeometryError
from medtrans.report.scene import arrange
from tests import helpers
from tests.report import builders


@pytest.mark.parametrize(("order", "signs"), helpers.orientations()[::7])
def test_a_scene_is_the_same_however_it_is_stored(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    voxels, affine = builders.marked(), np.diag([2.0, 1.0, 3.0, 1.0])
    plain = arrange([builders.layer(voxels, affine)])
    stored = helpers.stored_as(voxels, affine, order, signs)
    other = arrange([builders.layer(*stored)])
    assert np.array_equal(plain.shown[0].voxels, other.shown[0].voxels)
    assert np.allclose(plain.affine, other.affine)
    place = (other.from_scene @ [*other.centre, 1])[:3].round().astype(int)
    assert stored[0][tuple(place)] == other.shown[0].voxels[other.centre]


def test_positions_survive_thinning() -> None:
    whole = builders.scene("source", affine=helpers.tilted(np.diag([1.0, 2.0, 1.0, 1.0])))
    thin = whole.every((2, 1, 3))
    assert thin.shape == tuple(-(-n // s) for n, s in zip(whole.shape, (2, 1, 3), strict=True))
    assert thin.shown[0].voxels[thin.centre] == whole.shown[0].voxels[whole.centre]
    for matrix in ("affine", "from_scene"):
        here = getattr(thin, matrix) @ [*thin.centre, 1]
        assert np.allclose(here, getattr(whole, matrix) @ [*whole.centre, 1])


def test_layers_on_other_grids_are_refused() -> None:
    moved = builders.layer(builders.marked(), np.diag([1.0, 1.0, 1.01, 1.0]), "synthetic")
    with pytest.raises(GeometryError, match="SYNTHETIC T2 and Source T1 are not on one grid"):
        arrange([builders.layer(builders.marked()), moved])


def test_what_is_black_and_white_comes_from_the_patient() -> None:
    """A few hot voxels, and a background of any value, do not decide how a volume looks."""
    rng = np.random.default_rng(1)
    voxels = np.full((30, 30, 30), -900, dtype=np.float32)
    voxels[5:25, 5:25, 5:25] = rng.uniform(100, 200, (20, 20, 20))
    voxels[7, 7, 7] = 1e6
    low, high = arrange([builders.layer(voxels)]).shown[0].window
    assert low == pytest.approx(100.5, abs=0.5)
    assert high == pytest.approx(199.5, abs=0.5)


def test_air_around_the_patient_is_black() -> None:
    rng = np.random.default_rng(2)
    voxels = rng.uniform(20, 40, (30, 30, 30)).astype(np.float32)
    voxels[5:25, 5:25, 5:25] = rng.uniform(100, 200, (20, 20, 20))
    voxels[10:12, 10:12] = 0  # a cavity that is darker than the air
    shown = arrange([builders.layer(voxels)]).shown[0]
    assert np.median(shown.grey()[~shown.blank & (shown.voxels < 50)]) <= 0


def test_values_without_a_unit_have_windows_of_their_own() -> None:
    truth = 10 * builders.marked()
    for unit, shared in (("", False), ("HU", True)):
        layers = [
            builders.layer(builders.marked()),
            builders.layer(builders.marked(1), None, "synthetic", unit),
            builders.layer(truth, None, "reference", unit),
        ]
        _, synthetic, reference = arrange(layers).shown
        assert (synthetic.window == reference.window) is shared
        assert reference.window.high > 5000


def test_maps_start_at_zero() -> None:
    scene = builders.scene("source", "error", "uncertainty")
    assert [shown.window.low for shown in scene.shown[1:]] == [0, 0]
