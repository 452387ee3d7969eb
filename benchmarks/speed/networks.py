"""Networks against the convolution ceiling: forward, training step, size of slice."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.machine import CONVOLUTION_GFLOP, convolution
from benchmarks.speed.timing import median_s, medians_s
from medtrans.networks.unet import inference_copy
from medtrans.package.store import ModelPackage
from medtrans.system.devices import choose_precision

CPU = torch.device("cpu")
# MONAI U-Nets of about the reference's 36 M and 120 M parameters and 1.49 TFLOP a slice at 2 + 2,
# in the reference's own setting: plain float32, every layer from full resolution down.
_REFERENCE = (((48, 112, 256, 480), 1), ((64, 128, 320, 784), 2))
_TRAINING_SIZE = (8, 160, 144)


def shipped(package: ModelPackage) -> dict[str, dict[str, float]]:
    """Rate of each stage's forward and training step, and their shares of the ceiling."""
    stages = {"residual": package.residual, "noise": package.noise}
    return {name: _rates(net) for name, net in stages.items() if net is not None}


def per_slice(package: ModelPackage) -> dict[str, float]:
    """Time a 256 x 256 slice at 2 + 2: shipped networks, and ones of the reference's size."""
    size = (1, 256, 256)
    ours = [
        _forward(inference_copy(net, CPU, choose_precision(CPU)), size)
        for net in (package.residual, package.noise)
        if net is not None
    ]
    reference = [_reference(*shape).eval() for shape in _REFERENCE]
    theirs = [_forward(net, size) for net in reference]
    our_s, their_s = (2 * sum(median_s(call, 3) for call in calls) for calls in (ours, theirs))
    return {
        "shipped networks, s": our_s,
        "reference size, s": their_s,
        "ratio": their_s / our_s,
        "reference size, M parameters": sum(map(_parameters, reference)) / 1e6,
        "reference size, TFLOP": 2 * sum(map(_gflop, theirs)) / 1e3,
    }


def by_slice_size(package: ModelPackage) -> dict[str, float]:
    """Milliseconds a slice in fidelity mode, for square slices."""
    network = inference_copy(package.residual, CPU, choose_precision(CPU))
    milliseconds = {}
    for side, batch in ((64, 32), (128, 16), (256, 4)):
        seconds = median_s(_forward(network, (batch, side, side)), 5)
        milliseconds[f"{side} x {side}"] = seconds / batch * 1e3
    return milliseconds


def _rates(network: nn.Module) -> dict[str, float]:
    forward = _forward(inference_copy(network, CPU, choose_precision(CPU)), _TRAINING_SIZE)
    step = _training_step(network, _TRAINING_SIZE)
    ceiling = convolution(torch.bfloat16, channels_last=True)
    ceiling_s, forward_s, step_s = medians_s([ceiling, forward, step])
    work, limit = _gflop(forward), CONVOLUTION_GFLOP / ceiling_s
    return {
        "M parameters": _parameters(network) / 1e6,
        "GFLOP a slice of 160 x 144": work / _TRAINING_SIZE[0],
        "ceiling, GFLOP/s": limit,
        "forward, s": forward_s,
        "forward, GFLOP/s": work / forward_s,
        "forward, share of ceiling": work / forward_s / limit,
        "training step, s": step_s,
        "training step, GFLOP/s": 3 * work / step_s,
        "training step, share of ceiling": 3 * work / step_s / limit,
    }


def _forward(network: nn.Module, size: tuple[int, int, int]) -> Callable[[], object]:
    batch, height, width = size
    x = torch.randn(batch, channels_in(network), height, width)
    time, label = torch.full((batch,), 500.0), torch.zeros(batch, dtype=torch.long)
    arguments = (x, time, label) if hasattr(network, "fold") else (x, time)

    def call() -> object:
        with torch.inference_mode():
            return network(*arguments)

    return call


def _training_step(network: nn.Module, size: tuple[int, int, int]) -> Callable[[], object]:
    trained = deepcopy(network).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-5, fused=True)
    batch, height, width = size
    x = torch.randn(batch, channels_in(network), height, width)
    time, label = torch.full((batch,), 500.0), torch.zeros(batch, dtype=torch.long)

    def call() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            loss = trained(x, time, label).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return optimizer.step()

    return call


def channels_in(network: nn.Module) -> int:
    """Channels of the image that a network takes, before folding."""
    unet = getattr(network, "unet", network)
    fold = getattr(getattr(network, "fold", None), "downscale_factor", 1)
    return int(unet.conv_in.conv.in_channels) // fold**2


def _reference(channels: tuple[int, ...], blocks: int) -> nn.Module:
    network: nn.Module = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2,
        out_channels=1,
        channels=channels,
        attention_levels=(False,) * len(channels),
        num_res_blocks=blocks,
        num_head_channels=16,
        norm_num_groups=16,
        include_fc=False,
    )
    return network


def _gflop(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e9


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
