from __future__ import annotations

import json
import os
import resource
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Entry, Manifest
from medtrans.errors import OutputError, UnreadableFileError
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import cut, neighbours, plan_slices
from medtrans.training.cache import CachedVolume, VolumeCache
from medtrans.volumes import read_volume
from tests import helpers
from tests.volumes import builders


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


@pytest.fixture
def few_open_files() -> Iterator[int]:
    """Let this process open 160 files in all: what macOS allows, 256, less a host's own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, before[1]))
    yield 160
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class TestManyVolumes:
    def test_more_of_them_than_a_process_may_have_open(
        self, tmp_path: Path, few_open_files: int
    ) -> None:
        shape = (1, 2, 2)
        affine = tuple(map(tuple, np.eye(4).tolist()))
        np.save(tmp_path / "0.npy", np.zeros(shape, np.float32))
        whole = (tmp_path / "0.npy").read_bytes()
        for number in range(3000):
            path = tmp_path / f"{number}.npy"
            path.write_bytes(whole[:-4] + np.float32(number).tobytes())
            volume = CachedVolume(
                path, shape, ((0, 2), (0, 2)), (0,), Profile(0, 1), affine, 2, True
            )
            assert volume.patch(0, (1, 1), (1, 1), 0).item() == number


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
        """One voxel differs, the file's size does not; the clock has ticked."""
        cache = VolumeCache(tmp_path / "cache", pipeline)
        before = np.load(cache.get(own_entry).path)
        image, affine = helpers.head()
        image[12, 14, 10] += 50
        later(own_entry.path, lambda: helpers.write_nifti(own_entry.path, image, affine))
        assert not cache.has(own_entry)
        assert not np.array_equal(np.load(cache.get(own_entry).path), before)

    def test_each_series_of_a_folder_is_a_volume(self, tmp_path: Path, pipeline: Pipeline) -> None:
        folder = tmp_path / "d"
        for uid, values in (("1.2", {}), ("1.3", {"RescaleSlope": 2})):
            builders.dicom_series(folder / uid, 16, series=uid, rows=24, columns=24,
                                  PixelData=pixels, **values)  # fmt: skip
        entries = [Entry("s", "", "t1", folder, "train", series=uid) for uid in ("1.2", "1.3")]
        cache = VolumeCache(tmp_path / "cache", pipeline)
        first, second = (cache.get(entry).path for entry in entries)
        assert first != second

    @pytest.mark.parametrize("kind", ["mhd", "nhdr", "hdr", "img", "dicom"])
    def test_a_changed_part_of_an_input_is_prepared_anew(
        self, tmp_path: Path, pipeline: Pipeline, kind: str
    ) -> None:
        entry, voxels = in_parts(tmp_path, kind)
        cache = VolumeCache(tmp_path / "cache", pipeline)
        before = np.load(cache.get(entry).path)
        again = VolumeCache(tmp_path / "cache", pipeline)
        assert again.has(entry)
        content = voxels.read_bytes()
        half = 20 if kind == "dicom" else len(content) // 2  # a DICOM file ends with its voxels
        changed = content[: -2 * half] + content[-half:] + content[-2 * half : -half]
        later(voxels, lambda: voxels.write_bytes(changed))
        assert not cache.has(entry)
        assert not np.array_equal(np.load(cache.get(entry).path), before)

    def test_an_input_that_is_gone_is_named(
        self, tmp_path: Path, pipeline: Pipeline, own_entry: Entry
    ) -> None:
        cache = VolumeCache(tmp_path / "cache", pipeline)
        own_entry.path.unlink()
        for ask in (cache.has, cache.get):
            with pytest.raises(UnreadableFileError, match=r"t1\.nii\.gz.*no such file"):
                ask(own_entry)

    def test_an_index_is_written_after_its_voxels(
        self, tmp_path: Path, pipeline: Pipeline, entry: Entry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        cache = VolumeCache(tmp_path, pipeline)
        with monkeypatch.context() as patch:
            patch.setattr(np, "save", fails)
            with pytest.raises(OutputError, match="No space left"):
                cache.get(entry)
        assert not cache.has(entry)
        assert list(tmp_path.iterdir()) == []
        assert cache.get(entry).path.is_file()

    @pytest.mark.parametrize("gone", [".json", ".npy"])
    def test_a_volume_of_which_a_part_is_gone_is_made_again(
        self, tmp_path: Path, pipeline: Pipeline, entry: Entry, gone: str
    ) -> None:
        cache = VolumeCache(tmp_path, pipeline)
        first = cache.get(entry)
        whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
        first.path.with_suffix(gone).unlink()
        assert not cache.has(entry)
        assert cache.get(entry) == first
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole

    def test_index_is_plain_json(self, tmp_path: Path, pipeline: Pipeline, entry: Entry) -> None:
        cached = VolumeCache(tmp_path, pipeline).get(entry)
        index = json.loads(cached.path.with_suffix(".json").read_text())
        assert index["shape"] == list(cached.shape)


def pixels(k: int) -> bytes:
    """A bright square that moves with the slice."""
    plane = np.zeros((24, 24), "<u2")
    plane[4:20, 4 + k % 3 : 20] = 100 + 20 * k
    return plane.tobytes()


def later(path: Path, change: Callable[[], object]) -> None:
    """Change a file as a person does who works a second after it was last written."""
    stamp = path.stat().st_mtime_ns + 1_000_000_000
    change()
    os.utime(path, ns=(stamp, stamp))


def in_parts(folder: Path, kind: str) -> tuple[Entry, Path]:
    """Write a head in several files; returns its entry, and the file with voxels of it."""
    image, affine = helpers.head()
    if kind == "dicom":
        series = builders.dicom_series(folder / "series")
        return Entry("s", "", "t1", series, "train"), series / "003.dcm"
    path = folder / f"t1.{kind}"
    if kind in ("hdr", "img"):
        nib.Nifti1Pair(image.astype(np.float32), affine).to_filename(path)
        return Entry("s", "", "t1", path, "train"), folder / "t1.img"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image.T.astype(np.float32)), str(path))
    return Entry("s", "", "t1", path, "train"), folder / "t1.raw"
