"""The reverse processes: take the residual away, then the noise (Alg. 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from medtrans.diffusion.denoisers import Denoiser
from medtrans.diffusion.processes import ResidualPredictor, middle
from medtrans.diffusion.schedules import Schedule


class Steps(NamedTuple):
    """How many reverse steps each stage takes, and how stochastic the noise stage is.

    Attributes
    ----------
    residual : int
        From 1 to T.
    noise : int
        From 0 to T. With 0 the known sigma * eps that was added at the start is subtracted
        instead: fidelity mode, one network call when `residual` is 1.
    eta : float
        Of Eq. 8, in [0, 1]: 0 deterministic, 1 ancestral.
    level_span : float
        The first noise level over the last one above 0, between which they fall by one ratio a
        step; 0: evenly.
    order : 1 or 2
        Of the method in the logarithm of the noise level. 1 is Eq. 8. 2 goes on as the estimate of
        x0 has changed since the step before, without another network call; where eta is 0.
    """

    residual: int
    noise: int
    eta: float = 0.0
    level_span: float = 0.0
    order: int = 1


class NoiseStep(NamedTuple):
    """One step of the reverse of the noise diffusion.

    Attributes
    ----------
    now, then : float
        The noise levels that it goes from and to, beta_bar.
    eta : float
        In [0, 1].
    number : int
        Which of the steps it is, from 0.
    slope : float
        How much of the estimate's change since the step before is added to it: 0 in a step of first
        order.
    """

    now: float
    then: float
    eta: float
    number: int
    slope: float

    @classmethod
    def all(cls, schedule: Schedule, steps: Steps) -> list[NoiseStep]:
        """List the steps of a reverse from sigma to 0."""
        levels = schedule.beta_bar[schedule.noise_grid(steps.noise, steps.level_span)].tolist()
        second = steps.order == 2 and steps.eta == 0
        return [
            cls(*pair, steps.eta, number, _slope(levels, number) if second else 0.0)
            for number, pair in enumerate(pairwise(levels))
        ]


def _slope(levels: list[float], number: int) -> float:
    """Half of a step's length over that of the step before (DPM-Solver++ 2M, arXiv 2211.01095)."""
    if number == 0 or levels[number + 1] == 0:
        return 0.0
    before, now, then = levels[number - 1 : number + 2]
    return 0.5 * math.log(now / then) / math.log(before / now)


class Stages(NamedTuple):
    """The two stages of a model, with the schedule that they were trained on.

    Attributes
    ----------
    residual : callable
        r_theta(x, source, time) -> residual (B, 1, H, W).
    denoise : Denoiser or None
        The noise stage; None where it is not used.
    schedule : Schedule
    """

    residual: ResidualPredictor
    denoise: Denoiser | None
    schedule: Schedule


FreshNoise = Callable[[int], Tensor]
"""step number -> independent N(0, 1) noise of the images' shape; asked for only when eta > 0."""


def translate(
    stages: Stages, source: Tensor, eps: Tensor, steps: Steps, fresh: FreshNoise | None = None
) -> Tensor:
    """Translate source slices into target slices (Alg. 2).

    Parameters
    ----------
    stages : Stages
    source : Tensor
        Shape (B, 2k + 1, H, W): each slice with its neighbours, in [-1, 1].
    eps : Tensor
        Shape (B, 1, H, W): the noise of the start y + sigma * eps.
    steps : Steps
    fresh : callable, optional
        Needed when eta > 0 and more than one noise step is taken.

    Returns
    -------
    Tensor
        Shape (B, 1, H, W): the estimate of x0, not clipped.

    Raises
    ------
    ValueError
        When noise steps are to be taken without a noise stage, or eta > 0 without fresh noise.
    """
    estimate = estimate_target(stages, source, eps, steps.residual)
    if steps.noise == 0:
        return estimate
    if stages.denoise is None:
        raise ValueError("noise steps need a noise stage")
    x = estimate + stages.schedule.sigma * eps
    return remove_noise(x, stages.denoise, stages.schedule, steps, fresh)


