from __future__ import annotations

import pytest
import torch

from medtrans.config.schema import Pipeline
from medtrans.networks.binding import build_schedule, noise_predictor, residual_predictor
from medtrans.networks.unet import noise_network, residual_network
from tests import helpers

TWO_TASKS = {"tasks": ["t1-to-t2", "t1-to-flair", "flair-to-t2"]}


def test_schedule_is_the_recipes() -> None:
    schedule = build_schedule(helpers.tiny_pipeline(diffusion={"sigma": 0.4, "steps": 50}))
    assert (schedule.sigma, schedule.last) == (0.4, 50)


@pytest.mark.parametrize("context", [0, 1, 3])
@pytest.mark.parametrize("unshuffle", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (8, 20)])
def test_one_slice_comes_out(context: int, unshuffle: int, size: tuple[int, int]) -> None:
    recipe = helpers.tiny_pipeline(
        slices={"axis": "axial", "context": context}, network={"unshuffle": unshuffle}
    )
    x, source = torch.zeros(3, 1, *size), torch.zeros(3, 2 * context + 1, *size)
    time = torch.tensor([1.0, 500.0, 1000.0])
    assert residual_predictor(residual_network(recipe, 0))(x, source, time).shape == x.shape
    assert noise_predictor(noise_network(recipe, 0))(x, time).shape == x.shape


def test_initial_weights_depend_on_the_seed_alone(pipeline: Pipeline) -> None:
    before = torch.get_rng_state()
    one, same, other = (residual_network(pipeline, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_initial_answer_is_zero(pipeline: Pipeline) -> None:
    """So the first translation of an untrained model is its source."""
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    answer = noise_network(pipeline, 0)(x, torch.tensor([10.0, 900.0]))
    assert (answer == 0).all()


def test_answer_depends_on_image_time_and_source(pipeline: Pipeline) -> None:
    network = helpers.randomise(residual_network(pipeline, 0), 0).eval()
    predict = residual_predictor(network)
    rng = torch.Generator().manual_seed(1)
    x, source = torch.randn(1, 1, 8, 8, generator=rng), torch.randn(1, 3, 8, 8, generator=rng)
    base = predict(x, source, torch.tensor([500.0]))
    changed = source.clone()
    changed[:, 2] += 1
    assert not torch.allclose(base, predict(x, source, torch.tensor([900.0])))
    assert not torch.allclose(base, predict(x + 1, source, torch.tensor([500.0])))
    assert not torch.allclose(base, predict(x, changed, torch.tensor([500.0])))


def test_one_image_does_not_see_another_of_its_batch(pipeline: Pipeline) -> None:
    network = helpers.randomise(noise_network(pipeline, 0), 0).eval()
    x = torch.randn(4, 1, 8, 12, generator=torch.Generator().manual_seed(2))
    time = torch.tensor([1.0, 100.0, 500.0, 1000.0])
    together = network(x, time)
    alone = torch.cat([network(x[i : i + 1], time[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)


def test_labels_tell_tasks_and_contrasts_apart() -> None:
    recipe = helpers.tiny_pipeline("base", **TWO_TASKS)
    residual, noise = residual_network(recipe, 0), noise_network(recipe, 0)
    assert (residual.classes, noise.classes) == (3, 2)
    helpers.randomise(residual, 0, 0.3), helpers.randomise(noise, 0, 0.3)
    x, source, time = torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8), torch.tensor([500.0])
    answers = [residual_predictor(residual, torch.tensor([i]))(x, source, time) for i in range(3)]
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])
    answers = [noise_predictor(noise, torch.tensor([i]))(x, time) for i in range(2)]
    assert not torch.allclose(answers[0], answers[1])


def test_one_task_takes_no_label(pipeline: Pipeline) -> None:
    network = helpers.randomise(noise_network(pipeline, 0), 0)
    x, time = torch.zeros(2, 1, 8, 8), torch.tensor([5.0, 6.0])
    label = torch.zeros(2, dtype=torch.long)
    assert torch.equal(network(x, time), network(x, time, label))
