"""A model of slices along several axes: which of them an estimate is the mean of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medtrans.config.terms import Axis, Mode
from medtrans.diffusion import NoiseStep, SliceNoise, Steps, translate
from medtrans.inference import sampling
from medtrans.inference.cohort import Result, Unchanged, translate_cohort
from medtrans.inference.jobs import Job
from medtrans.inference.sampling import Pass, SliceSampler, plan_passes
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.slices import cut, stacks
from tests import helpers

EVERY = ("axial", "coronal", "sagittal")


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    pipeline = helpers.tiny_pipeline(slices={"also": ["coronal", "sagittal"]})
    return Translator.load(helpers.save_model(tmp_path_factory.mktemp("m") / "m", pipeline), "cpu")


def run(translator: Translator, job: Job, settings: Settings) -> Result:
    """Translate a job as one of a cohort, which leaves what is there."""
    done = lambda *_: None  # noqa: E731
    [result] = translate_cohort(translator, [job], settings, strict=True, on_done=done)
    return result


def test_fidelity_mode_is_the_mean_of_all(translator: Translator) -> None:
    head = helpers.volume(*helpers.head())
    made = translator.translate_volume(head, Settings())
    asked = translator.translate_volume(head, Settings(axes=EVERY))
    assert made.axes == EVERY
    assert np.array_equal(made.voxels, asked.voxels)
    one = translator.translate_volume(head, Settings(axes=("axial",)))
    assert one.axes == ("axial",)
    assert not np.allclose(one.voxels, made.voxels)


@pytest.mark.parametrize("mode", ["balanced", "realistic"])
def test_other_modes_draw_around_that_mean(
    translator: Translator, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = helpers.volume(*helpers.head())
    fidelity = translator.translate_volume(head, Settings())
    drawn = translator.translate_volume(head, Settings(mode=mode))
    assert drawn.axes == EVERY
    assert not np.allclose(drawn.voxels, fidelity.voxels)
    start = SliceSampler._start
    monkeypatch.setattr(SliceSampler, "_start", lambda *a: start(*a) * 0)
    monkeypatch.setattr(sampling, "noise_step", lambda x, *_: x)
    monkeypatch.setattr(SliceSampler, "_take_pattern_out", lambda *_: None)
    kept = translator.translate_volume(head, Settings(mode=mode))
    assert np.array_equal(kept.voxels, fidelity.voxels)


def test_the_noise_steps_go_along_the_axes_in_turn(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int]] = []
    step = SliceSampler._step

    def noted(self: SliceSampler, x: Any, one: Pass, number: NoiseStep, *rest: Any) -> None:
        taken.append((one.plan.axis, number.number))
        step(self, x, one, number, *rest)

    monkeypatch.setattr(SliceSampler, "_step", noted)
    told: list[tuple[int, int]] = []
    head = helpers.volume(*helpers.head())
    settings = Settings(mode="realistic", noise_steps=4, flips=True)
    translator.translate_volume(head, settings, on_slices=lambda *n: told.append(n))
    assert taken == [(2, 0), (1, 1), (0, 2), (2, 3)]
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("mode", ["fidelity", "balanced", "realistic"])
@pytest.mark.parametrize(("eta", "order"), [(0.0, 1), (0.5, 1), (0.0, 2)])
def test_along_one_axis_it_is_the_algorithm(
    mode: Mode, eta: float, order: int, tmp_path: Path
) -> None:
    """Slice by slice as Alg. 2 has it, from the same noise."""
    sampling = {"order": order, "level_span": 12.5 * (order - 1)}
    pipeline = helpers.tiny_pipeline(network={"unshuffle": 1}, sampling=sampling)
    translator = Translator.load(helpers.save_model(tmp_path / "m", pipeline), "cpu")
    head = helpers.volume(*helpers.head())
    settings = Settings(mode=mode, axes=("axial",), eta=eta)
    prepared = translator.prepare(head, settings)
    [made] = translator.sample(prepared, settings).draws
    sampler, plan = translator.sampler, prepared.plan
    [one] = plan.passes
    length = translator.package.pipeline.sampling.correlation_length
    for indices, stack in stacks(prepared.image, one.plan, one.chosen, 4):
        source = torch.from_numpy(stack)
        noise = SliceNoise(0, "0", indices, stack.shape[2:], sampler.device, length)
        with torch.inference_mode():
            stages = sampler._stages(plan.task, source)
            expected = translate(stages, source, noise.start(), plan.steps, noise.fresh)
        found = cut(made, one.plan)[indices]
        assert np.allclose(found, expected[:, 0].clamp(-1, 1).numpy(), atol=1e-4)


@pytest.mark.parametrize("axes", [EVERY, ("axial",)])
def test_no_noise_is_left_in_slices_without_a_source(
    translator: Translator, axes: tuple[Axis, ...]
) -> None:
    voxels, affine = helpers.head()
    settings = Settings(mode="realistic", axes=axes)
    prepared = translator.prepare(helpers.volume(voxels, affine), settings)
    hollow = prepared.image.copy()
    hollow[:, :, :3] = -1
    hollow[:2] = -1
    plans = [one.plan for one in prepared.plan.passes]
    plan = replace(prepared.plan, passes=tuple(plan_passes(hollow, plans, flips=False)))
    drawn, estimate = (
        translator.sample(
            replace(prepared, image=hollow, plan=replace(plan, steps=steps)), settings
        ).draws[0]
        for steps in (plan.steps, Steps(1, 0))
    )
    assert np.array_equal(drawn[:, :, :3], estimate[:, :, :3])
    if axes == EVERY:
        assert np.array_equal(drawn[:2], estimate[:2])
    else:
        assert np.all(drawn[:, :, :3] == -1)
    assert not np.array_equal(drawn[4:, :, 5:], estimate[4:, :, 5:])


def test_detail_is_raised_before_noise_is_added(tmp_path: Path) -> None:
    pipeline = helpers.tiny_pipeline(slices={"also": ["coronal", "sagittal"]})
    head = helpers.volume(*helpers.head())
    made = {}
    for name, gains in (("none", {}), ("ones", [1.0] * 4), ("more", [2.0, 1.5, 1.0, 1.0])):
        detail = {"t1-to-t2": gains} if gains else {}
        folder = helpers.save_model(tmp_path / name, pipeline, detail=detail)
        translator = Translator.load(folder, "cpu")
        made[name] = translator.translate_volume(head, Settings(mode="balanced")).voxels
        made[f"{name}, fidelity"] = translator.translate_volume(head, Settings()).voxels
    assert np.allclose(made["none"], made["ones"], atol=1e-2)
    assert not np.allclose(made["none"], made["more"], atol=1.0)
    assert np.array_equal(made["none, fidelity"], made["more, fidelity"])


def test_thick_slices_are_cut_as_they_were_acquired(translator: Translator) -> None:
    voxels, affine = helpers.head()
    thick = helpers.volume(voxels, affine @ np.diag([1, 1, 4, 1]))
    made = translator.translate_volume(thick, Settings())
    assert made.axes == ("axial",)
    assert not any("stretched" in warning for warning in made.warnings)


def test_the_sidecar_says_so_and_a_rerun_knows(translator: Translator, tmp_path: Path) -> None:
    head = helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())
    job = Job(head, out=tmp_path / "o.nii.gz")
    translator.translate_file(job, Settings())
    assert json.loads((tmp_path / "o.json").read_text())["SlicedAlong"] == list(EVERY)
    assert isinstance(run(translator, job, Settings()), Unchanged)
    other = run(translator, job, Settings(axes=("axial",)))
    assert not isinstance(other, Unchanged)


def test_steps_along_one_axis_leave_no_pattern_of_folded_pixels(tmp_path: Path) -> None:
    """What the stages of random weights draw has nothing of a period of two pixels."""
    pipeline = helpers.tiny_pipeline(network={"unshuffle": 2})
    translator = Translator.load(helpers.save_model(tmp_path / "m", pipeline), "cpu")
    prepared = translator.prepare(helpers.volume(*helpers.head()), Settings(mode="realistic"))
    [drawn] = translator.sample(prepared, Settings()).draws
    inside = np.s_[4:-4, 4:-4]
    for index in prepared.plan.passes[0].chosen:
        made = drawn[:, :, index][inside]
        for axis in (0, 1):
            alternating = np.resize([1.0, -1.0], made.shape[axis])
            pattern = np.tensordot(made, alternating, (axis, 0)) / len(alternating)
            assert np.abs(pattern).max() < 0.1 * np.abs(made - made.mean()).max() + 1e-4
