"""What the viewer unpacks: the scene's values, as it lays planes out, in a bounded size."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest

from medtrans.report.packing import Packed, pack
from medtrans.report.pictures import upright
from medtrans.report.scene import arrange
from tests.report import builders


def facts(packed: Packed) -> Any:
    return json.loads(json.dumps(packed.facts))  # as the browser sees them


def unpacked(packed: Packed, number: int) -> np.ndarray:
    """Values (x to the left, y to the back, z downwards) as viewer.js has them; NaN is blank."""
    layer, size = facts(packed)["layers"][number], facts(packed)["size"]
    parts = np.frombuffer(zlib.decompress(base64.b64decode(packed.voxels[number])), np.uint8)
    codes = parts.astype(float)
    if layer["bits"] > 8:
        high, low = np.split(codes, 2)
        codes = 256 * high + low
    values = np.where(codes == 0, np.nan, layer["first"] + (codes - 1) * layer["step"])
    return values.reshape(size[::-1]).transpose(2, 1, 0)


def test_whole_numbers_come_back_exactly() -> None:
    scene = builders.scene("source")
    values = unpacked(pack(scene), 0)
    blank = scene.shown[0].blank[::-1, ::-1, ::-1]
    assert np.array_equal(np.isnan(values), blank)
    assert np.array_equal(values[~blank], scene.shown[0].voxels[::-1, ::-1, ::-1][~blank])


def test_other_numbers_come_back_within_a_step() -> None:
    voxels = builders.marked() * np.float32(0.0137)
    packed = pack(arrange([builders.layer(voxels)]))
    shown = arrange([builders.layer(voxels)]).shown[0]
    error = np.abs(unpacked(packed, 0) - shown.voxels[::-1, ::-1, ::-1])
    step = facts(packed)["layers"][0]["step"]
    assert np.nanmax(error) <= 0.51 * step
    assert step < (shown.window.high - shown.window.low) / 500


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_lie_as_upright_turns_them(axis: int) -> None:
    scene = builders.scene("source")
    packed = pack(scene)
    index = scene.centre[axis]
    stored = np.take(unpacked(packed, 0), scene.shape[axis] - 1 - index, axis).T
    expected = upright(np.take(scene.shown[0].voxels, index, axis))
    assert np.array_equal(np.nan_to_num(stored), expected)
    assert facts(packed)["start"][axis] == scene.shape[axis] - 1 - index


def test_positions_are_those_of_the_volume() -> None:
    scene = builders.scene("source", affine=np.diag([2.0, 2.0, 3.0, 1.0]))
    found, start = facts(pack(scene)), [*facts(pack(scene))["start"], 1]
    voxel = (np.array(found["voxel"]) @ start).round().astype(int)
    assert builders.marked()[tuple(voxel)] == scene.shown[0].voxels[scene.centre]
    assert np.allclose(np.array(found["mm"]) @ start, voxel * [2, 2, 3])
    assert found["ends"] == ["RL", "AP", "SI"]  # from the picture's left or top on


def test_far_values_are_cut_and_said_to_be() -> None:
    rng = np.random.default_rng(0)
    voxels = np.zeros((20, 20, 20), dtype=np.float32)
    voxels[3:17, 3:17, 3:17] = rng.uniform(1, 2, (14, 14, 14))
    voxels[9, 9, 9] = 1e7
    [layer] = facts(pack(arrange([builders.layer(voxels)])))["layers"]
    assert layer["cut"] == [False, True]
    assert layer["step"] < 0.01


@pytest.mark.parametrize("most", [20_000, 5_000, 500])
def test_a_page_stays_small(most: int) -> None:
    rng = np.random.default_rng(0)
    voxels = rng.normal(1000, 200, (40, 36, 32)).astype(np.float32)
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    scene = arrange([builders.layer(voxels, affine), builders.layer(voxels, affine, "synthetic")])
    packed = pack(scene, most)
    assert sum(3 * len(text) / 4 for text in packed.voxels) <= most + 8
    assert packed.steps[2] <= packed.steps[0]  # what is far apart is kept longest
    start = tuple(facts(packed)["start"])
    near = scene.shown[0].voxels[scene.centre]
    assert unpacked(packed, 0)[start] == pytest.approx(near, abs=facts(packed)["layers"][0]["step"])


def test_thin_planes_are_left_out() -> None:
    voxels = builders.marked()[:, :, 4:6]
    assert facts(pack(arrange([builders.layer(voxels)])))["planes"] == ["axial"]


def test_a_page_stays_small_where_some_planes_tell_little_of_the_others() -> None:
    """The size is first told from every eighth plane."""
    noise = np.random.default_rng(0).normal(1000, 200, (30, 30, 29)).astype(np.float32)
    start = arrange([builders.layer(noise)]).centre[2] % 8
    noise[:, :, start::8] = 1000
    packed = pack(arrange([builders.layer(noise)]), 20_000)
    assert 3 * len(packed.voxels[0]) / 4 <= 20_000 + 8
