"""Every adapter gives the same answer when the network behind it is exact."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler
from torch import Tensor

from medtrans.diffusion import (
    Denoiser,
    edm_denoiser,
    flow_denoiser,
    linear_alphas_cumprod,
    linear_variance_schedule,
    scaled_linear_alphas_cumprod,
    ve_denoiser,
    vp_denoiser,
)

MEAN, SPREAD = 0.3, 0.5  # of the Gaussian images whose posterior is known
ALPHAS = linear_alphas_cumprod(1000, 1e-4, 0.02)
LEVELS = torch.tensor([0.02, 0.1, 0.4, 1.0, 5.0])


def posterior(x: Tensor, level: Tensor) -> Tensor:
    """E[x0 | x0 + level eps] of images that are N(MEAN, SPREAD^2) in every pixel."""
    level = level.view(-1, 1, 1, 1)
    return (SPREAD**2 * x + level**2 * MEAN) / (SPREAD**2 + level**2)


def vp_network(prediction: str):
    """What a network trained by DDPM to the end would give, from its own input and time."""

    def predict(z: Tensor, time: Tensor) -> Tensor:
        below = time.double().floor().long().clamp(0, len(ALPHAS) - 2)
        log_level = (1 / ALPHAS - 1).sqrt().log()
        share = time.double() - below
        level = (log_level[below] * (1 - share) + log_level[below + 1] * share).exp()
        signal = (1 + level**2).rsqrt().view(-1, 1, 1, 1)
        noise = (1 - signal**2).sqrt()
        x0 = posterior(z / signal, level)
        eps = (z - signal * x0) / noise
        return {"epsilon": eps, "sample": x0, "v_prediction": signal * eps - noise * x0}[prediction]

    return predict


def edm_network(z: Tensor, time: Tensor) -> Tensor:
    level = (4 * time).exp()
    sigma = level.view(-1, 1, 1, 1)
    total = sigma**2 + 0.4**2
    x = z * total.sqrt()
    return (posterior(x, level) - 0.4**2 / total * x) / (sigma * 0.4 / total.sqrt())


def flow_network(z: Tensor, time: Tensor) -> Tensor:
    s = (time / 1000).view(-1, 1, 1, 1)
    x0 = posterior(z / (1 - s), (s / (1 - s)).flatten())
    return x0 - (z - (1 - s) * x0) / s


def ve_network(x: Tensor, time: Tensor) -> Tensor:
    level = time / 1000 * 5.0
    return (x - posterior(x, level)) / level.view(-1, 1, 1, 1)


ADAPTERS: dict[str, Denoiser] = {
    "ve": ve_denoiser(ve_network, linear_variance_schedule(5.0)),
    "vp epsilon": vp_denoiser(vp_network("epsilon"), ALPHAS, "epsilon"),
    "vp v": vp_denoiser(vp_network("v_prediction"), ALPHAS, "v_prediction"),
    "vp sample": vp_denoiser(vp_network("sample"), ALPHAS, "sample"),
    "edm": edm_denoiser(edm_network, 0.4),
    "flow": flow_denoiser(flow_network, 1000),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_exact_network_gives_the_posterior_mean(name: str) -> None:
    x0 = MEAN + SPREAD * torch.randn(5, 1, 6, 4, generator=torch.Generator().manual_seed(0))
    x = x0 + LEVELS.view(-1, 1, 1, 1) * torch.randn(x0.shape, generator=torch.Generator())
    found = ADAPTERS[name](x.double(), LEVELS.double())
    torch.testing.assert_close(found, posterior(x, LEVELS).double(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", ["linear_beta", "scaled_linear_beta"])
def test_ddpm_is_monais(prediction: str, schedule: str) -> None:
    """The input, the time and the target are those MONAI's scheduler trains a network with."""
    scheduler = DDPMScheduler(1000, schedule, prediction_type=prediction)
    build = linear_alphas_cumprod if schedule == "linear_beta" else scaled_linear_alphas_cumprod
    alphas = build(1000, 1e-4, 0.02)
    rng = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(3, 1, 4, 4, generator=rng) for _ in range(2))
    t = torch.tensor([10, 400, 950])
    z = scheduler.add_noise(x0, eps, t)
    truth = {"epsilon": eps, "sample": x0, "v_prediction": scheduler.get_velocity(x0, eps, t)}
    seen: list[Tensor] = []

    def predict(given: Tensor, time: Tensor) -> Tensor:
        torch.testing.assert_close(time, t.float(), rtol=0, atol=2e-2)
        seen.append(given)
        return truth[prediction]

    level = (1 / alphas[t] - 1).sqrt().float()
    found = vp_denoiser(predict, alphas, prediction)(x0 + level.view(-1, 1, 1, 1) * eps, level)
    torch.testing.assert_close(seen[0], z, rtol=0, atol=1e-4)
    torch.testing.assert_close(found, x0, rtol=0, atol=2e-3)


def test_flow_is_monais() -> None:
    scheduler = RFlowScheduler(1000)
    rng = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(3, 1, 4, 4, generator=rng) for _ in range(2))
    t = torch.tensor([10, 400, 900])

    def predict(given: Tensor, time: Tensor) -> Tensor:
        torch.testing.assert_close(time, t.float())
        torch.testing.assert_close(given, scheduler.add_noise(x0, eps, t))
        return x0 - eps  # MONAI's loss compares with inputs - noise

    level = t / (1000 - t)
    found = flow_denoiser(predict, 1000)(x0 + level.view(-1, 1, 1, 1) * eps, level)
    torch.testing.assert_close(found, x0)


@pytest.mark.parametrize("level", [1e-4, 1e4])
def test_levels_beyond_the_schedule_get_its_ends(level: float) -> None:
    times: list[float] = []

    def predict(z: Tensor, time: Tensor) -> Tensor:
        times.append(float(time))
        return z

    vp_denoiser(predict, ALPHAS, "sample")(torch.zeros(1, 1, 2, 2), torch.tensor([level]))
    assert times == [0.0 if level < 1 else 999.0]
