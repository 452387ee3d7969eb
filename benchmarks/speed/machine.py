"""What the machine can do: a description, and its convolution and copy ceilings."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.speed.timing import median_s
from medtrans.system.devices import choose_precision, usable_cores

_BATCH, _CHANNELS, _HEIGHT, _WIDTH = 8, 128, 80, 72
CONVOLUTION_GFLOP = 2 * 9 * _CHANNELS**2 * _BATCH * _HEIGHT * _WIDTH / 1e9
_COPIED = 64 * 2**20


def description() -> dict[str, str | int]:
    """CPU, cores, memory and library versions; nothing that names the machine."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "torch threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "network precision": str(choose_precision(torch.device("cpu"))).removeprefix("torch."),
    }


def convolution(dtype: torch.dtype, *, channels_last: bool) -> Callable[[], object]:
    """Return a 3 x 3 convolution of 128 channels, of the size that a training step has."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    image = torch.randn(_BATCH, _CHANNELS, _HEIGHT, _WIDTH).to(dtype).to(memory_format=layout)
    weight = torch.randn(_CHANNELS, _CHANNELS, 3, 3).to(dtype).to(memory_format=layout)

    def call() -> object:
        with torch.inference_mode():
            return functional.conv2d(image, weight, padding=1)

    return call


def ceilings() -> dict[str, float]:
    """GFLOP/s of convolutions, and GB/s of a copy (read and written bytes)."""
    rates = {}
    for name, dtype, last in (
        ("bf16 channels_last", torch.bfloat16, True),
        ("fp32 channels_last", torch.float32, True),
        ("fp32 contiguous", torch.float32, False),
    ):
        seconds = median_s(convolution(dtype, channels_last=last), repeats=15)
        rates[f"convolution {name}, GFLOP/s"] = CONVOLUTION_GFLOP / seconds
    source = torch.ones(_COPIED, dtype=torch.uint8)
    copy = torch.empty_like(source)
    rates["copy, GB/s"] = 2 * _COPIED / 1e9 / median_s(lambda: copy.copy_(source), repeats=15)
    return rates


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
