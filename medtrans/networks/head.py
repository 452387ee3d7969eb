"""A head at full resolution: what keeps a network of folded pixels free of a grid.

A pixel shuffle writes each pixel of a block by its own channel. Whatever these channels do
differently becomes a pattern with the period of the block (a checkerboard artefact). The head
takes that period out of the shuffled answer, and gives the detail back by two convolutions at
full resolution. They treat all pixels alike, and see the network's input beside its features,
which are interpolated.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = "unet.out.2.features."  # in a network's state dict: what the head is given
HEAD = "head."  # and what it does with it


class WithFeatures(nn.Module):
    """The last convolution of a U-Net, and one beside it that gives the head its features.

    Both see the same; the answers are channels of one tensor. The first convolution keeps its
    place in the state dict.

    Parameters
    ----------
    answer : Conv2d
        The U-Net's own.
    features : int
        How many channels to give to the head.
    """

    def __init__(self, answer: nn.Conv2d, features: int) -> None:
        super().__init__()
        self.conv = answer
        self.features = nn.Conv2d(answer.in_channels, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, answer + features, h, w)."""
        return torch.cat([self.conv(x), self.features(x)], dim=1)


class FullResolutionHead(nn.Module):
    """Add detail at full resolution to an answer whose pattern was taken out.

    Parameters
    ----------
    in_channels : int
        Of the network's input, at full resolution.
    out_channels : int
        Of its answer.
    features : int
        Channels of `WithFeatures`.
    fold : int
        Pixels of a block along each axis: the period that is taken out.
    """

    def __init__(self, in_channels: int, out_channels: int, features: int, fold: int) -> None:
        super().__init__()
        self.fold = fold
        self.hidden = nn.Conv2d(features + in_channels, 2 * features, 3, padding=1)
        self.last = nn.Conv2d(2 * features, out_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # at first the head only takes the pattern out
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, answer: Tensor, features: Tensor, x: Tensor) -> Tensor:
        """(B, out, H, W), (B, features, h, w) folded, (B, in, H, W) -> (B, out, H, W)."""
        size = (x.shape[2], x.shape[3])
        features = functional.interpolate(features, size, mode="bilinear", align_corners=False)
        detail = self.last(functional.silu(self.hidden(torch.cat([features, x], dim=1))))
        return without_period(answer, self.fold) + cast(Tensor, detail)


def without_period(image: Tensor, period: int, order: int = 2) -> Tensor:
    """Take a pattern of a period in pixels out of an image (B, C, H, W), along both axes.

    The kernel is 1 - (1 - t)^order by convolution, with t the triangle of 2 period - 1 pixels: like
    t it passes nothing of the period nor of its harmonics, and the higher the order the less it
    dims else. For two pixels and order 2 it is [-1 4 10 4 -1] / 16, which passes three quarters at
    four pixels; of order 4 it passes 15 of 16 there. The image is continued by its border.
    """
    reach, channels = order * (period - 1), image.shape[1]
    kernel = _kernel_on(image.device, image.dtype, period, order)
    padded = functional.pad(image, (reach, reach, reach, reach), mode="replicate")
    along = kernel.expand(channels, 1, -1)
    rows = functional.conv2d(padded, along[:, :, None, :], groups=channels)
    return functional.conv2d(rows, along[:, :, :, None], groups=channels)


@cache
def _kernel_on(device: torch.device, dtype: torch.dtype, period: int, order: int) -> Tensor:
    """Keep a kernel where it is used: a GPU would wait for one that is copied at every call."""
    with torch.inference_mode(mode=False):  # else a training could not use it later
        return torch.tensor(_kernel(period, order), dtype=dtype, device=device)


@cache
def _kernel(period: int, order: int) -> tuple[float, ...]:
    triangle = (period - np.abs(np.arange(1 - period, period))) / period**2
    taken = -triangle
    taken[period - 1] += 1  # all but t
    kernel = np.ones(1)
    for _ in range(order):
        kernel = np.convolve(kernel, taken)
    kernel = -kernel
    kernel[order * (period - 1)] += 1
    return tuple(kernel.tolist())
