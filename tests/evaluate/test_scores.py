"""All scores of one prediction: regions, scales, the fit, HU."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medtrans.evaluate.metrics import linear_fit, similarity, unit_scale
from medtrans.evaluate.realism import realism_distance
from medtrans.evaluate.regions import FOREGROUND, REGION, WHOLE
from medtrans.evaluate.scores import Reference, score, score_regions
from medtrans.evaluate.texture import high_frequency_ratio, slice_ratio
from medtrans.preprocessing.intensity import Profile

SHAPE = (24, 26, 20)


@pytest.fixture
def truth() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    smooth = ndimage.gaussian_filter(noise, 1)
    image = (500 + 400 * smooth / np.abs(smooth).max()).astype(np.float32)
    return np.where(inside(), image, np.float32(0))


@pytest.fixture
def predicted(truth: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    return np.where(inside(), 0.6 * truth + 100 + 20 * noise, np.float32(0)).astype(np.float32)


def inside() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[4:20, 5:22, 2:18] = True
    return mask


def lesion() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[8:12, 9:15, 5:9] = True
    return mask


def regions() -> dict[str, np.ndarray]:
    return {FOREGROUND: inside(), WHOLE: np.ones(SHAPE, dtype=bool), REGION: lesion()}


class TestRegions:
    def test_each_is_scored_on_its_own_voxels_and_the_foregrounds_scale(
        self, predicted: np.ndarray, truth: np.ndarray
    ) -> None:
        found = score_regions(predicted, Reference(truth, regions()))
        one, two = (unit_scale(image, inside()) for image in (predicted, truth))
        for name, mask in regions().items():
            expected = similarity(one, two, mask).as_dict()
            assert {key: found[name][key] for key in expected} == pytest.approx(expected, rel=1e-5)

    def test_the_fit_is_the_foregrounds_and_leaves_the_background_alone(
        self, predicted: np.ndarray, truth: np.ndarray
    ) -> None:
        found = score_regions(predicted, Reference(truth, regions()))
        one, two = (unit_scale(image, inside()) for image in (predicted, truth))
        fitted = np.where(inside(), linear_fit(one, two, inside()), one)
        for name, mask in regions().items():
            expected = similarity(fitted, two, mask).as_dict()
            assert {key: found[name][f"{key}_fit"] for key in expected} == pytest.approx(
                expected, rel=1e-4
            )

    def test_textures_after_the_fit_are_those_of_the_fitted_image(
        self, predicted: np.ndarray, truth: np.ndarray
    ) -> None:
        found = score_regions(predicted, Reference(truth, regions(), axis=1))[REGION]
        one, two = (unit_scale(image, inside()) for image in (predicted, truth))
        fitted = linear_fit(one, two, inside())
        for name, ratio in (("high_frequency", high_frequency_ratio), ("slice", slice_ratio)):
            assert found[f"{name}_ratio"] == pytest.approx(ratio(one, two, lesion(), 1), rel=1e-4)
            assert found[f"{name}_ratio_fit"] == pytest.approx(
                ratio(fitted, two, lesion(), 1), rel=1e-4
            )

    def test_texture_is_not_for_air(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        found = score_regions(predicted, Reference(truth, regions()))
        assert "slice_ratio" not in found[WHOLE]
        assert "slice_ratio" in found[FOREGROUND]

    def test_a_reference_is_measured_once(
        self, predicted: np.ndarray, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reference = Reference(truth, regions())
        first = score_regions(predicted, reference)
        seen: list[np.ndarray] = []
        scaled = Reference.scaled
        monkeypatch.setattr(
            Reference, "scaled", lambda self, values: (seen.append(values), scaled(self, values))[1]
        )
        assert score_regions(predicted, reference) == first
        assert all(values is predicted for values in seen)


class TestScore:
    def test_gain_does_not_matter_for_mr(self, truth: np.ndarray) -> None:
        found = score(truth * 37, truth * 900, inside())
        assert found["psnr"] > 60
        both = ("psnr", "ssim", "ms_ssim", "mae", "nrmse", "high_frequency_ratio", "slice_ratio")
        once = ("ncc", "detail_correlation")
        assert set(found) == {*both, *(f"{name}_fit" for name in both), *once}

    def test_gain_matters_for_ct(self) -> None:
        share = np.random.default_rng(0).random(SHAPE).astype(np.float32)
        window = Profile(-1000, 2000)
        hu = share * 3000 - 1000
        assert score(hu, hu, inside(), window)["psnr"] > 100
        off = score(hu + 300, hu, inside(), Profile(-1000, 3000))
        assert off["mae"] == pytest.approx(300 / 4000, rel=0.05)
        assert off["psnr_fit"] > 60 > off["psnr"]

    def test_hu_by_tissue(self) -> None:
        hu = np.full(SHAPE, -1000, dtype=np.float32)
        hu[inside()] = 40
        hu[lesion()] = 700
        predicted = np.where(hu > 200, hu - 150, hu + 10).astype(np.float32)
        found = score(predicted, hu, inside(), Profile(-1000, 2000))
        share = lesion().sum() / inside().sum()
        assert found["bias_bone_hu"] == pytest.approx(-150)
        assert found["bias_soft_hu"] == pytest.approx(10)
        assert (found["mae_bone_hu"], found["mae_soft_hu"]) == (150, 10)
        assert found["bias_hu"] == pytest.approx(10 - 160 * share, rel=1e-5)
        assert found["mae_hu"] == pytest.approx(10 + 140 * share, rel=1e-5)

    def test_a_tissue_that_is_not_there_has_no_score(self) -> None:
        hu = np.full(SHAPE, -1000, dtype=np.float32)
        hu[inside()] = np.random.default_rng(0).uniform(0, 80, int(inside().sum()))
        found = score(hu, hu, inside(), Profile(-1000, 2000))
        assert "bias_bone_hu" not in found
        assert found["bias_soft_hu"] == 0

    def test_mr_has_no_hu(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        assert not [name for name in score(predicted, truth, inside()) if name.endswith("hu")]

    def test_a_constant_prediction_has_no_correlation(self, truth: np.ndarray) -> None:
        found = score(np.full_like(truth, 3), truth, inside())
        assert "ncc" not in found
        assert np.isfinite(list(found.values())).all()


class TestKernelDistance:
    def textured(self, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).standard_normal((66, 66, 26))
        return np.clip(0.5 + 0.2 * ndimage.gaussian_filter(noise, 1), 0.1, 0.9).astype(np.float32)

    def test_is_that_of_the_foreground(self) -> None:
        one, two = self.textured(0), self.textured(1)
        mask = np.ones(one.shape, dtype=bool)
        mask[..., 0] = False
        found = score(one, two, mask, Profile(0, 1))["kernel_distance"]
        cut = [np.moveaxis(np.where(mask, image, 0), 2, 0) for image in (one, two)]
        assert found == pytest.approx(realism_distance(*cut), rel=1e-3)

    def test_needs_patches(self) -> None:
        one, two = self.textured(0), self.textured(1)
        mask = np.ones(one.shape, dtype=bool)
        mask[..., 24:] = False  # 96 patches are left
        assert "kernel_distance" not in score(one, two, mask, Profile(0, 1))
