"""The noise stage behind one interface: D(x, level) estimates x0 from x = x0 + level * eps.

The sampler knows nothing else of the noise stage, so any denoiser fits: an adapter turns what a
network predicts into an estimate of x0.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from medtrans.diffusion.processes import NoisePredictor
from medtrans.diffusion.schedules import Schedule

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, C, H, W), level (B,): the standard deviation of its noise) -> estimate of x0."""


def ve_epsilon(predict: NoisePredictor, schedule: Schedule) -> Denoiser:
    """DRDD's own noise network, which predicts eps of x = x0 + beta_bar eps (Eq. 2)."""

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        eps = predict(x, schedule.noise_time(level))
        return x - level.to(x).view(-1, 1, 1, 1) * eps

    return denoise
