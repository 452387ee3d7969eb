"""The process of MONAI's bundle runner, which is ours to tune."""

from __future__ import annotations

import torch

from medtrans.system import devices


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda", and tune the process.

    Raises
    ------
    UsageError
        When the name is unknown, or CUDA is asked for where there is none.
    """
    devices.tune_process()
    return devices.choose_device(wanted)
