"""The networks of a recipe: a time-conditioned U-Net around MONAI's DiffusionModelUNet."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from medtrans.config.schema import NetworkConfig, Pipeline
from medtrans.networks.foreign import ForeignUNet
from medtrans.networks.group_norm import use_fast_norms
from medtrans.networks.head import FullResolutionHead, WithFeatures


class TimeUNet(nn.Module):
    """A time-conditioned U-Net that works on folded pixels.

    `unshuffle` x `unshuffle` pixels become channels before the first layer and pixels again after
    the last, so that no layer of the U-Net runs at full resolution: on a CPU the same weights then
    cost a quarter. A small head at full resolution takes out the grid that this would leave.

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
        self.features = config.head_features if config.unshuffle > 1 else 0
        self.head = None
        if self.features:
            self.unet.out[-1] = WithFeatures(self.unet.out[-1].conv, self.features)
            self.head = FullResolutionHead(
                in_channels, out_channels, self.features, config.unshuffle
            )

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B,), (B,) -> (B, out, H, W); H and W multiples of the config's stride."""
        labels = label if self.classes > 1 else None
        given = x.to(self.unet.conv_in.conv.weight.dtype)
        folded = self.fold(given).contiguous(memory_format=torch.channels_last)
        answer = self.unet(folded, time, class_labels=labels)
        if self.head is None:
            return cast(Tensor, self.unfold(answer)).to(x.dtype)
        split = answer.shape[1] - self.features
        shuffled = self.unfold(answer[:, :split])
        return cast(Tensor, self.head(shuffled, answer[:, split:], given)).to(x.dtype)


def inference_copy(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Copy a network for inference: its weights converted once, not at every call.

    Group norms take bfloat16 images with float32 weights on the CPU, as under autocast; on CUDA
    both have to be of one type. The network itself stays as it is.
    """
    copied = deepcopy(network).to(device, dtype).eval().requires_grad_(False)
    if device.type == "cpu":
        for copy, original in zip(copied.modules(), network.modules(), strict=True):
            if isinstance(copy, nn.GroupNorm):
                copy.float().load_state_dict(original.state_dict())
    return copied


def noise_network(pipeline: Pipeline, seed: int) -> nn.Module:
    """Build the noise stage's network, called as network(x, time [, contrast]) (Eq. 10).

    It sees noisy target slices (B, 1, H, W); with `noise.sees_source` the 2k + 1 source slices
    follow as channels. It has no head: what it answers to noise has every frequency, and a head
    that takes one out leaves that noise in the image. A recipe with a noise stage from elsewhere
    gets that stage's network.

    Parameters
    ----------
    pipeline : Pipeline
    seed : int
        Decides the initial weights.
    """
    if pipeline.denoiser is not None:
        return ForeignUNet(pipeline.denoiser.network)
    stack = pipeline.slices.stack if pipeline.noise.sees_source else 0
    config = pipeline.network.model_copy(update={"head_features": 0})
    return _seeded(1 + stack, len(pipeline.targets), config, seed)


def residual_network(pipeline: Pipeline, seed: int) -> TimeUNet:
    """Build r_theta, called as network(x, time [, task]) (Eq. 9).

    x is (B, 1 + 2k + 1, H, W): the noisy slice and the stack of source slices.

    Parameters
    ----------
    pipeline : Pipeline
    seed : int
        Decides the initial weights.
    """
    return _seeded(1 + pipeline.slices.stack, len(pipeline.tasks), pipeline.network, seed)


def error_network(pipeline: Pipeline, seed: int) -> TimeUNet:
    """Build the network of the expected error, called as network(x, time [, task]).

    x is (B, 1 + 2k + 1, H, W): the slice that the residual stage made, and the stack of source
    slices. Its answer (B, 1, H, W) is the logarithm of the error that is expected there.

    Parameters
    ----------
    pipeline : Pipeline
    seed : int
        Decides the initial weights.
    """
    config = pipeline.network.narrowed(pipeline.error.width)
    return _seeded(1 + pipeline.slices.stack, len(pipeline.tasks), config, seed)


def _seeded(in_channels: int, classes: int, config: NetworkConfig, seed: int) -> TimeUNet:
    """Build a network whose initial weights depend on `seed` alone; global state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TimeUNet(in_channels, 1, classes, config)
    for weight in network.parameters():
        if weight.ndim == 4:  # of a convolution
            weight.data = weight.data.to(memory_format=torch.channels_last)
    return network
