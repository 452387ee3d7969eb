"""The two forward processes and the two losses.

Shapes: images (B, C, H, W) in [-1, 1]; time steps (B,), integers; the networks are any callables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from medtrans.diffusion.predictions import Prediction, min_snr_weight, per_image, prediction_target
from medtrans.diffusion.schedules import Schedule

Loss = Literal["l1", "l2", "charbonnier"]
_CHARBONNIER = 1e-3  # below this difference the Charbonnier loss is a square, above it a distance
# eps_theta(x, time) and r_theta(x, source, time); contrast and task labels are bound by the caller
NoisePredictor = Callable[[Tensor, Tensor], Tensor]
ResidualPredictor = Callable[[Tensor, Tensor, Tensor], Tensor]


class Draw(NamedTuple):
    """What is drawn at random for each image of a training step (Alg. 1).

    Attributes
    ----------
    t : Tensor
        Shape (B,), integers from 1 to T: the time steps.
    eps : Tensor
        Shape (B, 1, H, W): N(0, I) noise.
    """

    t: Tensor
    eps: Tensor


class NoiseObjective(NamedTuple):
    """What the noise network is trained to predict, and how its error is measured.

    Attributes
    ----------
    loss : "l1", "l2" or "charbonnier"
    prediction : "eps", "x0" or "v"
        eps is the paper's (Eq. 10).
    snr_limit : float or None
        Weight the images by `min_snr_weight` with this limit; None weighs all alike, as the paper.
    """

    loss: Loss
    prediction: Prediction = "eps"
    snr_limit: float | None = None


def add_noise(x0: Tensor, eps: Tensor, beta_bar: Tensor) -> Tensor:
    """Noise diffusion (Eq. 2): x0 + beta_bar eps.

    Parameters
    ----------
    x0, eps : Tensor
        Shape (B, C, H, W).
    beta_bar : Tensor
        Shape (B,): the standard deviation of each image's noise.

    Returns
    -------
    Tensor
        Shape (B, C, H, W).
    """
    return x0 + per_image(beta_bar, x0) * eps


def add_residual(x0: Tensor, eps: Tensor, residual: Tensor, sigma: float, alpha: Tensor) -> Tensor:
    """Residual diffusion (Eq. 3, 4): x0 + sigma eps + alpha_bar r, which ends at y + sigma eps.

    Parameters
    ----------
    x0, eps, residual : Tensor
        Shape (B, C, H, W).
    sigma : float
        The standard deviation of the noise, the same at every step.
    alpha : Tensor
        Shape (B,): alpha_bar, the share of each image's residual, in [0, 1].

    Returns
    -------
    Tensor
        Shape (B, C, H, W).
    """
    return x0 + sigma * eps + per_image(alpha, x0) * residual


def noise_loss(
    predict: NoisePredictor, x0: Tensor, draw: Draw, schedule: Schedule, objective: NoiseObjective
) -> Tensor:
    """How far the noise network is from the noise (Eq. 10), or from what else it is to predict.

    Parameters
    ----------
    predict : callable
        eps_theta(x, time) -> answer (B, 1, H, W). It sees target images only.
    x0 : Tensor
        Shape (B, 1, H, W): target slices.
    draw : Draw
    schedule : Schedule
    objective : NoiseObjective

    Returns
    -------
    Tensor
        A scalar, float32.
    """
    level = schedule.beta_bar.to(x0)[draw.t]
    predicted = predict(add_noise(x0, draw.eps, level), schedule.noise_time(level))
    truth = prediction_target(objective.prediction, x0, draw.eps, level)
    limit = objective.snr_limit
    weight = None if limit is None else min_snr_weight(objective.prediction, level, limit)
    return distance(predicted, truth, objective.loss, weight)


def residual_loss(
    predict: ResidualPredictor,
    x0: Tensor,
    source: Tensor,
    draw: Draw,
    schedule: Schedule,
    loss: Loss,
) -> Tensor:
    """How far the residual network is from the residual, at fixed noise (Eq. 9).

    Parameters
    ----------
    predict : callable
        r_theta(x, source, time) -> residual (B, 1, H, W).
    x0 : Tensor
        Shape (B, 1, H, W): target slices.
    source : Tensor
        Shape (B, 2k + 1, H, W): the stack of source slices; its middle one is y.
    draw : Draw
    schedule : Schedule
    loss : "l1", "l2" or "charbonnier"

    Returns
    -------
    Tensor
        A scalar, float32.
    """
    residual = middle(source) - x0
    alpha = schedule.alpha_bar.to(x0)[draw.t]
    noisy = add_residual(x0, draw.eps, residual, schedule.sigma, alpha)
    return distance(predict(noisy, source, schedule.residual_time(draw.t)), residual, loss)


def draw_timesteps(
    count: int, schedule: Schedule, rng: Generator, terminal_share: float = 0.0
) -> Tensor:
    """Draw time steps uniformly from 1 … T (Alg. 1), some of them T.

    The first reverse step always starts at T, and in fidelity mode it is the only one, so the
    residual stage gains from seeing T more often than once in T draws.

    Parameters
    ----------
    count : int
    schedule : Schedule
    rng : Generator
    terminal_share : float
        Probability of T instead of the uniform draw; 0 is the paper's.

    Returns
    -------
    Tensor
        Shape (count,), integers, on the CPU.
    """
    uniform = torch.randint(1, schedule.last + 1, (count,), generator=rng)
    terminal = torch.rand(count, generator=rng) < terminal_share
    return torch.where(terminal, schedule.last, uniform)


def draw_low_timesteps(count: int, schedule: Schedule, rng: Generator, lowest: float) -> Tensor:
    """Draw time steps of the noise stage log-uniformly in beta_bar, from sigma / lowest to sigma.

    Texture is decided at low noise, of which a uniform t shows little: with the reference schedule
    6 of 100 draws are below a fifth of sigma. EDM (arXiv 2206.00364) draws its levels log-normally
    for the same reason.

    Parameters
    ----------
    count : int
    schedule : Schedule
    rng : Generator
    lowest : float
        sigma over the lowest level, above 1.

    Returns
    -------
    Tensor
        Shape (count,), integers from 1 to T, on the CPU.
    """
    share = torch.rand(count, generator=rng, dtype=torch.float64)
    return schedule.nearest_step(schedule.sigma * lowest**-share)


def middle(source: Tensor) -> Tensor:
    """Return y (Eq. 4), the middle slice of a (B, 2k + 1, H, W) stack, as (B, 1, H, W)."""
    centre = source.shape[1] // 2
    return source[:, centre : centre + 1]


def distance(predicted: Tensor, truth: Tensor, loss: Loss, weight: Tensor | None = None) -> Tensor:
    """Mean l1, squared or Charbonnier difference: the norm of Eq. 9 and 10.

    The paper prints l1 and says l2 in its Appendix B; Charbonnier is neither.

    Parameters
    ----------
    predicted, truth : Tensor
        Shape (B, C, H, W).
    loss : "l1", "l2" or "charbonnier"
    weight : Tensor, optional
        Shape (B,): multiplies each image's mean.

    Returns
    -------
    Tensor
        A scalar, float32.
    """
    difference = predicted.float() - truth.float()
    if loss == "l1":
        error = difference.abs()
    elif loss == "l2":
        error = difference.square()
    else:
        error = (difference.square() + _CHARBONNIER**2).sqrt() - _CHARBONNIER
    return error.mean() if weight is None else (weight * error.mean(dim=(1, 2, 3))).mean()
