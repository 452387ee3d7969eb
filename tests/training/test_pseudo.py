"""Pseudo-sources: training from unpaired targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest
from medtrans.diffusion import generator
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.networks.head import without_period
from medtrans.networks.transfer import copy_matching, misfitting
from medtrans.networks.unet import noise_network, residual_network
from medtrans.package.store import load_package
from medtrans.training.cache import CachedVolume
from medtrans.training.data import RandomSlices, StageExamples, pair_example, pseudo_example
from medtrans.training.plan import TrainingPlan
from medtrans.training.pseudo import pseudo_source
from medtrans.training.run import train
from medtrans.training.stages import noise_stage, residual_stage
from medtrans.volumes import read_volume
from tests import helpers

Cached = dict[str, dict[str, CachedVolume]]
STILL = dict.fromkeys(
    ("flip", "affine", "tone_curve", "gamma", "lift", "bias_field", "noise", "cut"), 0.0
)


@given(seed=st.integers(0, 10_000))
def test_a_pseudo_source_is_a_tone_curve_of_the_target(seed: int) -> None:
    config = helpers.tiny_pipeline(pseudo={"smoothing": 0.0}).pseudo
    levels = np.linspace(-1, 1, 9, dtype=np.float32)
    target = np.random.default_rng(0).choice(levels, (3, 20, 20))
    found = pseudo_source(target, config, np.random.default_rng(seed))
    assert (found[target == -1] == -1).all()
    for level in levels[1:]:
        assert np.ptp(found[target == level]) == 0
    assert -1 <= found.min() <= found.max() <= 1
    np.testing.assert_array_equal(found, pseudo_source(target, config, np.random.default_rng(seed)))


def test_pseudo_pairs_come_first_then_pairs(cached: Cached, pipeline: Pipeline) -> None:
    recipe = changed(pipeline, residual={"pseudo_until": 0.5}, augmentation=STILL)
    train_volumes = cached["train"]
    pair = pair_example(train_volumes["t1"], train_volumes["t2"], 0, 1)
    pseudo = pseudo_example(train_volumes["t2"], 1, 1)
    slices = RandomSlices([pair], recipe, "residual", 0, [pseudo])
    labels = [slices[i]["label"] for i in range(8)]  # 4 iterations of 2
    assert labels == [1] * 4 + [0] * 4


def test_without_pairs_all_are_pseudo_pairs(cached: Cached, pipeline: Pipeline) -> None:
    pseudo = pseudo_example(cached["train"]["t2"], 0, 1)
    slices = RandomSlices([], pipeline, "residual", 0, [pseudo])
    example = slices[7]
    assert example["source"].shape[0] == 3
    background = example["target"][0] == -1
    assert (example["source"][1][background] == -1).float().mean() > 0.9


def test_the_noise_network_sees_the_source_only_if_asked(
    cached: Cached, pipeline: Pipeline
) -> None:
    recipe = changed(pipeline, noise={"sees_source": True, "source_dropout": 0.5})
    train_volumes = cached["train"]
    pair = pair_example(train_volumes["t1"], train_volumes["t2"], 0, recipe.slices.context)
    stage = noise_stage(recipe, StageExamples([pair]), 0)
    seen = []

    def network(x: torch.Tensor, time: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append(x[:, 1:])
        return x[:, :1]

    source = torch.full((64, 3, 4, 4), 0.5)
    batch = {"target": torch.zeros(64, 1, 4, 4), "source": source, "label": torch.zeros(64).long()}
    stage.loss(network, batch, generator("test"))  # type: ignore[arg-type]
    shown = seen[0].flatten(1).abs().amax(dim=1)
    assert set(shown.tolist()) == {0.0, 0.5}
    assert noise_network(pipeline, 0).unet.conv_in.conv.in_channels == 4
    assert noise_network(recipe, 0).unet.conv_in.conv.in_channels == 16


def test_a_residual_network_that_starts_from_the_noise_network(
    cached: Cached, pipeline: Pipeline
) -> None:
    recipe = changed(pipeline, residual={"from_noise": True})
    noise = helpers.randomise(noise_network(recipe, 5), 5)
    volumes = cached["train"]
    pair = pair_example(volumes["t1"], volumes["t2"], 0, recipe.slices.context)
    stage = residual_stage(recipe, StageExamples([pair]), 0, noise)
    x, source, time = torch.randn(2, 1, 16, 16), torch.randn(2, 3, 16, 16), torch.full((2,), 500.0)
    answer = stage.network(torch.cat([x, source], 1), time)
    torch.testing.assert_close(answer, without_period(noise(x, time), recipe.network.unshuffle))


def test_a_noise_network_that_learns_to_see_the_source_starts_as_it_was() -> None:
    blind, seeing = (helpers.tiny_pipeline(noise={"sees_source": s}) for s in (False, True))
    before, after = helpers.randomise(noise_network(blind, 1), 1), noise_network(seeing, 0)
    assert misfitting(after, before.state_dict()) == []
    copy_matching(after, before.state_dict())
    x, source, time = torch.randn(2, 1, 16, 16), torch.randn(2, 3, 16, 16), torch.full((2,), 9.0)
    torch.testing.assert_close(after(torch.cat([x, source], 1), time), before(x, time))


def test_other_widths_do_not_fit_and_other_tasks_do() -> None:
    recipe = helpers.tiny_pipeline()
    weights = residual_network(recipe, 0).state_dict()
    wider = residual_network(helpers.tiny_pipeline(network={"channels": [4, 8]}), 0)
    several = residual_network(helpers.tiny_pipeline("brain-unified"), 0)
    assert misfitting(wider, weights)
    assert misfitting(several, weights) == []


@pytest.mark.parametrize("pairs", [0, 1])
@pytest.mark.parametrize("sees_source", [False, True])
def test_runs_with_and_without_pairs(
    cohort: Path, pipeline: Pipeline, tmp_path: Path, pairs: int, sees_source: bool
) -> None:
    recipe = changed(
        pipeline,
        noise={"sees_source": sees_source, "prediction": "v", "min_snr": 5.0},
        residual={"pseudo_until": 0.5, "from_noise": True, "loss": "charbonnier"},
    )
    plan = TrainingPlan(recipe, Manifest.read(cohort), tmp_path / "run", device="cpu", pairs=pairs)
    model = train(plan)
    package = load_package(model)
    assert package.pipeline.noise.sees_source is sees_source
    volume = read_volume(cohort.parent / "sub-003" / "t1.nii.gz")
    result = Translator.load(model, "cpu").translate_volume(volume, Settings(mode="realistic"))
    assert np.isfinite(result.voxels).all()


def changed(pipeline: Pipeline, **tables: dict[str, Any]) -> Pipeline:
    raw = pipeline.model_dump(mode="json")
    for name, keys in tables.items():
        raw[name] |= keys
    return type(pipeline).model_validate(raw)
