"""What a noise network may predict: all three say the same about x0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medtrans.diffusion import (
    Draw,
    NoiseObjective,
    add_noise,
    distance,
    estimate_x0,
    linear_variance_schedule,
    min_snr_weight,
    noise_loss,
    prediction_target,
)
from medtrans.diffusion.predictions import DATA_STD

KINDS = ("eps", "x0", "v")
LEVEL = torch.tensor([0.02, 0.3, 1.0])


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(3, 1, 5, 4, generator=rng), torch.randn(3, 1, 5, 4, generator=rng)


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_answer_gives_x0(kind: str, pair: tuple[Tensor, Tensor]) -> None:
    x0, eps = pair
    answer = prediction_target(kind, x0, eps, LEVEL)
    found = estimate_x0(kind, answer, add_noise(x0, eps, LEVEL), LEVEL)
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-5)


def test_v_has_unit_variance_at_every_level() -> None:
    rng = torch.Generator().manual_seed(1)
    x0 = DATA_STD * torch.randn(3, 1, 200, 200, generator=rng)
    v = prediction_target("v", x0, torch.randn(x0.shape, generator=rng), LEVEL)
    torch.testing.assert_close(v.std(dim=(1, 2, 3)), torch.ones(3), rtol=0, atol=0.02)


def test_min_snr_makes_every_level_count_as_its_capped_snr_on_x0(
    pair: tuple[Tensor, Tensor],
) -> None:
    """An error of x0 costs as much whatever the network is asked for."""
    x0, eps = pair
    x, wrong = add_noise(x0, eps, LEVEL), x0 + 0.1
    snr = (DATA_STD / LEVEL) ** 2
    for kind in KINDS:
        right = prediction_target(kind, x0, eps, LEVEL)
        answer = prediction_target(kind, wrong, (x - wrong) / LEVEL.view(-1, 1, 1, 1), LEVEL)
        cost = (answer - right).square().mean(dim=(1, 2, 3)) * min_snr_weight(kind, LEVEL, 5.0)
        torch.testing.assert_close(
            cost, (0.1 / DATA_STD) ** 2 * snr.clamp(max=5), rtol=1e-3, atol=1e-5
        )


def test_weights_scale_each_image() -> None:
    predicted, truth = torch.full((2, 1, 2, 2), 2.0), torch.zeros(2, 1, 2, 2)
    found = distance(predicted, truth, "l2", torch.tensor([1.0, 3.0]))
    assert float(found) == pytest.approx((1 * 4 + 3 * 4) / 2)


def test_charbonnier_lies_between_square_and_distance() -> None:
    truth = torch.zeros(1, 1, 1, 2)
    large, small = torch.full_like(truth, 0.5), torch.full_like(truth, 1e-5)
    assert float(distance(large, truth, "charbonnier")) == pytest.approx(0.5, abs=1e-3)
    assert float(distance(small, truth, "charbonnier")) == pytest.approx(5e-8, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_loss_is_zero_for_the_right_answer(kind: str, pair: tuple[Tensor, Tensor]) -> None:
    x0, eps = pair
    schedule, t = linear_variance_schedule(0.5), torch.tensor([10, 400, 1000])
    level = schedule.beta_bar.float()[t]
    right = prediction_target(kind, x0, eps, level)
    draw, plain = Draw(t, eps), NoiseObjective("l2", kind)
    weighted = plain._replace(snr_limit=5.0)
    assert float(noise_loss(lambda *_: right, x0, draw, schedule, weighted)) < 1e-10
    assert float(noise_loss(lambda *_: right + 1, x0, draw, schedule, plain)) > 0.99
