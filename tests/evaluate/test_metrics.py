"""Scores, baselines, and the comparison of a model with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest
from medtrans.errors import GeometryError, ManifestError
from medtrans.evaluate.baselines import ToneCurve
from medtrans.evaluate.compare import evaluate_model, summarise
from medtrans.evaluate.metrics import linear_fit, psnr, similarity, unit_scale
from medtrans.evaluate.scores import evaluate_files, score
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile
from medtrans.training.run import TrainingPlan, train
from medtrans.volumes import read_volume
from tests import helpers


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).random((12, 13, 11)).astype(np.float32)


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
        fitted = linear_fit(other, truth, mask)
        slope, shift = np.polyfit(other[mask].astype(float), truth[mask].astype(float), 1)
        np.testing.assert_allclose(fitted, slope * other + shift, atol=1e-5)

    @pytest.mark.parametrize("value", [0.0, 3.0])
    def test_linear_fit_of_a_constant_is_the_mean(
        self, truth: np.ndarray, mask: np.ndarray, value: float
    ) -> None:
        fitted = linear_fit(np.full_like(truth, value), truth, mask)
        np.testing.assert_allclose(fitted, truth[mask].mean(), rtol=1e-5)


class TestScore:
    def test_gain_does_not_matter_for_mr(self, truth: np.ndarray, mask: np.ndarray) -> None:
        found = score(truth * 37, truth * 900, mask)
        assert found["psnr"] > 60
        names = ("psnr", "ssim", "mae", "high_frequency_ratio", "slice_ratio")
        assert set(found) == {*names, *(f"{name}_fit" for name in names)}

    def test_gain_matters_for_ct(self, truth: np.ndarray, mask: np.ndarray) -> None:
        window = Profile(-1000, 2000)
        hu = truth * 3000 - 1000
        assert score(hu, hu, mask, window)["psnr"] > 100
        off = score(hu + 300, hu, mask, Profile(-1000, 3000))
        assert off["mae"] == pytest.approx(300 / 4000, rel=0.05)
        assert off["psnr_fit"] > 60 > off["psnr"]


class TestToneCurve:
    def test_is_the_conditional_mean(self) -> None:
        rng = np.random.default_rng(0)
        source = rng.uniform(-1, 1, 200_000).astype(np.float32)
        target = source**2 + 0.1 * rng.standard_normal(source.size)
        half = source.size // 2
        parts = [(source[:half], target[:half]), (source[half:], target[half:])]
        curve = ToneCurve.fit(parts)
        x = np.linspace(-0.95, 0.95, 40, dtype=np.float32)
        np.testing.assert_allclose(curve(x), x**2, atol=0.03)
        assert curve(x).dtype == np.float32

    def test_holds_its_ends(self) -> None:
        source = np.linspace(0, 0.5, 1000, dtype=np.float32)
        curve = ToneCurve.fit([(source, 2 * source)])
        low, high = curve(np.array([-1, 1], dtype=np.float32))
        assert low == pytest.approx(0, abs=0.01)
        assert high == pytest.approx(1, abs=0.01)


class TestCompare:
    def test_rows_for_baselines_and_modes(self, random_model: Path, cohort: Path) -> None:
        translator = Translator.load(random_model, "cpu")
        translator.sampler.precision = torch.float32
        settings = [Settings(mode="fidelity"), Settings(mode="realistic")]
        told: list[int] = []
        table = evaluate_model(
            translator, Manifest.read(cohort), "train", None, settings, lambda: told.append(1)
        )
        assert table["method"].tolist() == ["identity", "tone curve", "fidelity", "realistic"]
        assert set(table["subject"]) == {"sub-001"}
        assert set(table["task"]) == {"t1-to-t2"}
        assert len(told) == 1
        scores = table.set_index("method")
        assert np.isfinite(scores.drop(columns=["subject", "task"]).to_numpy(float)).all()
        # On the subject that it was fitted to, no linear map of the source can be better.
        assert scores.loc["tone curve", "psnr_fit"] > scores.loc["identity", "psnr_fit"]

    def test_the_task_that_is_scored_is_the_task_that_is_translated(self, tmp_path: Path) -> None:
        manifest = helpers.write_cohort(tmp_path / "data", 1, contrasts=("t1", "t2", "flair"))
        recipe = helpers.tiny_pipeline("base", tasks=["t1-to-t2", "t1-to-flair"])
        translator = Translator.load(helpers.save_model(tmp_path / "model", recipe), "cpu")
        cases = Manifest.read(manifest)
        table = evaluate_model(translator, cases, "train", "t1-to-flair", [Settings()])
        [pair] = cases.pairs("t1", "flair", "train")
        source, target = read_volume(pair.source.path), read_volume(pair.target.path).numpy()
        expected = {
            task: score(
                translator.translate_volume(source, Settings(task=task)).voxels,
                target,
                find_foreground(target),
            )["psnr"]
            for task in ("t1-to-t2", "t1-to-flair")
        }
        assert expected["t1-to-t2"] != pytest.approx(expected["t1-to-flair"], abs=1e-4)
        found = table.set_index("method").loc["fidelity", "psnr"]
        assert found == pytest.approx(expected["t1-to-flair"], abs=1e-6)

    def test_summary_is_the_mean(self, identity_model: Path, tmp_path: Path) -> None:
        manifest = helpers.write_cohort(tmp_path, 3)
        manifest.write_text(manifest.read_text().replace(",val", ",test"))
        table = evaluate_model(
            Translator.load(identity_model, "cpu"), Manifest.read(manifest), "test", "t1-to-t2", []
        )
        [identity, _] = summarise(table)
        rows = table[table["method"] == "identity"]
        assert len(rows) == 2
        assert identity["method"] == "identity"
        assert identity["psnr"] == pytest.approx(rows["psnr"].mean())

    def test_a_split_without_pairs(self, identity_model: Path, tmp_path: Path) -> None:
        manifest = helpers.write_cohort(tmp_path, 1)
        with pytest.raises(ManifestError, match="no pair"):
            evaluate_model(
                Translator.load(identity_model, "cpu"), Manifest.read(manifest), "test", None, []
            )

    def test_ct_is_scored_on_its_window(self, tmp_path: Path) -> None:
        manifest = helpers.write_cohort(
            tmp_path / "data", contrasts=("mr", "ct"), shape=(16, 16, 8), skull_stripped=True
        )
        recipe = helpers.tiny_pipeline("mr-to-ct")
        plan = TrainingPlan(
            recipe, Manifest.read(manifest), tmp_path / "run", device="cpu", stages="residual"
        )
        translator = Translator.load(train(plan), "cpu")
        assert translator.package.profiles["ct"] == Profile(-1000, 2000)
        table = evaluate_model(translator, plan.manifest, "test", None, [Settings()])
        scores = table.set_index("method")
        assert scores.loc["tone curve", "mae"] < 0.2


class TestFiles:
    def files(self, folder: Path) -> list[Path]:
        return [helpers.write_nifti(folder / f"{c}.nii.gz", *helpers.head(c)) for c in ("t1", "t2")]

    def test_against_itself(self, tmp_path: Path) -> None:
        path, _ = self.files(tmp_path)
        assert evaluate_files(path, path, None)["ssim"] == pytest.approx(1)

    def test_in_a_mask(self, tmp_path: Path) -> None:
        one, two = self.files(tmp_path)
        image, affine = helpers.head("t2")
        inside = (image > np.median(image[image > 0])).astype(np.uint8)
        mask = helpers.write_nifti(tmp_path / "mask.nii.gz", inside, affine)
        whole, part = evaluate_files(one, two, None), evaluate_files(one, two, mask)
        assert whole["psnr"] != part["psnr"]

    def test_other_grids_are_refused(self, tmp_path: Path, pipeline: Pipeline) -> None:
        one, two = self.files(tmp_path)
        image, affine = helpers.head()
        small = helpers.write_nifti(tmp_path / "small.nii.gz", image[1:], affine)
        with pytest.raises(GeometryError, match="prediction and the reference"):
            evaluate_files(small, two, None)
        with pytest.raises(GeometryError, match="mask and the reference"):
            evaluate_files(one, two, small)
