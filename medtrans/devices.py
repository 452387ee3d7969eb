"""Where the networks run."""

from __future__ import annotations

import torch

from medtrans.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; auto is CUDA where there is one.

    Raises
    ------
    UsageError
        When the name is unknown, or CUDA is asked for where there is none.
    """
    name, _, index = wanted.partition(":")
    if name not in DEVICES:
        raise UsageError(f"The device '{wanted}' is unknown; known are {', '.join(DEVICES)}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "The device 'cuda' was asked for, but this PyTorch sees no GPU. Use --device cpu, or "
            "install a CUDA build of PyTorch."
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(f"{name}:{index}" if index else name)


def inference_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it natively, else float32.

    Emulated bfloat16, as on a laptop's CPU without AVX512-BF16, is slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
