"""Where the networks run."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from medtrans.errors import MedtransError, UsageError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")
_MOST_SLICES = {"cpu": 16, "cuda": 64}
_MOST_PIXELS = 64 * 256 * 256  # of 1200 bytes of activations in float32, on the shipped networks
# Of torch's allocator on the CPU on Linux and macOS, the same on Windows, oneDNN, cuDNN, cuBLAS,
# and of Python, whose threads need memory for their stacks.
_WORDS_FOR_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "STATUS_ALLOC_FAILED",
    "can't start new thread",
)
_ACTIVATION = 2**26  # bytes; what is larger is a volume, and goes back at once
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


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
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(f"{name}:{index}" if index else name)


def choose_precision(device: torch.device, requested: str = "auto") -> torch.dtype:
    """Return the type that networks compute in, for "auto", "float32" or "bfloat16".

    auto is bfloat16 where the hardware multiplies it natively. Elsewhere, as on a laptop's CPU
    without AVX512-BF16, it is emulated, which is slower than float32.

    Raises
    ------
    UsageError
        When the name is unknown.
    """
    if requested not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UsageError(f"The precision '{requested}' is unknown; known are {known}.")
    if requested != "auto":
        return torch.float32 if requested == "float32" else torch.bfloat16
    on_gpu = device.type == "cuda"
    native = torch.cuda.is_bf16_supported() if on_gpu else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def describe(device: torch.device) -> str:
    """Name a device with what its arithmetic depends on: the instruction set, or the GPU."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"


def tune_process() -> None:
    """Fit torch's threads to the cores that this process may use, and let it keep freed memory.

    Both hold for the whole process, so this is for programs that are medtrans and nothing else:
    its command line and MONAI's bundle runner. A library leaves them to its host.
    """
    fit_threads()
    keep_freed_memory()


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


def usable_threads() -> int:
    """Return how many threads this process may keep busy: as many as torch has, or fewer cores."""
    return min(torch.get_num_threads(), usable_cores())


def slices_at_a_time(pixels: int, device: torch.device) -> int:
    """Return how many slices of so many pixels to translate together.

    A function of the size alone, never of how much memory is free at the moment: on a GPU it
    decides how the result is rounded. The activations then take at most 5 GB in float32.
    """
    return max(1, min(_MOST_SLICES[device.type], _MOST_PIXELS // pixels))


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the GPU or the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in _WORDS_FOR_NO_MEMORY)
    )


@contextmanager
def memory_errors(work: str, advice: str) -> Iterator[None]:
    """Say in a sentence that there is no memory left.

    Parameters
    ----------
    work, advice : str
        What needs it, and a sentence that says what would need less.

    Raises
    ------
    MedtransError
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
    else:
        return
    raise MedtransError(f"{work} needs more memory than there is. {advice}")


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
