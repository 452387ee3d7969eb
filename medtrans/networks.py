"""What a recipe builds: the schedule, and the two networks around MONAI's DiffusionModelUNet."""

from __future__ import annotations

from typing import cast

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from medtrans.config import NetworkConfig, Pipeline
from medtrans.denoiser_config import EdmConfig, FlowConfig, UNetConfig
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
    ve_epsilon,
    vp_denoiser,
)


class TimeUNet(nn.Module):
    """A time-conditioned U-Net that works on folded pixels.

    `unshuffle` x `unshuffle` pixels become channels before the first layer and pixels again after
    the last, so that no layer runs at full resolution: on a CPU the same weights then cost a
    quarter.

    Parameters
    ----------
    in_channels, out_channels : int
        Before folding.
    classes : int
        How many labels (tasks or contrasts) the network tells apart; 1 takes no label.
    config : NetworkConfig
    """

    def __init__(
        self, in_channels: int, out_channels: int, classes: int, config: NetworkConfig
    ) -> None:
        super().__init__()
        fold = config.unshuffle**2
        self.classes = classes
        self.fold = nn.PixelUnshuffle(config.unshuffle)
        self.unfold = nn.PixelShuffle(config.unshuffle)
        self.unet = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=in_channels * fold,
            out_channels=out_channels * fold,
            channels=config.channels,
            attention_levels=config.attention,
            num_res_blocks=config.blocks,
            num_head_channels=config.norm_groups,
            norm_num_groups=config.norm_groups,
            num_class_embeds=classes if classes > 1 else None,
            include_fc=False,
        )

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B,), (B,) -> (B, out, H, W); H and W multiples of the config's stride."""
        labels = label if self.classes > 1 else None
        folded = self.fold(x).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.unfold(self.unet(folded, time, class_labels=labels)))


class ForeignUNet(nn.Module):
    """A noise network that was pretrained elsewhere; it knows no label."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.unet = DiffusionModelUNet(
            spatial_dims=2, in_channels=1, out_channels=1, **config.model_dump()
        )

    def forward(self, x: Tensor, time: Tensor, _: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), (B,) -> (B, 1, H, W)."""
        return cast(Tensor, self.unet(x, time))


def build_schedule(pipeline: Pipeline) -> Schedule:
    """How much noise and residual there is at each step."""
    d = pipeline.diffusion
    return linear_variance_schedule(d.level, d.steps, d.first_variance, d.last_variance)


def noise_network(pipeline: Pipeline, seed: int) -> nn.Module:
    """eps_theta(x, time [, contrast]): sees noisy target slices and nothing else."""
    if pipeline.denoiser is not None:
        return ForeignUNet(pipeline.denoiser.network)
    return _seeded(1, len(pipeline.targets), pipeline.network, seed)


def build_denoiser(network: nn.Module, label: Tensor | None, pipeline: Pipeline) -> Denoiser:
    """Put the noise network, ours or one from elsewhere, behind the one interface."""
    predict = noise_predictor(network, label)
    if pipeline.denoiser is None:
        return ve_epsilon(predict, build_schedule(pipeline))
    trained = pipeline.denoiser.training
    if isinstance(trained, EdmConfig):
        return edm_denoiser(predict, trained.data_std)
    if isinstance(trained, FlowConfig):
        return flow_denoiser(predict, trained.steps)
    linear = trained.schedule == "linear_beta"
    alphas = linear_alphas_cumprod if linear else scaled_linear_alphas_cumprod
    kept = alphas(trained.steps, trained.first_variance, trained.last_variance)
    return vp_denoiser(predict, kept, trained.prediction)


def residual_network(pipeline: Pipeline, seed: int) -> TimeUNet:
    """r_theta(x, source, time [, task]): sees the noisy slice and the stack of source slices."""
    stack = 2 * pipeline.slices.context + 1
    return _seeded(1 + stack, len(pipeline.tasks), pipeline.network, seed)


def noise_predictor(network: nn.Module, label: Tensor | None = None) -> NoisePredictor:
    """Bind the contrast label: what `medtrans.diffusion` calls as predict(x, time)."""
    return lambda x, time: network(x, time, label)


def residual_predictor(network: nn.Module, label: Tensor | None = None) -> ResidualPredictor:
    """Bind the task label: what `medtrans.diffusion` calls as predict(x, source, time)."""
    return lambda x, source, time: network(torch.cat([x, source], dim=1), time, label)


def _seeded(in_channels: int, classes: int, config: NetworkConfig, seed: int) -> TimeUNet:
    """Build a network whose initial weights depend on `seed` alone; global state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TimeUNet(in_channels, 1, classes, config)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
