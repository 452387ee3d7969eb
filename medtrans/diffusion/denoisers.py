"""The noise stage behind one interface: D(x, level) estimates x0 from x = x0 + level * eps.

The sampler knows nothing else of the noise stage, so any denoiser fits: an adapter scales x to
what a network was trained on, tells it the time it was trained with, and turns what it predicts
into an estimate of x0. Every adapter gives the same answer when the network behind it is exact.
The paper has its own noise network alone (Eq. 7, 10); the other adapters go beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from medtrans.diffusion.predictions import Prediction, estimate_x0, per_image, preconditioned
from medtrans.diffusion.processes import NoisePredictor
from medtrans.diffusion.schedules import Schedule

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, H, W), level (B,): the standard deviation of its noise) -> estimate of x0."""
VpPrediction = Literal["epsilon", "v_prediction", "sample"]  # as MONAI's schedulers call them


def ve_denoiser(predict: NoisePredictor, schedule: Schedule, kind: Prediction = "eps") -> Denoiser:
    """Use DRDD's own noise network, trained on x = x0 + beta_bar eps (Eq. 2, 10).

    Parameters
    ----------
    predict : callable
        (x (B, C, H, W), time (B,)) -> answer (B, C, H, W).
    schedule : Schedule
        What it was trained on.
    kind : "eps", "x0" or "v"
        What it answers; eps is the paper's.
    """

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        return estimate_x0(kind, predict(x, schedule.noise_time(level)), x, level)

    return denoise


def vp_denoiser(
    predict: NoisePredictor, alphas_cumprod: Tensor, prediction: VpPrediction
) -> Denoiser:
    """Use a network of DDPM (Ho et al., arXiv 2006.11239).

    It was trained on z = sqrt(a) x0 + sqrt(1 - a) eps, a = alphas_cumprod[t] (its Eq. 4), and is
    told t. Then z = sqrt(a) x for the a at which sqrt(1 / a - 1) is the level.

    Parameters
    ----------
    predict : callable
        (z, t) -> prediction. A t between two of the schedule's steps is a fraction.
    alphas_cumprod : Tensor
        Shape (T,), falling.
    prediction : "epsilon", "v_prediction" or "sample"
        What the network gives: eps, sqrt(a) eps - sqrt(1 - a) x0 (Salimans and Ho, arXiv
        2202.00512), or x0.
    """
    levels = (1 / alphas_cumprod.double() - 1).sqrt().log()

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        time = _interpolate(level.double().log(), levels.to(level.device))
        signal = per_image((1 + level.double() ** 2).rsqrt(), x)  # sqrt(a)
        noise = per_image(level, x) * signal  # sqrt(1 - a)
        z = signal * x
        answer = predict(z, time.float())
        if prediction == "epsilon":
            return (z - noise * answer) / signal
        return answer if prediction == "sample" else signal * z - noise * answer

    return denoise


def edm_denoiser(predict: NoisePredictor, data_std: float) -> Denoiser:
    """Use a raw network F of EDM (Karras et al., arXiv 2206.00364, Eq. 7, Table 1).

    D = c_skip x + c_out F(c_in x, ln(level) / 4).

    Parameters
    ----------
    predict : callable
        F(c_in x (B, C, H, W), ln(level) / 4 (B,)) -> (B, C, H, W).
    data_std : float
        Standard deviation of the images that it was trained on, in [-1, 1].
    """

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        noise = per_image(level, x)
        answer = predict(x / (noise**2 + data_std**2).sqrt(), level.log() / 4)
        return preconditioned(answer, x, noise, data_std)

    return denoise


def flow_denoiser(predict: NoisePredictor, time_scale: float) -> Denoiser:
    """Use a network of rectified flow (Liu et al., arXiv 2209.03003, Eq. 1).

    It was trained on z = (1 - s) x0 + s eps and gives the velocity x0 - eps, as MONAI's
    RFlowScheduler has it. Then z = (1 - s) x with s = level / (1 + level).

    Parameters
    ----------
    predict : callable
        (z (B, C, H, W), time (B,)) -> velocity (B, C, H, W).
    time_scale : float
        It is told s * time_scale.
    """

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        share = level / (1 + level)
        s = per_image(share, x)
        z = (1 - s) * x
        return z + s * predict(z, share * time_scale)

    return denoise


def linear_alphas_cumprod(steps: int, first: float, last: float) -> Tensor:
    """Return the products of (1 - variance) of DDPM's linear schedule (arXiv 2006.11239).

    Parameters
    ----------
    steps : int
    first, last : float
        Variance added at the first and the last step.

    Returns
    -------
    Tensor
        Shape (steps,), float64, falling from below 1.
    """
    return torch.cumprod(1 - torch.linspace(first, last, steps, dtype=torch.float64), dim=0)


def scaled_linear_alphas_cumprod(steps: int, first: float, last: float) -> Tensor:
    """Return the same for variances whose square roots are linear.

    As latent diffusion has it (Rombach et al., arXiv 2112.10752); parameters and result as for
    `linear_alphas_cumprod`.
    """
    roots = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64)
    return torch.cumprod(1 - roots**2, dim=0)


def _interpolate(value: Tensor, rising: Tensor) -> Tensor:
    """Return the fractional index of `value` in a rising table, held at its ends."""
    above = torch.searchsorted(rising, value.contiguous()).clamp(1, len(rising) - 1)
    low, high = rising[above - 1], rising[above]
    return (above - 1 + (value - low) / (high - low)).clamp(0, len(rising) - 1)
