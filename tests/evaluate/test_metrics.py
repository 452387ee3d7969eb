"""What a score is: in a mask, on a scale, and the same as scikit-image's and MONAI's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric
from monai.metrics.regression import compute_ssim_and_cs
from skimage import metrics as skimage_metrics
from skimage.measure import pearson_corr_coeff
from torch.nn import functional

from medtrans.evaluate.metrics import (
    SCALE_WEIGHTS,
    best_line,
    correlation,
    linear_fit,
    ms_ssim,
    nrmse,
    psnr,
    scales_of,
    similarity,
    ssim_map,
    unit_scale,
)


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).random((12, 13, 11)).astype(np.float32)


@pytest.fixture
def other(truth: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    return truth + np.float32(0.2) * noise


@pytest.fixture
def mask() -> np.ndarray:
    inside = np.zeros((12, 13, 11), dtype=bool)
    inside[2:9, 3:11, 1:8] = True
    return inside


class TestPsnr:
    def test_value(self, truth: np.ndarray, mask: np.ndarray) -> None:
        assert psnr(truth + np.float32(0.1), truth, mask) == pytest.approx(20, abs=1e-3)
        assert psnr(truth - np.float32(0.01), truth, mask) == pytest.approx(40, abs=1e-2)

    def test_only_the_mask_counts(self, truth: np.ndarray, mask: np.ndarray) -> None:
        other = np.where(mask, truth, np.float32(9))
        assert psnr(other, truth, mask) > 100

    def test_equal_images_have_a_finite_score(self, truth: np.ndarray, mask: np.ndarray) -> None:
        assert psnr(truth, truth, mask) == pytest.approx(120)


class TestAgainstTheLibraries:
    """Direct calls of scikit-image and MONAI give the same numbers."""

    def test_psnr(self, truth: np.ndarray, other: np.ndarray, mask: np.ndarray) -> None:
        expected = skimage_metrics.peak_signal_noise_ratio(truth[mask], other[mask], data_range=1)
        assert psnr(other, truth, mask) == pytest.approx(expected, rel=1e-6)

    def test_nrmse(self, truth: np.ndarray, other: np.ndarray, mask: np.ndarray) -> None:
        expected = skimage_metrics.normalized_root_mse(truth[mask], other[mask])
        assert nrmse(other, truth, mask) == pytest.approx(expected, rel=1e-6)

    def test_correlation(self, truth: np.ndarray, other: np.ndarray, mask: np.ndarray) -> None:
        expected, _ = pearson_corr_coeff(other, truth, mask)
        assert correlation(other, truth, mask) == pytest.approx(expected, rel=1e-5)

    def test_ssim(self, truth: np.ndarray, other: np.ndarray) -> None:
        mean, full = skimage_metrics.structural_similarity(other, truth, data_range=1, full=True)
        found = ssim_map(other, truth)
        np.testing.assert_allclose(found, full, rtol=1e-5)
        assert found[3:-3, 3:-3, 3:-3].mean() == pytest.approx(mean, rel=1e-5)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize(("side", "scales"), [(11, 1), (30, 2), (60, 3)])
    def test_ms_ssim(self, axis: int, side: int, scales: int) -> None:
        rng = np.random.default_rng(side)
        slices = [rng.random((3, side, side + 5)).astype(np.float32) for _ in range(2)]
        slices[1] = slices[0] + np.float32(0.3) * slices[1]
        one, two = (np.moveaxis(values, 0, axis) for values in slices)
        weights = np.array(SCALE_WEIGHTS[:scales])
        metric = MultiScaleSSIMMetric(2, weights=(weights / weights.sum()).tolist())
        expected = metric(*(torch.from_numpy(values)[None] for values in slices)).item()
        found = ms_ssim(one, two, {"whole": np.ones(one.shape, dtype=bool)}, axis)
        assert found == {"whole": pytest.approx(expected, rel=1e-5)}
        assert scales_of(one.shape, axis) == scales

    def test_ms_ssim_of_a_whole_slice(self) -> None:
        """All five scales, with MONAI's own weights."""
        rng = np.random.default_rng(0)
        one = rng.random((1, 176, 180)).astype(np.float32)
        two = one + rng.random(one.shape).astype(np.float32)
        expected = MultiScaleSSIMMetric(2)(*(torch.from_numpy(v)[None] for v in (one, two))).item()
        found = ms_ssim(one, two, {"whole": np.ones(one.shape, dtype=bool)}, 0)
        assert found["whole"] == pytest.approx(expected, rel=1e-5)


