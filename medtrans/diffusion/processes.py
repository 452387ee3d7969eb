"""The two forward processes and the two losses.

Shapes: images (B, C, H, W); time steps (B,), integers; the networks are any callables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor

from medtrans.diffusion.predictions import Prediction, min_snr_weight, per_image, prediction_target
from medtrans.diffusion.schedules import Schedule

Loss = Literal["l1", "l2", "charbonnier"]
_CHARBONNIER = 1e-3  # below this difference the Charbonnier loss is a square, above it a distance
# eps_theta(x, time) and r_theta(x, source, time); contrast and task labels are bound by the caller
NoisePredictor = Callable[[Tensor, Tensor], Tensor]
ResidualPredictor = Callable[[Tensor, Tensor, Tensor], Tensor]


def add_noise(x0: Tensor, eps: Tensor, beta_bar: Tensor) -> Tensor:
    """Noise diffusion (Eq. 2): x0 + beta_bar eps."""
    return x0 + per_image(beta_bar, x0) * eps


def add_residual(x0: Tensor, eps: Tensor, residual: Tensor, sigma: float, alpha: Tensor) -> Tensor:
    """Residual diffusion (Eq. 3, 4): x0 + sigma eps + alpha_bar r, which ends at y + sigma eps."""
    return x0 + sigma * eps + per_image(alpha, x0) * residual


def noise_loss(
    predict: NoisePredictor,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    schedule: Schedule,
    loss: Loss,
    kind: Prediction = "eps",
    snr_limit: float | None = None,
) -> Tensor:
    """Eq. 10: how far the noise network is from the noise. Sees target images only.

    `kind` asks for x0 or v instead of eps; `snr_limit` weights the images by `min_snr_weight`.
    """
    level = schedule.beta_bar.to(x0)[t]
    predicted = predict(add_noise(x0, eps, level), schedule.noise_time(level))
    weight = None if snr_limit is None else min_snr_weight(kind, level, snr_limit)
    return distance(predicted, prediction_target(kind, x0, eps, level), loss, weight)


def residual_loss(
    predict: ResidualPredictor,
    x0: Tensor,
    source: Tensor,
    eps: Tensor,
    t: Tensor,
    schedule: Schedule,
    loss: Loss,
) -> Tensor:
    """Eq. 9: how far the residual network is from the residual, inside the fixed-noise domain.

    `source` is the stack of 2k + 1 source slices; its middle one is y.
    """
    residual = middle(source) - x0
    alpha = schedule.alpha_bar.to(x0)[t]
    noisy = add_residual(x0, eps, residual, schedule.sigma, alpha)
    return distance(predict(noisy, source, schedule.residual_time(t)), residual, loss)


def draw_timesteps(
    count: int, schedule: Schedule, rng: Generator, terminal_share: float = 0.0
) -> Tensor:
    """Draw time steps uniformly from 1 … T; each is T with probability `terminal_share` instead.

    The first reverse step always starts at T, and in fidelity mode it is the only one, so the
    residual stage gains from seeing T more often than once in T draws.
    """
    uniform = torch.randint(1, schedule.last + 1, (count,), generator=rng)
    terminal = torch.rand(count, generator=rng) < terminal_share
    return torch.where(terminal, schedule.last, uniform)


def middle(source: Tensor) -> Tensor:
    """Return y, the middle slice of a (B, 2k + 1, H, W) stack, as (B, 1, H, W)."""
    centre = source.shape[1] // 2
    return source[:, centre : centre + 1]


def distance(predicted: Tensor, truth: Tensor, loss: Loss, weight: Tensor | None = None) -> Tensor:
    """Mean l1, squared or Charbonnier difference; `weight` (B,) multiplies each image's mean."""
    difference = predicted.float() - truth.float()
    if loss == "l1":
        each = difference.abs()
    elif loss == "l2":
        each = difference.square()
    else:
        each = (difference.square() + _CHARBONNIER**2).sqrt() - _CHARBONNIER
    return each.mean() if weight is None else (weight * each.mean(dim=(1, 2, 3))).mean()
