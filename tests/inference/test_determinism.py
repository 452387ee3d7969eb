"""The same command gives the same bytes: whatever the batch, the threads, the memory, the load."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from medtrans.errors import UsageError
from medtrans.inference.sampling import Arithmetic
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.package.store import load_package
from medtrans.system import devices
from medtrans.volumes import read_volume
from tests import helpers

PRECISIONS = ("float32", "bfloat16")


@pytest.fixture
def head() -> MetaTensor:
    return helpers.volume(*helpers.head())


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def hog(stop: threading.Event) -> None:
    image = torch.randn(1, 16, 64, 64)
    weight = torch.randn(16, 16, 3, 3)
    while not stop.is_set():
        torch.nn.functional.conv2d(image, weight)


class TestSameBytes:
    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("mode", ["fidelity", "realistic"])
    def test_batch_size_changes_no_bit(
        self, random_model: Path, head: MetaTensor, precision: str, mode: str
    ) -> None:
        translator = Translator.load(random_model, "cpu", precision)
        base = translator.translate_volume(head, Settings(mode=mode))
        for size in (1, 4, 16, 100):
            other = translator.translate_volume(head, Settings(mode=mode, batch_size=size))
            assert np.array_equal(base.voxels, other.voxels), f"{size} slices at a time"
            assert other.arithmetic == base.arithmetic

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_threads_change_no_bit(
        self,
        random_model: Path,
        head: MetaTensor,
        precision: str,
        set_threads: Callable[[int], None],
    ) -> None:
        translator = Translator.load(random_model, "cpu", precision)
        results = []
        for threads in (1, 2, 5):
            set_threads(threads)
            results.append(translator.translate_volume(head, Settings(mode="realistic")).voxels)
        assert all(np.array_equal(results[0], other) for other in results[1:])

    def test_the_shipped_networks_too(self, set_threads: Callable[[int], None]) -> None:
        """Their convolutions are large enough for oneDNN to choose between kernels."""
        sampler = Translator(load_package("brain_mri"), torch.device("cpu"), "float32").sampler
        x = torch.randn(16, 4, 48, 32, generator=torch.Generator().manual_seed(0))
        time, label = torch.full((16,), 1000.0), torch.zeros(16, dtype=torch.long)
        set_threads(1)
        alone = [sampler.residual(*(v[i : i + 1] for v in (x, time, label))) for i in range(16)]
        set_threads(2)
        assert torch.equal(torch.cat(alone), sampler.residual(x, time, label))

    def test_the_load_changes_no_bit(self, random_model: Path, head: MetaTensor) -> None:
        translator = Translator.load(random_model, "cpu")
        idle = translator.translate_volume(head, Settings(mode="realistic")).voxels
        stop = threading.Event()
        with ThreadPoolExecutor(4) as pool:
            for _ in range(4):
                pool.submit(hog, stop)
            try:
                busy = translator.translate_volume(head, Settings(mode="realistic")).voxels
            finally:
                stop.set()
        assert np.array_equal(idle, busy)

    def test_files_of_fresh_processes(self, random_model: Path, tmp_path: Path) -> None:
        """One with a core, little memory and much company; one with all that there is."""
        resource = pytest.importorskip("resource", reason="limits are Unix's")
        source = helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())
        command = [sys.executable, "-m", "medtrans", "translate", str(source), "--device", "cpu"]
        command += ["--model", str(random_model), "--mode", "realistic", "-o"]

        def translated(name: str, threads: str, limit: Callable[[], None] | None) -> list[bytes]:
            folder = tmp_path / name
            folder.mkdir()
            environment = {**os.environ, "OMP_NUM_THREADS": threads}
            subprocess.run(
                [*command, str(folder)],
                check=True, capture_output=True, env=environment, preexec_fn=limit,
            )  # fmt: skip
            return [path.read_bytes() for path in sorted(folder.iterdir())]

        def little() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))  # CUDA builds take 6

        company = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            busy = translated("busy", "1", little)
        finally:
            company.kill()
            company.wait()
        idle = translated("idle", "2", None)
        assert len(idle) == 2  # the image and its sidecar
        assert busy == idle


class TestMemory:
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_how_much_is_free_is_never_asked(
        self, monkeypatch: pytest.MonkeyPatch, device: str
    ) -> None:
        def asked(*_: object) -> None:
            raise AssertionError("asked for free memory")

        monkeypatch.setattr(torch.cuda, "mem_get_info", asked)
        assert devices.slices_at_a_time(192 * 192, torch.device(device)) > 1

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory."),
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"),
        ],
        ids=["cuda", "python", "cpu"],
    )
    def test_half_as_many_slices_where_it_fails(
        self,
        random_model: Path,
        head: MetaTensor,
        error: Exception,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        translator = Translator.load(random_model, "cpu")
        expected = translator.translate_volume(head, Settings()).voxels
        network, sizes = translator.sampler.residual, []

        def small(x: Tensor, time: Tensor, label: Tensor) -> Tensor:
            sizes.append(len(x))
            if len(x) > 5:
                raise error
            return network(x, time, label)

        translator.sampler.residual = small
        seen: list[tuple[int, int]] = []
        result = translator.translate_volume(
            head, Settings(batch_size=12), on_slices=lambda *progress: seen.append(progress)
        )
        assert np.array_equal(result.voxels, expected)
        assert sizes[:3] == [12, 6, 3]
        assert set(sizes[3:]) <= {1, 2, 3}
        assert seen[-1][0] == seen[-1][1] == result.slices
        told = capsys.readouterr().err
        assert "12 slices at a time: now 6" in told
        assert "6 slices at a time: now 3" in told

    def test_no_memory_for_a_single_slice(self, random_model: Path, head: MetaTensor) -> None:
        translator = Translator.load(random_model, "cpu")

        def never(*_: Tensor) -> Tensor:
            raise MemoryError

        translator.sampler.residual = never
        with pytest.raises(MemoryError):
            translator.translate_volume(head, Settings(batch_size=4))

    def test_another_error_is_not_tried_again(self, random_model: Path, head: MetaTensor) -> None:
        translator, calls = Translator.load(random_model, "cpu"), []

        def broken(x: Tensor, *_: Tensor) -> Tensor:
            calls.append(len(x))
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        translator.sampler.residual = broken
        with pytest.raises(RuntimeError, match="mat1"):
            translator.translate_volume(head, Settings(batch_size=4))
        assert calls == [4]


class TestLabel:
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_the_sidecar_says_what_decides_the_rounding(
        self, random_model: Path, tmp_path: Path, precision: str
    ) -> None:
        source = helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())
        translator = Translator.load(random_model, "cpu", precision)
        label = translator.translate_file(source, Settings(batch_size=3)).provenance.sidecar()
        assert label["Precision"] == precision
        assert label["Device"].startswith("cpu (")
        assert (label["BatchSize"], label["Threads"]) == (1, 1)  # of a network call

    def test_on_a_gpu_the_batch_counts_and_threads_do_not(self) -> None:
        entries = Arithmetic("cuda (a GPU)", "bfloat16", 32, None).entries
        assert entries == {"Device": "cuda (a GPU)", "Precision": "bfloat16", "BatchSize": 32}


class TestHost:
    def test_threads_and_allocator_are_left_alone(
        self,
        random_model: Path,
        head: MetaTensor,
        monkeypatch: pytest.MonkeyPatch,
        set_threads: Callable[[int], None],
    ) -> None:
        def touched() -> None:
            raise AssertionError("the process was tuned")

        monkeypatch.setattr(devices, "fit_threads", touched)
        monkeypatch.setattr(devices, "keep_freed_memory", touched)
        set_threads(3)
        Translator.load(random_model, "cpu").translate_volume(head, Settings())
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:  # a thread that the host starts later
            assert pool.submit(torch.get_num_threads).result() == 3

    def test_import_and_load_in_a_fresh_process(self, random_model: Path) -> None:
        program = (
            "import torch; before = torch.get_num_threads() + 1; torch.set_num_threads(before)\n"
            f"import medtrans; medtrans.Translator.load({str(random_model)!r})\n"
            "assert torch.get_num_threads() == before"
        )
        subprocess.run([sys.executable, "-c", program], check=True)


class TestPrecision:
    def test_unknown(self, random_model: Path) -> None:
        with pytest.raises(UsageError, match=r"'half' is unknown.*float32"):
            Translator.load(random_model, "cpu", "half")

    def test_bfloat16_is_close_to_float32(self, random_model: Path, head: MetaTensor) -> None:
        fine, coarse = (
            Translator.load(random_model, "cpu", name).translate_volume(head, Settings()).voxels
            for name in PRECISIONS
        )
        assert not np.array_equal(fine, coarse)
        assert np.abs(fine - coarse).max() < 0.1 * fine.std()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_real_brain(shared_data: Path, precision: str) -> None:
    """Two slices of it, with the shipped model."""
    volume = read_volume(shared_data / "brain" / "openms-07" / "t1.nii.gz")
    middle = volume.shape[2] // 2
    slab = volume[:, :, middle : middle + 2]
    translator = Translator.load("brain_mri", "cpu", precision)
    one, two = (
        translator.translate_volume(slab, Settings(batch_size=size)).voxels for size in (1, 2)
    )
    assert np.array_equal(one, two)
