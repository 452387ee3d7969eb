"""Networks as what `medtrans.diffusion` calls: predictors and denoisers, bound to their labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from medtrans.config.denoiser import DdpmConfig, EdmConfig, FlowConfig
from medtrans.config.schema import Pipeline
from medtrans.diffusion import (
    Denoiser,
    NoisePredictor,
    ResidualPredictor,
    Schedule,
    edm_denoiser,
    flow_denoiser,
    linear_alphas_cumprod,
    linear_variance_schedule,
    scaled_linear_alphas_cumprod,
    ve_denoiser,
    vp_denoiser,
)

ErrorPredictor = Callable[[Tensor, Tensor], Tensor]
"""(made (B, 1, H, W), source (B, 2k + 1, H, W)) -> expected absolute error (B, 1, H, W)."""

_LAST_TIME = 1000.0  # what the residual network is told at t = T
_LOG_ERRORS = (math.log(1e-3), math.log(2.0))  # the range of an image is 2


def build_schedule(pipeline: Pipeline) -> Schedule:
    """Build the schedule of a recipe: how much noise and residual there is at each step."""
    config = pipeline.diffusion
    return linear_variance_schedule(
        config.level, config.steps, config.first_variance, config.last_variance
    )


def noise_predictor(
    network: nn.Module, label: Tensor | None = None, source: Tensor | None = None
) -> NoisePredictor:
    """Bind the contrast label: what `medtrans.diffusion` calls as predict(x, time).

    Parameters
    ----------
    network : Module
        As `noise_network` builds it.
    label : Tensor, optional
        Shape (B,): each image's target contrast; a network of a single contrast takes none.
    source : Tensor, optional
        Shape (B, 2k + 1, H, W), for a network that sees the source; zeros say that there is none.
    """
    if source is None:
        return lambda x, time: network(x, time, label)
    return lambda x, time: network(torch.cat([x, source], dim=1), time, label)


def denoiser(
    network: nn.Module,
    pipeline: Pipeline,
    schedule: Schedule,
    contrast: Tensor,
    source: Tensor | None,
) -> Denoiser:
    """Put the noise network, ours or one from elsewhere, behind the one interface.

    Parameters
    ----------
    network : Module
        As `noise_network` builds it.
    pipeline : Pipeline
    schedule : Schedule
    contrast : Tensor
        Shape (B,): the label of each image's target contrast.
    source : Tensor or None
        Shape (B, 2k + 1, H, W); a network that does not see the source is not shown it.
    """
    if pipeline.denoiser is not None:
        return _foreign_denoiser(noise_predictor(network), pipeline.denoiser.training)
    shown = source if pipeline.noise.sees_source else None
    predict = noise_predictor(network, contrast, shown)
    return ve_denoiser(predict, schedule, pipeline.noise.prediction)


def error_predictor(network: nn.Module, label: Tensor | None = None) -> ErrorPredictor:
    """Bind the task label: what is called as predict(made, source).

    Parameters
    ----------
    network : Module
        As `error_network` builds it.
    label : Tensor, optional
        Shape (B,): each image's task; a network of a single task takes none.
    """

    def predict(made: Tensor, source: Tensor) -> Tensor:
        time = made.new_full((len(made),), _LAST_TIME)
        logarithm: Tensor = network(torch.cat([made, source], dim=1), time, label)
        return logarithm.float().clamp(*_LOG_ERRORS).exp()

    return predict


def residual_predictor(network: nn.Module, label: Tensor | None = None) -> ResidualPredictor:
    """Bind the task label: what `medtrans.diffusion` calls as predict(x, source, time).

    Parameters
    ----------
    network : Module
        As `residual_network` builds it.
    label : Tensor, optional
        Shape (B,): each image's task; a network of a single task takes none.
    """
    return lambda x, source, time: network(torch.cat([x, source], dim=1), time, label)


def _foreign_denoiser(
    predict: NoisePredictor, trained: DdpmConfig | EdmConfig | FlowConfig
) -> Denoiser:
    """Scale input, time and output as the network's own training did."""
    if isinstance(trained, EdmConfig):
        return edm_denoiser(predict, trained.data_std)
    if isinstance(trained, FlowConfig):
        return flow_denoiser(predict, trained.steps)
    linear = trained.schedule == "linear_beta"
    alphas = linear_alphas_cumprod if linear else scaled_linear_alphas_cumprod
    cumprod = alphas(trained.steps, trained.first_variance, trained.last_variance)
    return vp_denoiser(predict, cumprod, trained.prediction)
