"""What a recipe builds: the schedule, and the two networks around MONAI's DiffusionModelUNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import cast

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from medtrans.config import NetworkConfig, Pipeline
from medtrans.denoiser_config import DdpmConfig, EdmConfig, FlowConfig, UNetConfig
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
from medtrans.fast_norm import use_fast_norms

_ROWS = "unet.class_embedding.weight"  # one for each label, a task or contrast; none for one alone
_TIME_BIAS = "unet.time_embed.2.bias"  # what a label's row is added to


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
        use_fast_norms(self.unet)

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B,), (B,) -> (B, out, H, W); H and W multiples of the config's stride."""
        labels = label if self.classes > 1 else None
        folded = self.fold(x.to(self.unet.conv_in.conv.weight.dtype))
        folded = folded.contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.unfold(self.unet(folded, time, class_labels=labels))).to(x.dtype)


def inference_copy(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Copy a network for inference: its weights converted once, not at every call.

    Group norms take bfloat16 images with float32 weights on the CPU, as under autocast; on CUDA
    both have to be of one type.
    """
    copied = deepcopy(network).to(device, dtype).eval().requires_grad_(False)
    if device.type == "cpu":
        for own, original in zip(copied.modules(), network.modules(), strict=True):
            if isinstance(own, nn.GroupNorm):
                own.float().load_state_dict(original.state_dict())
    return copied


class ForeignUNet(nn.Module):
    """A noise network that was pretrained elsewhere; it knows no label."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.unet = DiffusionModelUNet(
            spatial_dims=2, in_channels=1, out_channels=1, **config.model_dump()
        )

    def forward(self, x: Tensor, time: Tensor, _: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), (B,) -> (B, 1, H, W)."""
        given = x.to(self.unet.conv_in.conv.weight.dtype)
        return cast(Tensor, self.unet(given, time)).to(x.dtype)


def build_schedule(pipeline: Pipeline) -> Schedule:
    """How much noise and residual there is at each step."""
    d = pipeline.diffusion
    return linear_variance_schedule(d.level, d.steps, d.first_variance, d.last_variance)


def noise_network(pipeline: Pipeline, seed: int) -> nn.Module:
    """Build eps_theta(x, time [, contrast]): sees noisy target slices, the source only if asked."""
    if pipeline.denoiser is not None:
        return ForeignUNet(pipeline.denoiser.network)
    stack = _stack(pipeline) if pipeline.noise.sees_source else 0
    return _seeded(1 + stack, len(pipeline.targets), pipeline.network, seed)


def residual_network(pipeline: Pipeline, seed: int) -> TimeUNet:
    """r_theta(x, source, time [, task]): sees the noisy slice and the stack of source slices."""
    return _seeded(1 + _stack(pipeline), len(pipeline.tasks), pipeline.network, seed)


def noise_predictor(
    network: nn.Module, label: Tensor | None = None, source: Tensor | None = None
) -> NoisePredictor:
    """Bind the contrast label: what `medtrans.diffusion` calls as predict(x, time).

    `source` (B, 2k + 1, H, W) is for a network that sees the source; zeros say that there is none.
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


def residual_predictor(network: nn.Module, label: Tensor | None = None) -> ResidualPredictor:
    """Bind the task label: what `medtrans.diffusion` calls as predict(x, source, time)."""
    return lambda x, source, time: network(torch.cat([x, source], dim=1), time, label)


def _foreign_denoiser(
    predict: NoisePredictor, trained: DdpmConfig | EdmConfig | FlowConfig
) -> Denoiser:
    if isinstance(trained, EdmConfig):
        return edm_denoiser(predict, trained.data_std)
    if isinstance(trained, FlowConfig):
        return flow_denoiser(predict, trained.steps)
    linear = trained.schedule == "linear_beta"
    alphas = linear_alphas_cumprod if linear else scaled_linear_alphas_cumprod
    kept = alphas(trained.steps, trained.first_variance, trained.last_variance)
    return vp_denoiser(predict, kept, trained.prediction)


def relabelled(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    before: Sequence[str],
    after: Sequence[str],
) -> dict[str, Tensor]:
    """Give a sister network's weights this network's labels, in this network's order.

    A label that the sister did not have keeps this network's own row. For one label alone, which
    has no row, the sister's row goes into the bias that it is added to: the answers are the same.

    Parameters
    ----------
    network : Module
    weights : mapping
        The sister's state dict.
    before, after : sequence of str
        The sister's labels and this network's.
    """
    own, given = network.state_dict(), dict(weights)
    none = torch.zeros(len(before), len(own[_TIME_BIAS]))
    rows = dict(zip(before, given.pop(_ROWS, none), strict=True))
    if len(after) > 1:
        mine = zip(after, own[_ROWS], strict=True)
        given[_ROWS] = torch.stack([rows.get(label, row) for label, row in mine])
    elif after[0] in rows:
        given[_TIME_BIAS] = given[_TIME_BIAS] + rows[after[0]]
    return given


def copy_matching(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of a sister network, wherever they fit.

    Inputs that the sister did not have start at zero. The weights have the network's own labels.
    """
    for name, goal in network.state_dict().items():
        value = weights.get(name)
        if value is None:
            continue
        if goal.shape == value.shape:
            goal.copy_(value)
        elif _sees_more(goal, value):
            goal.zero_()[:, : value.shape[1]] = value


def misfitting(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Names of what `copy_matching` could not copy although it matters, sorted."""
    own = network.state_dict()
    shared = [name for name in own.keys() & weights.keys() if _fits(own[name], weights[name])]
    names = {*own, *weights} - set(shared)
    return sorted(names - {_ROWS})


def _fits(goal: Tensor, value: Tensor) -> bool:
    return goal.shape == value.shape or _sees_more(goal, value)


def _sees_more(goal: Tensor, value: Tensor) -> bool:
    """Whether the layer is the same convolution with more input channels."""
    rest = [(v.shape[0], *v.shape[2:]) for v in (goal, value)]
    return goal.ndim == value.ndim == 4 and rest[0] == rest[1] and goal.shape[1] > value.shape[1]


def _stack(pipeline: Pipeline) -> int:
    return 2 * pipeline.slices.context + 1


def _seeded(in_channels: int, classes: int, config: NetworkConfig, seed: int) -> TimeUNet:
    """Build a network whose initial weights depend on `seed` alone; global state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TimeUNet(in_channels, 1, classes, config)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
