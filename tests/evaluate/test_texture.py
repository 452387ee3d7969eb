"""Sharpness, flicker and realism: ratios and a distance whose answers are known."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medtrans.evaluate.realism import features, realism_distance
from medtrans.evaluate.scores import array_axis, score
from medtrans.evaluate.texture import (
    checkerboard_ratio,
    detail_correlation,
    high_frequency_ratio,
    slice_ratio,
)
from tests import helpers


@pytest.fixture
def volume() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((20, 22, 18))
    return ndimage.gaussian_filter(noise, 1).astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    inside = np.zeros((20, 22, 18), dtype=bool)
    inside[2:17, 3:20, 1:16] = True
    return inside


def textures(count: int, seed: int, size: int = 64) -> np.ndarray:
    """Draw images of one distribution: smooth random fields in [0.05, 1] on a dark background."""
    noise = np.random.default_rng(seed).standard_normal((count, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    image = np.clip(0.5 + 0.15 * smooth / smooth.std(), 0.05, 1)
    image[:, :, :8] = 0
    return image.astype(np.float32)


class TestSliceRatio:
    def test_one_for_the_reference_itself(self, volume: np.ndarray, mask: np.ndarray) -> None:
        assert slice_ratio(volume, volume, mask, 1) == pytest.approx(1)

    def test_is_linear_in_the_contrast(self, volume: np.ndarray, mask: np.ndarray) -> None:
        assert slice_ratio(3 * volume + 2, volume, mask, 0) == pytest.approx(3, rel=1e-5)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_flicker_counts_along_its_own_axis_alone(
        self, volume: np.ndarray, mask: np.ndarray, axis: int
    ) -> None:
        shape = [1, 1, 1]
        shape[axis] = volume.shape[axis]
        offsets = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        found = [slice_ratio(volume + offsets, volume, mask, a) for a in range(3)]
        assert found[axis] > 2
        others = [v for a, v in enumerate(found) if a != axis]
        assert others == pytest.approx([1, 1], rel=1e-5)

    def test_background_does_not_count(self, volume: np.ndarray, mask: np.ndarray) -> None:
        other = np.where(mask, volume, np.float32(50))
        assert slice_ratio(other, volume, mask, 2) == pytest.approx(1)

    def test_a_single_slice_has_none(self, volume: np.ndarray, mask: np.ndarray) -> None:
        assert slice_ratio(volume[..., :1], volume[..., :1], mask[..., 3:4], 2) is None
        found = score(volume[..., :1], volume[..., :1], mask[..., 3:4])
        assert "slice_ratio" not in found
        assert found["high_frequency_ratio"] == pytest.approx(1)


class TestHighFrequencyRatio:
    def test_grows_with_noise_and_falls_with_blur(
        self, volume: np.ndarray, mask: np.ndarray
    ) -> None:
        noise = np.random.default_rng(1).standard_normal(volume.shape).astype(np.float32)
        images = [
            ndimage.gaussian_filter(volume, 1),
            ndimage.gaussian_filter(volume, 0.5),
            volume,
            volume + 0.2 * noise,
        ]
        found = [high_frequency_ratio(image, volume, mask, 2) for image in images]
        assert found == sorted(found)
        assert found[2] == pytest.approx(1)

    def test_is_an_energy(self, volume: np.ndarray, mask: np.ndarray) -> None:
        assert high_frequency_ratio(3 * volume, volume, mask, 2) == pytest.approx(9, rel=1e-4)

    @pytest.mark.parametrize(("cycles_per_px", "passed"), [(0.02, 0.0), (0.125, 0.25), (0.4, 1.0)])
    def test_passes_waves_above_an_eighth_of_a_cycle(
        self, cycles_per_px: float, passed: float
    ) -> None:
        """The energy of a wave of amplitude 1 is 1/2; the high pass keeps the share stated."""
        x = np.arange(400, dtype=np.float32)
        wave = np.sin(2 * np.pi * cycles_per_px * x)[None, :, None] * np.ones((40, 1, 1), "f4")
        checks = np.indices(wave.shape).sum(axis=0) % 2 * np.float32(2) - 1  # all of it passes
        inside = np.ones(wave.shape, dtype=bool)
        found = high_frequency_ratio(wave.astype(np.float32), checks, inside, 2)
        assert found * 2 == pytest.approx(passed, abs=0.03)

    def test_the_rim_of_the_foreground_does_not_count(self, mask: np.ndarray) -> None:
        flat = np.where(mask, np.float32(5), np.float32(0))
        textured = np.random.default_rng(0).random(mask.shape).astype(np.float32)
        assert high_frequency_ratio(flat, textured, mask, 2) == pytest.approx(0, abs=1e-6)


class TestDetailCorrelation:
    def test_tells_detail_in_its_place_from_noise(
        self, volume: np.ndarray, mask: np.ndarray
    ) -> None:
        noise = np.random.default_rng(5).standard_normal(volume.shape).astype(np.float32)
        assert detail_correlation(volume, volume, mask, axis=2) == pytest.approx(1)
        assert detail_correlation(-volume, volume, mask, axis=2) == pytest.approx(-1)
        assert detail_correlation(noise, volume, mask, axis=2) == pytest.approx(0, abs=0.1)
        half = detail_correlation(volume + noise * volume.std(), volume, mask, axis=2)
        assert half is not None
        assert 0.1 < half < 0.95

    def test_gain_and_coarse_changes_do_not_count(
        self, volume: np.ndarray, mask: np.ndarray
    ) -> None:
        ramp = np.linspace(0, 0.1, volume.shape[0], dtype=np.float32)[:, None, None]
        found = detail_correlation(0.3 * volume + ramp, volume, mask, axis=2)
        assert found == pytest.approx(1, abs=0.02)

    def test_an_image_without_detail_has_none(self, volume: np.ndarray, mask: np.ndarray) -> None:
        flat = np.ones_like(volume)
        assert detail_correlation(flat, volume, mask, axis=2) is None


class TestRealism:
    def test_of_the_same_distribution_is_nothing(self) -> None:
        one, two = textures(40, 0), textures(40, 1)
        worse = ndimage.gaussian_filter(two, (0, 0.7, 0.7))
        assert abs(realism_distance(one, two)) < 0.02 * realism_distance(worse, one)

    def test_grows_with_blur(self) -> None:
        one, two = textures(20, 0), textures(20, 1)
        images = [ndimage.gaussian_filter(two, (0, s, s)) for s in (0, 0.5, 1, 2)]
        found = [realism_distance(np.where(two > 0, image, 0), one) for image in images]
        assert found == sorted(found)

    def test_grows_with_noise(self) -> None:
        one, two = textures(20, 0), textures(20, 1)
        noise = np.random.default_rng(2).standard_normal(two.shape).astype(np.float32)
        images = [np.where(two > 0, two + s * noise, 0) for s in (0, 0.02, 0.05, 0.2)]
        found = [realism_distance(image, one) for image in images]
        assert found == sorted(found)

    def test_says_the_same_every_time(self) -> None:
        one, two = textures(6, 0), textures(8, 1, size=96)
        assert realism_distance(one, two) == realism_distance(one, two)
        assert realism_distance(one, two, seed=1) != realism_distance(one, two)

    def test_only_patches_with_foreground_count(self) -> None:
        image = np.zeros((2, 64, 96), dtype=np.float32)
        image[0, :32, :32] = 0.5
        image[1, 32:, 32:64] = 0.5
        assert features(image).shape[0] == 2

    def test_too_few_patches_are_refused(self) -> None:
        with pytest.raises(ValueError, match="two 32 x 32 patches"):
            realism_distance(np.zeros((3, 64, 64), dtype=np.float32), textures(2, 0))


def test_the_slicing_axis_is_that_of_the_scanner(volume: np.ndarray, mask: np.ndarray) -> None:
    """A volume stored in another order is scored the same: evaluate finds its axial axis."""
    for order, signs in helpers.orientations()[::7]:
        stored, affine = helpers.stored_as(volume, np.diag([1.0, 2.0, 3.0, 1.0]), order, signs)
        axis = array_axis(helpers.volume(stored, helpers.tilted(affine)), 2)
        assert nib.aff2axcodes(affine)[axis] in "SI"


class TestCheckerboard:
    """Patterns of two pixels; anatomy, noise and blur are none."""

    MASK = np.ones((64, 60, 50), dtype=bool)

    def anatomy(self, seed: int = 0) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=self.MASK.shape)
        return ndimage.gaussian_filter(noise, (1, 1, 1)).astype(np.float32)

    def ratio(self, predicted: np.ndarray, reference: np.ndarray | None = None) -> float | None:
        truth = self.anatomy() if reference is None else reference
        return checkerboard_ratio(predicted, truth, self.MASK)

    def test_an_image_is_as_good_as_itself(self) -> None:
        noise = np.random.default_rng(1).normal(size=self.MASK.shape).astype(np.float32)
        assert self.ratio(noise, noise) == pytest.approx(1, abs=0.1)
        assert self.ratio(self.anatomy(), self.anatomy()) < 1

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_faint_grid_is_seen(self, axis: int) -> None:
        shape = [1, 1, 1]
        shape[axis] = self.MASK.shape[axis]
        grid = (-1.0) ** np.arange(self.MASK.shape[axis]).reshape(shape)
        image = self.anatomy()
        assert self.ratio(image + 0.05 * image.std() * grid.astype(np.float32)) > 2

    def test_neither_sharpness_nor_noise_nor_gain_is_a_grid(self) -> None:
        noise = np.random.default_rng(1).normal(size=self.MASK.shape).astype(np.float32)
        for image in (noise, 5 * self.anatomy(3) + 2, self.anatomy() + 0.2 * noise):
            assert self.ratio(image) < 1.2

    def test_a_pattern_of_the_reference_is_no_fault(self) -> None:
        grid = (-1.0) ** np.arange(64).reshape(64, 1, 1)
        image = self.anatomy() + 0.1 * grid.astype(np.float32)
        assert self.ratio(image, image) == pytest.approx(1)

    def test_a_pattern_outside_the_mask_does_not_count(self) -> None:
        image, mask = self.anatomy(), self.MASK.copy()
        mask[:, 50:] = False
        grid = image.copy()
        grid[:, 50:] += (-1.0) ** np.arange(10)[None, :, None].astype(np.float32)
        assert checkerboard_ratio(grid, image, mask) == checkerboard_ratio(image, image, mask)

    def test_too_small_a_mask_has_none(self) -> None:
        mask = np.zeros_like(self.MASK)
        mask[:40, :40, :40] = True
        assert checkerboard_ratio(self.anatomy(), self.anatomy(), mask) is None
