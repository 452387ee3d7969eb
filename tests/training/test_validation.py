"""Scores on the val split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtrans.config.schema import Pipeline
from medtrans.networks.binding import build_schedule
from medtrans.networks.unet import residual_network
from medtrans.training.cache import CachedVolume
from medtrans.training.data import pair_example, target_example
from medtrans.training.validation import (
    Validation,
    ValidationBatch,
    _evenly,
    denoised,
    slice_support,
    translated,
    validate,
)
from tests import helpers

Cached = dict[str, dict[str, CachedVolume]]
CPU = torch.device("cpu")
NOTHING = nn.Identity()


# One voxel around the foreground.
MARGIN = {"dilation_mm": 8.0, "masked_dilation_mm": 8.0}


@pytest.fixture(scope="module")
def wide() -> Pipeline:
    return helpers.tiny_pipeline(volume=MARGIN)


def pairs(cached: Cached) -> list:
    return [pair_example(cached["val"]["t1"], cached["val"]["t2"], 0, 1)]


def score(cached: Cached, wide: Pipeline, **images) -> dict[str, float]:
    def predict(network: nn.Module, batch: ValidationBatch) -> dict[str, Tensor]:
        return {name: make(batch) for name, make in images.items()}

    return validate(NOTHING, Validation(pairs(cached), predict, wide.volume, 6), CPU).scores


def test_the_target_itself_is_perfect(cached: Cached, wide: Pipeline) -> None:
    scores = score(cached, wide, exact=lambda batch: batch.target)
    assert scores["exact_psnr"] > 60
    assert scores["exact_ssim"] == pytest.approx(1, abs=1e-3)


def test_dark_source_voxels_inside_the_head_are_scored(cached: Cached, wide: Pipeline) -> None:
    """Fluid is clipped to -1 in T1, like the background, and bright in T2."""
    source = np.load(cached["val"]["t1"].path)
    target = np.load(cached["val"]["t2"].path)
    assert ((source == -1) & (target > 0)).any()
    exact = score(cached, wide, exact=lambda batch: batch.target)
    wrong = score(
        cached,
        wide,
        exact=lambda b: torch.where((b.source[:, 1:2] == -1) & (b.target > 0), -1, b.target),
    )
    assert wrong["exact_psnr"] < exact["exact_psnr"] - 20


def test_an_image_without_contrast_is_scored_too(cached: Cached, wide: Pipeline) -> None:
    scores = score(cached, wide, black=lambda batch: torch.full_like(batch.target, -1.0))
    assert all(np.isfinite(value) for value in scores.values())
    assert scores["black_psnr"] < scores["black_psnr_fit"] < 25


def test_gain_and_shift_are_fitted_away(cached: Cached, wide: Pipeline) -> None:
    scores = score(cached, wide, dim=lambda batch: batch.target * 0.5 - 0.3)
    assert scores["dim_psnr"] < 30
    assert scores["dim_psnr_fit"] > 60


def test_more_noise_scores_lower(cached: Cached, wide: Pipeline) -> None:
    scores = score(
        cached,
        wide,
        weak=lambda batch: batch.target + 0.05 * batch.eps,
        strong=lambda batch: batch.target + 0.3 * batch.eps,
    )
    for key in ("psnr", "psnr_fit", "ssim"):
        assert scores[f"weak_{key}"] > scores[f"strong_{key}"]
    assert 25 < scores["weak_psnr"] < 40  # 0.05 of [-1, 1] is 0.025 of [0, 1]: 32 dB


def test_is_the_same_every_time(cached: Cached, wide: Pipeline) -> None:
    def make(batch: ValidationBatch) -> Tensor:
        return batch.target + 0.2 * batch.eps

    assert score(cached, wide, a=make) == score(cached, wide, a=make)


@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_exact_networks(cached: Cached, prediction: str) -> None:
    """The batch's own noise and residual, as networks, give perfect scores in both stages."""
    wide = helpers.tiny_pipeline(volume=MARGIN, noise={"prediction": prediction})
    schedule = build_schedule(wide)
    seen: list[ValidationBatch] = []

    class Exact(nn.Module):
        def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
            if x.shape[1] == 1:
                return seen[-1].eps if prediction == "eps" else seen[-1].target
            return seen[-1].source[:, 1:2] - seen[-1].target

    def watching(predict):
        def watched(network: nn.Module, batch: ValidationBatch) -> dict[str, Tensor]:
            seen.append(batch)
            return predict(network, batch)

        return watched

    noise = [target_example(cached["val"]["t2"], 0)]
    predict = watching(denoised(schedule, wide))
    outcome = validate(Exact(), Validation(noise, predict, wide.volume, 4), CPU)
    assert outcome.scores["denoised_psnr"] > 60
    predict = watching(translated(schedule, Exact(), wide))
    outcome = validate(Exact(), Validation(pairs(cached), predict, wide.volume, 4), CPU)
    assert outcome.scores["fidelity_psnr"] > 50
    assert outcome.scores["realistic_psnr"] > 50


def test_untrained_residual_network_scores_as_the_source(cached: Cached, wide: Pipeline) -> None:
    predict = translated(build_schedule(wide), None, wide)
    network = residual_network(wide, 0).eval()
    found = validate(network, Validation(pairs(cached), predict, wide.volume, 6), CPU).scores
    expected = score(cached, wide, fidelity=lambda batch: batch.source[:, 1:2])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-3)


def test_pictures_show_source_predictions_and_target(cached: Cached, wide: Pipeline) -> None:
    def predict(network: nn.Module, batch: ValidationBatch) -> dict[str, Tensor]:
        return {"a": batch.target, "b": batch.target}

    outcome = validate(NOTHING, Validation(pairs(cached), predict, wide.volume, 6), CPU)
    assert outcome.captions == ["source", "a", "b", "target"]
    assert [len(row) for row in outcome.rows] == [4]
    assert np.array_equal(outcome.rows[0][1], outcome.rows[0][2])


def test_the_support_is_the_filled_foreground_and_a_margin_in_mm() -> None:
    slices = np.full((2, 9, 9), -1, dtype=np.float32)
    slices[0, 3:6, 3:6] = 0
    slices[0, 4, 4] = -1  # a hole: dark fluid
    found = slice_support(slices, 2.0, (2.0, 1.0))
    expected = np.zeros((2, 9, 9), dtype=bool)
    expected[0, 2:7, 1:8] = True
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("count", [1, 3, 10, 50])
def test_slices_are_spread_evenly(count: int) -> None:
    indices = range(20, 60)
    chosen = _evenly(indices, count)
    assert len(chosen) == min(count, 40)
    assert len(set(chosen)) == len(chosen)
    if count == 1:
        assert chosen == [40]
    if count < 40:
        assert min(chosen) > 20
        assert set(chosen) <= set(indices)
