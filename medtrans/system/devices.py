"""Where the networks run."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from pathlib import Path

import torch

from medtrans.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
_CPU_PIXELS = 8 * 192 * 192  # a batch that keeps two cores busy, in about 0.3 GB
_BYTES_PER_PIXEL = 1200  # of activations at their peak, measured on the shipped networks
_MOST_SLICES = 64
_ACTIVATION = 2**26  # bytes; what is larger is a volume, and goes back at once
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; auto is CUDA where there is one.

    On the CPU torch's threads are fitted to what the process may use, and freed memory is kept.

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
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        fit_threads()
        keep_freed_memory()
    return torch.device(f"{name}:{index}" if index else name)


def inference_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it natively, else float32.

    Emulated bfloat16, as on a laptop's CPU without AVX512-BF16, is slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def fit_threads() -> int:
    """Let torch use no more threads than this process may run on; returns how many.

    torch counts the machine's cores. In a container with a CPU quota that many threads spend their
    time waiting for one another. A number set by OMP_NUM_THREADS is left alone.
    """
    allowed = usable_cores()
    if "OMP_NUM_THREADS" not in os.environ and allowed < torch.get_num_threads():
        torch.set_num_threads(allowed)
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Let glibc reuse freed activations instead of giving them back; False without glibc.

    A training step otherwise asks the system for the same pages again at every layer: 15 000 page
    faults and a tenth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _ACTIVATION) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores this process may keep busy: its affinity, and its cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def slices_at_a_time(pixels: int, device: torch.device) -> int:
    """Return how many slices of so many pixels to translate together.

    On a CPU a few slices fill the cores, and more only leave the caches; on a GPU as many as a
    quarter of its free memory holds.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(1, min(_MOST_SLICES, free // 4 // (pixels * _BYTES_PER_PIXEL)))
    return max(1, min(_MOST_SLICES, _CPU_PIXELS // pixels))


def _quota(cgroup: Path) -> float | None:
    """Return the CPU quota in cores (cgroup v2, else v1), or None without one."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
        except OSError:
            return None
    try:
        share = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return share if share > 0 else None
