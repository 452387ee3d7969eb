"""Where the networks run, and with how much."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medtrans.errors import MedtransError, UsageError
from medtrans.system.devices import (
    choose_device,
    choose_precision,
    fit_threads,
    lacks_memory,
    memory_errors,
    slices_at_a_time,
    tune_process,
    usable_cores,
    usable_threads,
)

CPU = torch.device("cpu")


def cgroup(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="ascii")
    return folder


def v2(folder: Path, text: str) -> Path:
    return cgroup(folder, **{"cpu.max": text})


def test_unknown_device() -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        choose_device("tpu")


def test_quota_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert usable_cores(tmp_path / "none") == 8
    assert usable_cores(v2(tmp_path, "max 100000")) == 8
    assert usable_cores(v2(tmp_path, "150000 100000")) == 2
    assert usable_cores(v2(tmp_path, "20000 100000")) == 1
    assert usable_cores(v2(tmp_path, "9900000 100000")) == 8
    assert usable_cores(v2(tmp_path, "nonsense")) == 8


def test_quota_of_an_old_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    files = {"cpu__cpu.cfs_quota_us": "300000\n", "cpu__cpu.cfs_period_us": "100000\n"}
    assert usable_cores(cgroup(tmp_path, **files)) == 3
    assert usable_cores(cgroup(tmp_path, **{**files, "cpu__cpu.cfs_quota_us": "-1"})) == 8


def test_threads_never_outnumber_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("medtrans.system.devices.usable_cores", lambda: 1)
    try:
        torch.set_num_threads(2)
        assert fit_threads() == 1
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert fit_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_batches_shrink_as_slices_grow(kind: str) -> None:
    device = torch.device(kind)
    sizes = [slices_at_a_time(side**2, device) for side in (64, 128, 192, 256, 512, 1024, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert sizes[2] == {"cpu": 16, "cuda": 64}[kind]


def test_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtrans.system.devices.usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert usable_threads() == 2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert usable_threads() == 1


def test_precision_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision(CPU, "float32") is torch.float32
    assert choose_precision(CPU, "bfloat16") is torch.bfloat16
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert choose_precision(CPU) is dtype
    with pytest.raises(UsageError, match="auto, float32, bfloat16"):
        choose_precision(CPU, "float16")


def test_choosing_a_device_leaves_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("medtrans.system.devices.fit_threads", lambda: done.append("threads"))
    monkeypatch.setattr("medtrans.system.devices.keep_freed_memory", lambda: done.append("memory"))
    assert choose_device("cpu") == CPU
    assert not done
    tune_process()
    assert done == ["threads", "memory"]


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("The size of tensor a must match"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_which_errors_mean_that_memory_lacks(error: Exception, lacking: bool) -> None:
    assert lacks_memory(error) is lacking


def test_what_torch_says_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert lacks_memory(caught.value)


# Page faults of four 48 MB activations, before and after freed memory is kept. By itself glibc
# gives back every block of this size: its threshold, which moves, ends at 32 MB. Sixteen rounds
# come first, since glibc before 2.38 does not join up to seven of the scraps that alignment cuts
# off a block, and each scrap makes one block too short to be used again.
COUNT_FAULTS = """
import resource
import torch
from medtrans.system.devices import keep_freed_memory

def faults(rounds=4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(48 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
known = keep_freed_memory()
faults(rounds=16)
print(int(known), given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_used_again() -> None:
    """In a process of its own: what was allocated before decides where a block lies."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True
    )
    known, given_back, kept = map(int, done.stdout.split())
    if not known:
        pytest.skip("no glibc")
    assert kept < given_back / 10


def test_no_memory_becomes_a_sentence() -> None:
    for error in (MemoryError(), RuntimeError("can't start new thread")):
        with (
            pytest.raises(MedtransError, match=r"^Training needs more memory .* Use less\.$"),
            memory_errors("Training", "Use less."),
        ):
            raise error
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("Training", "Use less."):
        raise RuntimeError("shapes")
    with memory_errors("Training", "Use less."):
        pass
