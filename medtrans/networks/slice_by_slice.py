"""A network whose answer for a slice depends on that slice alone, to the last bit."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from medtrans.networks.unet import inference_copy
from medtrans.system.devices import usable_threads
from medtrans.system.workers import map_on_single_threads


def ready(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Copy a network to a device, to compute in a type; on the CPU it goes slice by slice."""
    copied = inference_copy(network, device, dtype)
    return SliceBySlice(copied) if device.type == "cpu" else copied


class SliceBySlice(nn.Module):
    """Calls a network once for each slice of a batch, every call on one thread of the CPU.

    oneDNN's convolutions choose their kernels, and the order of their sums, by the size of the
    batch and the number of threads. In bfloat16 the difference is large enough to be seen in
    single voxels. A call of one slice on one thread is always the same computation; the cores
    are kept busy by several slices at once.

    Parameters
    ----------
    network : Module
        Called as network(x, time, label).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B,), (B,) -> (B, out, H, W), without gradients."""

        def call(row: int) -> Tensor:
            chosen = slice(row, row + 1)
            with torch.inference_mode():  # holds for the thread that enters it
                return cast(
                    Tensor,
                    self.network(x[chosen], time[chosen], None if label is None else label[chosen]),
                )

        return torch.cat(map_on_single_threads(call, range(len(x)), usable_threads()))
