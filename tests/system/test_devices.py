"""Where the networks run, and with how much."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medtrans.errors import UsageError
from medtrans.system.devices import (
    choose_device,
    fit_threads,
    slices_at_a_time,
    usable_cores,
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


def test_batches_shrink_as_slices_grow() -> None:
    sizes = [slices_at_a_time(side**2, CPU) for side in (64, 128, 192, 256, 512, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] == 8
    assert sizes[-1] == 1


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
