"""DRDD in continuous time: two stochastic differential equations that never mix.

This is ours, not the paper's. Its Appendix A.4 decouples the mean-reverting SDE of IR-SDE: the
residual's equation (Eq. 42) keeps a noise term, and both are reversed by IR-SDE's posterior mean
(Eq. 43, 44), which for the noise is that of a process around x0 and not of Eq. 41. What is built
here follows from another requirement, that the marginals be exactly Eq. 2 and Eq. 3, so that it
samples with the networks that were trained for those: the residual's equation then has no noise.

Noise, variance exploding:     dx = g_t dw,                 beta_bar_t^2 = integral of g^2.
Residual, mean reverting:      dx = theta_t (mu - x) dt,    mu = y + sigma eps,
                               alpha_bar_t = 1 - exp(-integral of theta).

The residual's equation has no noise of its own, so the solution from x0 + sigma eps is x0 + sigma
eps + alpha_bar_t (y - x0), Eq. 3. An exponential never ends, so alpha_bar = 1 is reached at
theta = infinity only; with mu - x = (1 - alpha_bar) r the drift is d(alpha_bar)/dt r, which stays
finite, and in this form it is integrated.

In reverse (Anderson, 1982), with the score of the noisy target -eps_theta / beta_bar:
SDE:                   dx = -g^2 score dt + g dw, time running down;
probability-flow ODE:  dx = -g^2 / 2 score dt.
As functions of beta_bar both are free of the schedule: the ODE is dx / d(beta_bar) = eps_theta.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from medtrans.diffusion.denoisers import Denoiser
from medtrans.diffusion.processes import ResidualPredictor
from medtrans.diffusion.sampler import FreshNoise
from medtrans.diffusion.schedules import Schedule

Order = Literal["euler", "heun"]


def mean_reversion(schedule: Schedule) -> Tensor:
    """Integral of theta over each time step: -ln of what is left of the residual's share.

    Parameters
    ----------
    schedule : Schedule

    Returns
    -------
    Tensor
        Shape (T,), float64; the last is infinite, since alpha_bar_T = 1.
    """
    left = 1 - schedule.alpha_bar
    return -(left[1:] / left[:-1]).log()


def diffusion_variance(schedule: Schedule) -> Tensor:
    """Integral of g^2 (Eq. 41) over each time step.

    Parameters
    ----------
    schedule : Schedule

    Returns
    -------
    Tensor
        Shape (T,), float64; they add up to sigma^2.
    """
    return (schedule.beta_bar**2).diff()


def reverse_residual(
    x: Tensor,
    source: Tensor,
    predict: ResidualPredictor,
    schedule: Schedule,
    steps: int,
    order: Order = "euler",
) -> Tensor:
    """Integrate the residual's reverse to x0 + sigma eps.

    It has no noise, so that it is an ODE, dx / d(alpha_bar) = r_theta. Euler's method is Eq. 6.

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
        From 1 to T.
    order : "euler" or "heun"
        Heun's method asks the network twice a step, but for the last.

    Returns
    -------
    Tensor
        Shape (B, 1, H, W): the estimate of x0 + sigma eps.
    """

    def slope(x: Tensor, t: int) -> Tensor:
        time = torch.full((x.shape[0],), t, device=x.device)
        return predict(x, source, schedule.residual_time(time))

    for now, then in pairwise(schedule.grid(steps)):
        share = float(schedule.alpha_bar[then] - schedule.alpha_bar[now])
        first = slope(x, now)
        ahead = x + share * first
        again = order == "heun" and then > 0
        x = x + share / 2 * (first + slope(ahead, then)) if again else ahead
    return x


def reverse_noise_ode(
    x: Tensor, denoise: Denoiser, schedule: Schedule, steps: int, order: Order = "euler"
) -> Tensor:
    """Integrate the probability-flow ODE of the noise (Eq. 41 in reverse) from sigma to 0.

    Euler's method is Eq. 8 with eta = 0; Heun's is EDM's (arXiv 2206.00364, Alg. 1), whose last
    step is Euler's.

    Parameters
    ----------
    x : Tensor
        Shape (B, C, H, W): x0 + sigma eps.
    denoise : Denoiser
    schedule : Schedule
    steps : int
        From 1 to T.
    order : "euler" or "heun"
        Heun's method asks the network twice a step, but for the last.

    Returns
    -------
    Tensor
        Shape (B, C, H, W): the estimate of x0.
    """
    for now, then in pairwise(schedule.beta_bar[schedule.noise_grid(steps)].tolist()):
        first = _eps(x, denoise, now)
        ahead = x + (then - now) * first
        again = order == "heun" and then > 0
        x = x + (then - now) / 2 * (first + _eps(ahead, denoise, then)) if again else ahead
    return x


def reverse_noise_sde(
    x: Tensor, denoise: Denoiser, schedule: Schedule, steps: int, fresh: FreshNoise
) -> Tensor:
    """Integrate the reverse-time SDE of the noise (Eq. 41) by Euler and Maruyama's method.

    Over a step the integral of g^2 is v = b_t^2 - b_{t-1}^2: x - v / b_t eps_theta + sqrt(v) eps'.
    The last step adds no noise: it goes to the estimate of x0.

    Parameters
    ----------
    x : Tensor
        Shape (B, C, H, W): x0 + sigma eps.
    denoise : Denoiser
    schedule : Schedule
    steps : int
        It needs tens of them; Eq. 8 with eta = 1 is exact over a step where this is of first order.
    fresh : callable
        Step number -> N(0, 1) noise (B, C, H, W).

    Returns
    -------
    Tensor
        Shape (B, C, H, W): the estimate of x0.
    """
    levels = schedule.beta_bar[schedule.noise_grid(steps)].tolist()
    for number, (now, then) in enumerate(pairwise(levels)):
        variance = now**2 - then**2
        x = x - variance / now * _eps(x, denoise, now)
        if then > 0:
            x = x + variance**0.5 * fresh(number)
    return x


def _eps(x: Tensor, denoise: Denoiser, level: float) -> Tensor:
    return (x - denoise(x, torch.full((x.shape[0],), level, device=x.device))) / level
