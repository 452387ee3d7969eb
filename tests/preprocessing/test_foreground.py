from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medtrans.errors import FileError
from medtrans.phantom.heads import LABELS, ScanProtocol, make_subject
from medtrans.preprocessing.foreground import (
    Region,
    constant_background,
    dilate,
    find_foreground,
    find_region,
)
from medtrans.volumes import read_volume
from tests import helpers


def ball(shape: tuple[int, int, int] = (20, 22, 18), radius: float = 6.5) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    distance = sum((a - (n - 1) / 2) ** 2 for a, n in zip(axes, shape, strict=True))
    return np.asarray(distance <= radius**2)


class TestMaskedBackground:
    @pytest.mark.parametrize("background", [0.0, -1024.0, 3.5, 70.0])
    def test_whatever_the_value(self, background: float) -> None:
        """70 lies in the middle of the tissue's values."""
        tissue = ball()
        rng = np.random.default_rng(0)
        image = np.where(tissue, rng.normal(70, 30, tissue.shape), background).astype(np.float32)
        assert constant_background(image) == background
        assert np.array_equal(find_foreground(image), tissue)

    def test_dark_fluid_inside_is_foreground(self) -> None:
        tissue = ball()
        image = np.where(tissue, np.float32(100), np.float32(0))
        image += np.where(tissue, np.arange(tissue.size).reshape(tissue.shape) % 7, 0)
        image[9:11, 10:12, 8:10] = 0
        assert np.array_equal(find_foreground(image.astype(np.float32)), tissue)

    def test_phantom(self) -> None:
        phantom = make_subject(1, 0, helpers.small_scan())
        mask = find_foreground(phantom.images["t1"])
        inside = phantom.labels != LABELS["air"]
        assert mask[inside].mean() > 0.97
        assert not mask[~ndimage.binary_dilation(inside, iterations=2)].any()

    def test_z_scored_real_volume(self, shared_data: Path) -> None:
        volume = read_volume(shared_data / "flair_t1c/brats13-1/flair.nii.gz").numpy()
        value = constant_background(volume)
        assert value not in (None, 0.0)
        assert volume.min() < 0 < volume.max()
        mask = find_foreground(volume)
        assert 0.1 < mask.mean() < 0.4
        assert (volume[~mask] == value).all()


class TestWholeHead:
    def test_air_noise_is_background(self) -> None:
        protocol = ScanProtocol(shape=(44, 54, 48), spacing_mm=(4.0, 4.0, 4.0))
        phantom = make_subject(2, 0, protocol)
        image = phantom.images["t1"].astype(np.float32)
        image += np.random.default_rng(0).random(image.shape, dtype=np.float32)
        assert constant_background(image) is None
        mask = find_foreground(image)
        brain = np.isin(phantom.labels, [LABELS["white"], LABELS["grey"]])
        air = ~ndimage.binary_dilation(phantom.labels != LABELS["air"], iterations=2)
        assert mask[brain].mean() > 0.97
        assert mask[air].mean() < 0.01

    def test_keeps_the_largest_piece(self) -> None:
        rng = np.random.default_rng(0)
        tissue = ball()
        image = np.abs(rng.normal(0, 8, tissue.shape)).astype(np.float32)
        image[tissue] += 100
        image[:2, :2, :2] += 100  # a stray bright corner
        mask = find_foreground(image)
        assert not mask[:2, :2, :2].any()
        assert np.array_equal(mask, tissue)


def test_constant_image_is_refused() -> None:
    with pytest.raises(FileError, match="All 60 voxels have the value 7"):
        find_foreground(np.full((3, 4, 5), 7, dtype=np.float32))


class TestDilate:
    def test_grows_by_millimetres_along_each_axis(self) -> None:
        mask = np.zeros((11, 11, 11), dtype=bool)
        mask[5, 5, 5] = True
        grown = dilate(mask, 2.0, (1.0, 0.5, 3.0))
        where = np.argwhere(grown)
        assert where.min(0).tolist() == [3, 1, 5]
        assert where.max(0).tolist() == [7, 9, 5]

    def test_does_not_wrap_around(self) -> None:
        mask = np.zeros((6, 1, 6), dtype=bool)
        mask[0, 0, 0] = True
        grown = dilate(mask, 2.0, (1.0, 1.0, 1.0))
        assert grown[:3, 0, :3].all()
        assert grown.sum() == 9

    def test_nothing_to_grow(self) -> None:
        mask = ball()
        assert np.array_equal(dilate(mask, 0.0, (1.0, 1.0, 1.0)), mask)


class TestReach:
    """Beyond the foreground there is tissue where a threshold found it, none where it was cut."""

    CONFIG = helpers.tiny_pipeline(volume={"dilation_mm": 3.0, "masked_dilation_mm": 1.0}).volume

    def grown(self, image: np.ndarray) -> tuple[np.ndarray, Region]:
        region = find_region(image, (1.0, 1.0, 1.0), self.CONFIG)
        return region.support & ~region.foreground, region

    def test_around_air(self) -> None:
        air = np.random.default_rng(0).random(ball().shape).astype(np.float32)
        grown, region = self.grown(np.where(ball(), np.float32(100) + air, air))
        assert np.array_equal(region.support, dilate(region.foreground, 3.0, (1.0, 1.0, 1.0)))
        assert grown.any()

    def test_around_a_mask(self) -> None:
        tissue = 100 + np.random.default_rng(0).random(ball().shape).astype(np.float32)
        _, region = self.grown(np.where(ball(), tissue, np.float32(0)))
        assert np.array_equal(region.support, dilate(ball(), 1.0, (1.0, 1.0, 1.0)))
        assert np.array_equal(region.margin, dilate(ball(), 3.0, (1.0, 1.0, 1.0)))
