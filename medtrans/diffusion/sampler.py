"""The reverse processes: take the residual away, then the noise (Alg. 2)."""

from __future__ import annotations

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

    With `noise` = 0 the known sigma * eps that was added at the start is subtracted instead:
    fidelity mode, one network call when `residual` is 1.
    """

    residual: int
    noise: int
    eta: float = 0.0


FreshNoise = Callable[[int], Tensor]
"""step number -> independent N(0, 1) noise of the images' shape; asked for only when eta > 0."""


def translate(
    predict: ResidualPredictor,
    denoise: Denoiser | None,
    source: Tensor,
    eps: Tensor,
    schedule: Schedule,
    steps: Steps,
    fresh: FreshNoise | None = None,
) -> Tensor:
    """Translate source slices into target slices (Alg. 2).

    Parameters
    ----------
    predict : callable
        r_theta(x, source, time) -> residual (B, 1, H, W).
    denoise : Denoiser or None
        The noise stage; may be None when `steps.noise` is 0.
    source : Tensor
        Shape (B, 2k + 1, H, W): each slice with its neighbours, in [-1, 1].
    eps : Tensor
        Shape (B, 1, H, W): the noise of the start y + sigma * eps.
    schedule : Schedule
    steps : Steps
    fresh : callable, optional
        Needed when eta > 0 and more than one noise step is taken.

    Returns
    -------
    Tensor
        Shape (B, 1, H, W): the estimate of x0, not clipped.
    """
    known = schedule.sigma * eps
    x = remove_residual(middle(source) + known, source, predict, schedule, steps.residual)
    if steps.noise == 0:
        return x - known
    if denoise is None:
        raise ValueError("noise steps need a noise stage")
    return remove_noise(x, denoise, schedule, steps.noise, steps.eta, fresh)


def remove_residual(
    x: Tensor, source: Tensor, predict: ResidualPredictor, schedule: Schedule, steps: int
) -> Tensor:
    """Deterministic reverse of the residual diffusion (Eq. 6), from T to 0 in `steps` steps."""
    grid = schedule.grid(steps)
    for now, then in pairwise(grid):
        t = torch.full((x.shape[0],), now, device=x.device)
        share = float(schedule.alpha_bar[now] - schedule.alpha_bar[then])
        x = x - share * predict(x, source, schedule.residual_time(t))
    return x


def remove_noise(
    x: Tensor,
    denoise: Denoiser,
    schedule: Schedule,
    steps: int,
    eta: float = 0.0,
    fresh: FreshNoise | None = None,
) -> Tensor:
    """Reverse of the noise diffusion (Eq. 8), from sigma to 0 in `steps` steps.

    x_{t-1} = x_t - (b_t - sqrt(b_{t-1}^2 - s^2)) eps_theta + s eps', with b = beta_bar and
    s^2 = eta * beta_t^2 * b_{t-1}^2 / b_t^2, where beta_t^2 = b_t^2 - b_{t-1}^2.
    """
    grid = schedule.grid(steps)
    for number, (now, then) in enumerate(pairwise(grid)):
        b_now, b_then = float(schedule.beta_bar[now]), float(schedule.beta_bar[then])
        level = torch.full((x.shape[0],), b_now, device=x.device)
        eps = (x - denoise(x, level)) / b_now
        variance = eta * (b_now**2 - b_then**2) * b_then**2 / b_now**2
        x = x - (b_now - (b_then**2 - variance) ** 0.5) * eps
        if variance > 0:
            if fresh is None:
                raise ValueError("eta > 0 needs fresh noise")
            x = x + variance**0.5 * fresh(number)
    return x
