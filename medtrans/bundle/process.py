"""The process of MONAI's bundle runner, which is ours to tune."""

from __future__ import annotations

import os

import torch

from medtrans.system import devices
from medtrans.training.parallel import join


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda", and tune the process.

    Raises
    ------
    UsageError
        When the name is unknown, or CUDA is asked for where there is none.
    """
    devices.tune_process()
    return devices.choose_device(wanted)


def own_device() -> torch.device:
    """Return the GPU of this process under torchrun, else the CPU, and tune the process."""
    devices.tune_process()
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def join_processes() -> None:
    """Join the processes that torchrun started; they train together."""
    join()
