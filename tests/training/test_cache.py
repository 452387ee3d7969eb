from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Entry, Manifest
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import cut, neighbours, plan_slices
from medtrans.training.cache import CachedVolume, VolumeCache
from medtrans.volumes import read_volume
from tests import helpers


@pytest.fixture
def entry(cohort: Path) -> Entry:
    return Manifest.read(cohort).entries("train", "t1")[0]


@pytest.fixture
def own_entry(tmp_path: Path, entry: Entry) -> Entry:
    """A copy of the entry's file, to be changed."""
    path = tmp_path / "t1.nii.gz"
    shutil.copy(entry.path, path)
    return Entry("s", "", "t1", path, "train")


class TestPatch:
    @pytest.mark.parametrize("axis", ["sagittal", "coronal", "axial"])
    @pytest.mark.parametrize("context", [0, 2])
    def test_is_what_slicing_the_volume_gives(
        self, tmp_path: Path, entry: Entry, axis: str, context: int
    ) -> None:
        recipe = helpers.tiny_pipeline(slices={"axis": axis, "context": context})
        cached = VolumeCache(tmp_path, recipe).get(entry)
        image = helpers.in_model_space(read_volume(entry.path), recipe).image
        slices = cut(image, plan_slices(recipe.slices, image.shape)[0])
        assert cached.shape == slices.shape
        margin = 40
        padded = np.pad(slices, ((0, 0), (margin,) * 2, (margin,) * 2), constant_values=-1)
        rng = np.random.default_rng(0)
        for _ in range(40):
            index = int(rng.integers(len(slices)))
            top, left = (int(v) for v in rng.integers(-30, 30, 2))
            height, width = (int(v) for v in rng.integers(1, 30, 2))
            found = cached.patch(index, (top, left), (height, width), context)
            rows = neighbours(index, len(slices), context)
            y, x = top + margin, left + margin
            assert np.array_equal(found, padded[rows, y : y + height, x : x + width])
            assert found.dtype == np.float32

    def test_reads_only_what_it_needs(self, tmp_path: Path) -> None:
        path = tmp_path / "big.npy"
        shape = (64, 512, 512)
        np.lib.format.open_memmap(path, "w+", np.float32, shape).flush()
        affine = tuple(map(tuple, np.eye(4).tolist()))
        box = ((0, 512), (0, 512))
        big = CachedVolume(path, shape, box, (0,), Profile(0, 1), affine, 2, True)
        tracemalloc.start()
        try:
            patch = big.patch(30, (5, 6), (32, 32), 1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert patch.shape == (3, 32, 32)
        assert peak < 300_000  # bytes; one slice has a million


class TestFacts:
    def test_describe_the_volume(self, tmp_path: Path, pipeline: Pipeline, entry: Entry) -> None:
        cached = VolumeCache(tmp_path, pipeline).get(entry)
        volume = read_volume(entry.path)
        space = helpers.in_model_space(volume, pipeline)
        mask = space.margin
        assert cached.grid.shape == mask.shape == helpers.SHAPE
        np.testing.assert_allclose(cached.grid.affine, space.placement.affine)
        assert cached.occupied == tuple(np.flatnonzero(mask.any((0, 1))))
        where = np.argwhere(mask.any(2))
        expected = tuple(zip(where.min(0).tolist(), (where.max(0) + 1).tolist(), strict=True))
        assert cached.box == expected
        assert cached.profile == space.profile
        assert cached.masked is True
        assert np.array_equal(mask, find_foreground(volume.numpy()))

    def test_a_whole_head_is_not_masked(self, tmp_path: Path, pipeline: Pipeline) -> None:
        image, affine = helpers.head(skull_stripped=False)
        noisy = image + np.random.default_rng(0).random(image.shape)
        path = helpers.write_nifti(tmp_path / "t1.nii.gz", noisy.astype(np.float32), affine)
        cached = VolumeCache(tmp_path / "c", pipeline).get(Entry("s", "", "t1", path, "train"))
        assert cached.masked is False

    @pytest.mark.parametrize(
        ("axis", "expected"),
        [("sagittal", (2.0, 3.0)), ("coronal", (1.0, 3.0)), ("axial", (1.0, 2.0))],
    )
    def test_in_plane_spacing_leaves_the_cutting_axis_out(
        self, tmp_path: Path, axis: str, expected: tuple[float, float]
    ) -> None:
        image, _ = helpers.head()
        path = helpers.write_nifti(tmp_path / "t1.nii.gz", image, np.diag([1.0, 2.0, 3.0, 1.0]))
        recipe = helpers.tiny_pipeline(slices={"axis": axis})
        cached = VolumeCache(tmp_path / "c", recipe).get(Entry("s", "", "t1", path, "train"))
        assert cached.in_plane_mm == pytest.approx(expected)

    def test_grid_knows_the_cutting_axis(self, tmp_path: Path, entry: Entry) -> None:
        recipe = helpers.tiny_pipeline(slices={"axis": "coronal"})
        cached = VolumeCache(tmp_path, recipe).get(entry)
        assert cached.shape == (28, 24, 20)
        assert cached.grid.shape == helpers.SHAPE


class TestFolder:
    def test_one_file_a_volume_however_often_it_is_asked_for(
        self, tmp_path: Path, pipeline: Pipeline, entry: Entry
    ) -> None:
        folder = tmp_path / "cache"
        cache = VolumeCache(folder, pipeline)
        assert not cache.has(entry)
        first = cache.get(entry)
        assert cache.has(entry)
        stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert sorted(path.suffix for path in stamps) == [".json", ".npy"]
        again = VolumeCache(folder, pipeline).get(entry)
        assert again == first
        assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps

    def test_file_is_float32_in_slice_order(
        self, tmp_path: Path, pipeline: Pipeline, entry: Entry
    ) -> None:
        cached = VolumeCache(tmp_path, pipeline).get(entry)
        stored = np.load(cached.path)
        assert stored.dtype == np.float32
        assert stored.shape == cached.shape == (20, 24, 28)
        assert stored.flags.c_contiguous

    @pytest.mark.parametrize(
        "overrides",
        [
            {"volume": {"spacing_mm": [6.0, 6.0, 0.0]}},
            {"volume": {"dilation_mm": 17.0}},
            {"slices": {"axis": "sagittal"}},
            {"contrasts": {"t1": {"upper": 90.0}}},
        ],
    )
    def test_another_recipe_is_another_file(
        self, tmp_path: Path, pipeline: Pipeline, entry: Entry, overrides: dict[str, Any]
    ) -> None:
        VolumeCache(tmp_path, pipeline).get(entry)
        assert not VolumeCache(tmp_path, helpers.tiny_pipeline(**overrides)).has(entry)

    @pytest.mark.parametrize(
        "overrides",
        [
            {"noise": {"iterations": 9}},
            {"slices": {"context": 4}},
            {"diffusion": {"sigma": 0.9}},
            {"contrasts": {"t2": {"upper": 90.0}}},
        ],
    )
    def test_what_preprocessing_does_not_use_changes_nothing(
        self, tmp_path: Path, pipeline: Pipeline, entry: Entry, overrides: dict[str, Any]
    ) -> None:
        VolumeCache(tmp_path, pipeline).get(entry)
        assert VolumeCache(tmp_path, helpers.tiny_pipeline(**overrides)).has(entry)

    def test_a_changed_input_is_prepared_anew(
        self, tmp_path: Path, pipeline: Pipeline, own_entry: Entry
    ) -> None:
        cache = VolumeCache(tmp_path / "cache", pipeline)
        cache.get(own_entry)
        later = own_entry.path.stat().st_mtime_ns + 1_000_000_000
        os.utime(own_entry.path, ns=(later, later))
        assert not cache.has(own_entry)

    def test_an_interrupted_preparation_is_made_again(
        self, tmp_path: Path, pipeline: Pipeline, entry: Entry
    ) -> None:
        """The index is written last: voxels without it do not count."""
        cache = VolumeCache(tmp_path, pipeline)
        first = cache.get(entry)
        first.path.with_suffix(".json").unlink()
        first.path.write_bytes(b"half")
        again = cache.get(entry)
        assert np.load(again.path).shape == first.shape

    def test_index_is_plain_json(self, tmp_path: Path, pipeline: Pipeline, entry: Entry) -> None:
        cached = VolumeCache(tmp_path, pipeline).get(entry)
        index = json.loads(cached.path.with_suffix(".json").read_text())
        assert index["shape"] == list(cached.shape)
