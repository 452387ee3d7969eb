"""DRDD, Decoupled Residual Denoising Diffusion, in plain torch.

Written from the equations of Lin et al., arXiv 2606.01048; their numbers stand beside the code.
Read in this order: `schedules`, `predictions`, `processes`, `denoisers`, `sampler`; `sde` is the
same in continuous time.

Symbols: x0 target image, y source image, both in [-1, 1]; r = y - x0 the residual;
eps ~ N(0, I); sigma the fixed noise of the residual stage.
"""

from medtrans.diffusion.denoisers import (
    Denoiser,
    edm_denoiser,
    flow_denoiser,
    linear_alphas_cumprod,
    scaled_linear_alphas_cumprod,
    ve_denoiser,
    vp_denoiser,
)
from medtrans.diffusion.noise_level import Criterion, noise_criterion
from medtrans.diffusion.predictions import (
    Prediction,
    estimate_x0,
    min_snr_weight,
    prediction_target,
)
from medtrans.diffusion.processes import (
    Draw,
    Loss,
    NoiseObjective,
    NoisePredictor,
    ResidualPredictor,
    add_noise,
    add_residual,
    distance,
    draw_low_timesteps,
    draw_timesteps,
    middle,
    noise_loss,
    residual_loss,
)
from medtrans.diffusion.randomness import SliceNoise, generator, slice_noise
from medtrans.diffusion.sampler import (
    NoiseStep,
    Stages,
    Steps,
    estimate_target,
    noise_step,
    remove_noise,
    remove_residual,
    translate,
)
from medtrans.diffusion.schedules import Schedule, linear_variance_schedule
from medtrans.diffusion.sde import (
    diffusion_variance,
    mean_reversion,
    reverse_noise_ode,
    reverse_noise_sde,
    reverse_residual,
)

__all__ = [
    "Criterion",
    "Denoiser",
    "Draw",
    "Loss",
    "NoiseObjective",
    "NoisePredictor",
    "NoiseStep",
    "Prediction",
    "ResidualPredictor",
    "Schedule",
    "SliceNoise",
    "Stages",
    "Steps",
    "add_noise",
    "add_residual",
    "diffusion_variance",
    "distance",
    "draw_low_timesteps",
    "draw_timesteps",
    "edm_denoiser",
    "estimate_target",
    "estimate_x0",
    "flow_denoiser",
    "generator",
    "linear_alphas_cumprod",
    "linear_variance_schedule",
    "mean_reversion",
    "middle",
    "min_snr_weight",
    "noise_criterion",
    "noise_loss",
    "noise_step",
    "prediction_target",
    "remove_noise",
    "remove_residual",
    "residual_loss",
    "reverse_noise_ode",
    "reverse_noise_sde",
    "reverse_residual",
    "scaled_linear_alphas_cumprod",
    "slice_noise",
    "translate",
    "ve_denoiser",
    "vp_denoiser",
]