class TestMsSsim:
    def test_only_the_neighbourhood_of_a_mask_counts(self) -> None:
        rng = np.random.default_rng(0)
        one = rng.random((2, 64, 64)).astype(np.float32)
        two = one.copy()
        two[:, :, 48:] += rng.random((2, 64, 16)).astype(np.float32)
        masks = {name: np.zeros(one.shape, dtype=bool) for name in ("near", "far")}
        masks["near"][:, 20:40, 44:56] = True
        masks["far"][:, 20:40, 8:20] = True
        found = ms_ssim(one, two, masks, 0)
        assert found["far"] == pytest.approx(1, abs=1e-3)
        assert found["near"] < 0.9

    def test_a_mask_is_averaged_down_with_the_images(self) -> None:
        one, two = np.random.default_rng(0).random((2, 1, 40, 40)).astype(np.float32)
        two = one + np.float32(0.3) * two
        mask = np.zeros(one.shape, dtype=bool)
        mask[:, 15:22, 13:20] = True  # over parts of blocks of two pixels
        images = [torch.from_numpy(values)[None] for values in (one, two)]
        share = torch.from_numpy(mask).float()[None]
        expected = 1.0
        for part, weight in zip((1, 0), np.array(SCALE_WEIGHTS[:2]) / 0.3304, strict=True):
            found = compute_ssim_and_cs(*images, 2, (11, 11), (1.5, 1.5))[part]
            inner = share[..., 5:-5, 5:-5]
            expected *= float((found * inner).sum() / inner.sum()) ** weight
            images = [functional.avg_pool2d(image, 2) for image in images]
            share = functional.avg_pool2d(share, 2)
        assert ms_ssim(one, two, {"a": mask}, 0)["a"] == pytest.approx(expected, rel=1e-5)

    def test_many_slices_are_as_few(self) -> None:
        """The volume is gone through in parts, which change nothing."""
        one, two = np.random.default_rng(0).random((2, 130, 12, 12)).astype(np.float32)
        mask = {"whole": np.ones(one.shape, dtype=bool)}
        whole = MultiScaleSSIMMetric(2, weights=[1.0])(
            torch.from_numpy(one)[None], torch.from_numpy(two)[None]
        )
        assert ms_ssim(one, two, mask, 0)["whole"] == pytest.approx(whole.item(), rel=1e-5)

    def test_is_left_out_where_no_window_fits(self) -> None:
        image = np.zeros((20, 10, 20), dtype=np.float32)
        assert ms_ssim(image, image, {"whole": np.ones(image.shape, dtype=bool)}, 0) == {}

    def test_a_mask_at_the_rim_counts(self) -> None:
        one, two = np.random.default_rng(0).random((2, 3, 24, 24)).astype(np.float32)
        rim = np.zeros((3, 24, 24), dtype=bool)
        rim[:, :2, :2] = True
        assert ms_ssim(one, two, {"rim": rim}, 0)["rim"] < 0.9
        assert ms_ssim(one, one, {"rim": rim}, 0)["rim"] == pytest.approx(1)

    def test_opposite_contrast_has_none(self) -> None:
        image = np.random.default_rng(0).random((1, 40, 40)).astype(np.float32)
        found = ms_ssim(image, 1 - image, {"whole": np.ones(image.shape, dtype=bool)}, 0)
        assert found["whole"] == 0


class TestUndefined:
    def test_correlation_of_a_constant(self, truth: np.ndarray, mask: np.ndarray) -> None:
        for value in (0, 3):
            assert correlation(np.full_like(truth, value), truth, mask) is None
        nearly = np.full_like(truth, 3)
        nearly[5, 5, 5] = np.nextafter(np.float32(3), np.float32(4))
        assert correlation(nearly, truth, mask) is None

    def test_correlation_of_one_voxel(self, truth: np.ndarray) -> None:
        one = np.zeros(truth.shape, dtype=bool)
        one[3, 3, 3] = True
        assert correlation(truth, truth, one) is None

    def test_nrmse_of_nothing(self, truth: np.ndarray, mask: np.ndarray) -> None:
        assert nrmse(truth, np.zeros_like(truth), mask) is None


class TestSimilarity:
    def test_equal(self, truth: np.ndarray, mask: np.ndarray) -> None:
        found = similarity(truth, truth, mask)
        assert found.ssim == pytest.approx(1)
        assert found.mae == 0

    def test_mae(self, truth: np.ndarray, mask: np.ndarray) -> None:
        assert similarity(truth + np.float32(0.25), truth, mask).mae == pytest.approx(0.25)

    def test_ssim_falls_with_noise(self, truth: np.ndarray, mask: np.ndarray) -> None:
        noise = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
        values = [similarity(truth + s * noise, truth, mask).ssim for s in (0.0, 0.05, 0.2, 1.0)]
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.3

    @pytest.mark.parametrize("shape", [(12, 13, 1), (1, 12, 13), (5, 6, 4), (12, 13)])
    def test_thin_and_flat_images(self, shape: tuple[int, ...]) -> None:
        image = np.random.default_rng(0).random(shape).astype(np.float32)
        found = similarity(image, image, np.ones(shape, dtype=bool)).as_dict()
        assert found["ssim"] == pytest.approx(1)


class TestScales:
    def test_unit_scale_is_the_foregrounds_percentile(
        self, truth: np.ndarray, mask: np.ndarray
    ) -> None:
        image = np.where(mask, truth * 700, np.float32(1e6))
        scaled = unit_scale(image, mask)
        assert np.percentile(scaled[mask], 99.5) == pytest.approx(1)

    def test_linear_fit_undoes_gain_and_shift(self, truth: np.ndarray, mask: np.ndarray) -> None:
        fitted = linear_fit(truth * np.float32(-3) + 5, truth, mask)
        np.testing.assert_allclose(fitted, truth, atol=1e-5)

    def test_linear_fit_is_least_squares(self, truth: np.ndarray, mask: np.ndarray) -> None:
        other = truth**2 + np.random.default_rng(2).random(truth.shape).astype(np.float32)
        slope, shift = np.polyfit(other[mask].astype(float), truth[mask].astype(float), 1)
        line = best_line(other, truth, mask)
        assert (line.slope, line.shift) == (pytest.approx(slope), pytest.approx(shift))
        np.testing.assert_allclose(linear_fit(other, truth, mask), slope * other + shift, atol=1e-5)

    @pytest.mark.parametrize("value", [0.0, 3.0])
    def test_linear_fit_of_a_constant_is_the_mean(
        self, truth: np.ndarray, mask: np.ndarray, value: float
    ) -> None:
        fitted = linear_fit(np.full_like(truth, value), truth, mask)
        np.testing.assert_allclose(fitted, truth[mask].mean(), rtol=1e-5)
