"""The decoupled equations in continuous time, against Eq. 2, Eq. 3 and Gaussian closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from medtrans.diffusion import (
    Schedule,
    Steps,
    diffusion_variance,
    linear_variance_schedule,
    mean_reversion,
    remove_noise,
    remove_residual,
    reverse_noise_ode,
    reverse_noise_sde,
    reverse_residual,
)

MEAN, SPREAD = 0.3, 0.5


@pytest.fixture
def schedule() -> Schedule:
    return linear_variance_schedule(1.0)


def posterior(x: Tensor, level: Tensor) -> Tensor:
    level = level.view(-1, 1, 1, 1).to(x)
    return (SPREAD**2 * x + level**2 * MEAN) / (SPREAD**2 + level**2)


def noisy(sigma: float, count: int = 40_000) -> Tensor:
    """Draw x0 + sigma eps of Gaussian images."""
    rng = torch.Generator().manual_seed(0)
    return MEAN + math.hypot(SPREAD, sigma) * torch.randn(1, 1, count, 1, generator=rng).double()


def test_the_residuals_equation_has_the_marginal_of_eq_3(schedule: Schedule) -> None:
    """Over a step dx = theta (mu - x) dt keeps exp(-integral of theta) of the distance to mu."""
    x0, y = -0.4, 0.7
    x, path = x0, [x0]
    for theta in mean_reversion(schedule).tolist():
        x = y + (x - y) * math.exp(-theta)
        path.append(x)
    expected = x0 + schedule.alpha_bar * (y - x0)
    torch.testing.assert_close(torch.tensor(path, dtype=torch.float64), expected)
    assert (mean_reversion(schedule) > 0).all()


def test_the_noises_equation_has_the_marginal_of_eq_2(schedule: Schedule) -> None:
    grown = diffusion_variance(schedule).cumsum(0)
    torch.testing.assert_close(grown, schedule.beta_bar[1:] ** 2)
    assert (diffusion_variance(schedule) > 0).all()


def test_the_sde_reaches_the_known_mean_and_variance(schedule: Schedule) -> None:
    x, rng = noisy(1.0), torch.Generator().manual_seed(1)
    found = reverse_noise_sde(
        x,
        posterior,
        schedule,
        300,
        lambda step: torch.randn(x.shape, generator=rng).double(),
    )
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(found.std()) == pytest.approx(SPREAD, rel=0.03)


@pytest.mark.parametrize(("order", "steps", "close"), [("euler", 400, 0.02), ("heun", 120, 0.005)])
def test_the_ode_reaches_the_known_variance(
    schedule: Schedule, order: str, steps: int, close: float
) -> None:
    """The flow of Gaussian images is linear: it scales x - MEAN by SPREAD / hypot(SPREAD, 1)."""
    x = noisy(1.0, 50)
    found = reverse_noise_ode(x, posterior, schedule, steps, order)
    expected = MEAN + (x - MEAN) * SPREAD / math.hypot(SPREAD, 1.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=close)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_eulers_method_is_the_sampler(schedule: Schedule, steps: int) -> None:
    x = noisy(1.0, 50)
    torch.testing.assert_close(
        reverse_noise_ode(x, posterior, schedule, steps),
        remove_noise(x, posterior, schedule, Steps(1, steps)),
    )

    def predict(x: Tensor, source: Tensor, time: Tensor) -> Tensor:
        return x.sin() + source + time.view(-1, 1, 1, 1) / 1000

    found = reverse_residual(x, x, predict, schedule, steps)
    torch.testing.assert_close(found, remove_residual(x, x, predict, schedule, steps))


def test_heuns_method_is_of_second_order(schedule: Schedule) -> None:
    """dx / d(alpha_bar) = x from 1 down to 0 is x / e."""

    def error(order: str, steps: int) -> float:
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        found = reverse_residual(x, x, lambda x, *_: x, schedule, steps, order)
        return abs(float(found) - math.exp(-1))

    assert error("euler", 40) / error("euler", 80) == pytest.approx(2, rel=0.1)
    assert error("heun", 40) < error("euler", 40) / 20


def test_the_last_step_of_the_sde_draws_no_noise(schedule: Schedule) -> None:
    asked: list[int] = []

    def fresh(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(1, 1, 2, 2)

    found = reverse_noise_sde(torch.ones(1, 1, 2, 2), lambda x, _: x * 0, schedule, 3, fresh)
    assert asked == [0, 1]
    torch.testing.assert_close(found, torch.zeros(1, 1, 2, 2), rtol=0, atol=1e-6)
