"""Where the networks run, and with how much."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from medtrans.errors import UsageError
from medtrans.system.devices import (
    choose_device,
    fit_threads,
    keep_freed_memory,
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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="page faults are Linux's")
def test_freed_memory_is_used_again() -> None:
    import resource

    if not keep_freed_memory():
        pytest.skip("no glibc")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.ones(20 * 2**20, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 1000