def estimate_target(stages: Stages, source: Tensor, eps: Tensor, steps: int) -> Tensor:
    """Take the residual away, and the noise that was added for it: what fidelity mode answers.

    Parameters
    ----------
    stages : Stages
    source : Tensor
        Shape (B, 2k + 1, H, W).
    eps : Tensor
        Shape (B, 1, H, W).
    steps : int
        From 1 to T: network calls.

    Returns
    -------
    Tensor
        Shape (B, 1, H, W): the estimate of x0, not clipped.
    """
    known = stages.schedule.sigma * eps
    y = middle(source) + known
    return remove_residual(y, source, stages.residual, stages.schedule, steps) - known


def remove_residual(
    x: Tensor, source: Tensor, predict: ResidualPredictor, schedule: Schedule, steps: int
) -> Tensor:
    """Deterministic reverse of the residual diffusion (Eq. 6), from T to 0.

    Parameters
    ----------
    x : Tensor
        Shape (B, 1, H, W): y + sigma eps.
    source : Tensor
        Shape (B, 2k + 1, H, W).
    predict : callable
        r_theta(x, source, time) -> residual (B, 1, H, W).
    schedule : Schedule
    steps : int
        From 1 to T: network calls.

    Returns
    -------
    Tensor
        Shape (B, 1, H, W): the estimate of x0 + sigma eps.
    """
    for now, then in pairwise(schedule.grid(steps)):
        t = torch.full((x.shape[0],), now, device=x.device)
        share = float(schedule.alpha_bar[now] - schedule.alpha_bar[then])
        x = x - share * predict(x, source, schedule.residual_time(t))
    return x


def remove_noise(
    x: Tensor,
    denoise: Denoiser,
    schedule: Schedule,
    steps: Steps,
    fresh: FreshNoise | None = None,
) -> Tensor:
    """Reverse of the noise diffusion (Eq. 8), from sigma to 0.

    x_{t-1} = x_t - (b_t - sqrt(b_{t-1}^2 - s^2)) eps_theta + s eps', with b = beta_bar and
    s^2 = eta * beta_t^2 * b_{t-1}^2 / b_t^2, where beta_t^2 = b_t^2 - b_{t-1}^2. In steps of second
    order eps_theta is that of an estimate of x0 half a step ahead (`Steps.order`).

    Parameters
    ----------
    x : Tensor
        Shape (B, C, H, W): x0 + sigma eps.
    denoise : Denoiser
    schedule : Schedule
    steps : Steps
        From 1 to T noise steps, each a network call; those of the residual are not looked at.
    fresh : callable, optional
        Needed when eta > 0 and there is more than one step; the last step adds no noise.

    Returns
    -------
    Tensor
        Shape (B, C, H, W): the estimate of x0.

    Raises
    ------
    ValueError
        When fresh noise is needed and there is none.
    """
    before = x
    for step in NoiseStep.all(schedule, steps):
        clean = denoise(x, torch.full((len(x),), step.now, device=x.device))
        x = noise_step(x, clean, before, step, fresh)
        before = clean
    return x


def noise_step(
    x: Tensor, clean: Tensor, before: Tensor, step: NoiseStep, fresh: FreshNoise | None = None
) -> Tensor:
    """Take one step of `remove_noise`.

    Parameters
    ----------
    x : Tensor
        Shape (B, C, H, W), with the noise that the step starts from.
    clean, before : Tensor
        Shape (B, C, H, W): the denoiser's answer to x, and what it answered in the step before,
        which the first step does not look at.
    step : NoiseStep
    fresh : callable, optional
        As for `remove_noise`.

    Returns
    -------
    Tensor
        Shape (B, C, H, W).

    Raises
    ------
    ValueError
        When fresh noise is needed and there is none.
    """
    b_now, b_then = step.now, step.then
    guess = clean + step.slope * (clean - before) if step.slope else clean
    eps = (x - guess) / b_now
    variance = step.eta * (b_now**2 - b_then**2) * b_then**2 / b_now**2
    x = x - (b_now - (b_then**2 - variance) ** 0.5) * eps
    if variance > 0:
        if fresh is None:
            raise ValueError("eta > 0 needs fresh noise")
        x = x + variance**0.5 * fresh(step.number)
    return x
