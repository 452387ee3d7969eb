"""A cohort on several processes: the same files, whatever becomes of the workers."""

from __future__ import annotations

import os
import pickle
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medtrans.errors import (
    FaultError,
    OutputError,
    PackageError,
    UnusualInputError,
    UsageError,
)
from medtrans.inference import cluster, translator
from medtrans.inference.cluster import (
    Case,
    SharedModel,
    device_of_worker,
    translate_case,
    translate_on_workers,
    workers_here,
)
from medtrans.inference.cohort import Unchanged, translate_cohort
from medtrans.inference.jobs import Job, jobs_from_manifest
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from tests import helpers

pytest.importorskip("distributed", reason="the extra cluster is not installed")


@pytest.fixture
def model(identity_model: Path) -> SharedModel:
    package = Translator.load(identity_model, "cpu").package
    return SharedModel(str(identity_model), package.sha256, "cpu", "auto")


def die_while_writing(flag: Path) -> None:
    """Arm a worker: the first to write leaves half a file, and is killed."""
    whole = translator.write_volume

    def half(voxels: Any, path: Path, *rest: Any, **options: Any) -> list[Path]:
        try:
            flag.touch(exist_ok=False)
        except FileExistsError:
            return whole(voxels, path, *rest, **options)
        path.with_name(f".medtrans-0123abcd-{path.name}").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    translator.write_volume = half


def test_a_killed_worker_and_a_rerun(model: SharedModel, tmp_path: Path) -> None:
    """Every output is there once and whole, with the bytes of a serial run."""
    manifest = helpers.write_cohort(tmp_path / "data", 6)
    here = Translator.load(model.name, "cpu")
    serial = jobs_from_manifest(manifest, "t1", tmp_path / "serial")
    translate_cohort(here, serial, Settings(), strict=True, on_done=lambda *_: None)

    jobs = jobs_from_manifest(manifest, "t1", tmp_path / "out")
    done: list[tuple[Job, Any]] = []
    counts: list[tuple[int, int]] = []

    def run(crew: Any) -> list[type]:
        done.clear()
        translate_on_workers(
            crew,
            model,
            jobs,
            Settings(),
            strict=True,
            on_done=lambda job, result: done.append((job, result)),
            on_volumes=lambda *count: counts.append(count),
        )
        assert sorted(job.path for job, _ in done) == [job.path for job in jobs]
        return [type(result) for _, result in done]

    with workers_here(2, "cpu") as client:
        client.run(die_while_writing, tmp_path / "killed")
        assert run(nullcontext(client)) == [Written] * 6
        assert counts == [(n, 6) for n in range(1, 7)]
        assert (tmp_path / "killed").exists()
        assert run(nullcontext(client)) == [Unchanged] * 6
    files = [
        path.relative_to(tmp_path / "serial") for path in helpers.files_below(tmp_path / "serial")
    ]
    assert [
        path.relative_to(tmp_path / "out") for path in helpers.files_below(tmp_path / "out")
    ] == files
    assert len(files) == 12
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "serial" / file).read_bytes()


class Inline:
    """Does what a cluster would, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            cluster, "results_of", lambda client, work, cases: enumerate(map(work, cases))
        )

    def run(self, model: SharedModel, jobs: list[Job], **options: Any) -> list[Any]:
        results: list[Any] = []
        translate_on_workers(
            nullcontext(),
            model,
            jobs,
            options.pop("settings", Settings()),
            on_done=lambda _, result: results.append(result),
            on_volumes=lambda *_: None,
            **options,
        )
        return results


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Inline:
    cluster._translator.cache_clear()
    return Inline(monkeypatch)


@pytest.fixture
def jobs(cohort: Path, tmp_path: Path) -> list[Job]:
    return jobs_from_manifest(cohort, "t1", tmp_path / "out")


def test_the_model_is_loaded_once(
    inline: Inline, model: SharedModel, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = Translator.load
    monkeypatch.setattr(Translator, "load", lambda *of: [loaded.append(of[0]), load(*of)][1])
    assert all(isinstance(r, Written) for r in inline.run(model, jobs, strict=False))
    assert loaded == [model.name]


def test_relative_paths_are_those_of_the_process_that_asks(
    inline: Inline,
    model: SharedModel,
    cohort: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = jobs_from_manifest(cohort, "t1", Path("here"))
    monkeypatch.setattr(
        cluster, "translate_case", lambda case: [os.chdir("/"), translate_case(case)][1]
    )
    results = inline.run(model, [jobs[0]], strict=True)
    assert results[0].outputs[0].parent == tmp_path / "here" / "sub-001"


def test_one_failure_and_strict(inline: Inline, model: SharedModel, jobs: list[Job]) -> None:
    missing = [jobs[0], replace(jobs[1], path=Path("/none.nii.gz")), jobs[2]]
    names = [type(result).__name__ for result in inline.run(model, missing, strict=False)]
    assert names == ["Written", "UnreadableFileError", "Written"]
    with pytest.raises(Exception, match=r"none\.nii\.gz"):
        inline.run(model, missing, strict=True)


def test_an_unusual_one_of_several_never_stops_the_others(
    inline: Inline, model: SharedModel, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "translate_case", lambda case: UnusualInputError("odd"))
    assert len(inline.run(model, jobs, strict=True)) == len(jobs)


def test_another_model_under_the_same_name(
    inline: Inline, model: SharedModel, jobs: list[Job]
) -> None:
    with pytest.raises(PackageError, match="their hashes differ"):
        inline.run(replace(model, sha256="0" * 64), jobs, strict=False)


def test_a_fault_comes_with_its_place_and_without_its_message(
    inline: Inline, model: SharedModel, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("Jane Doe")

    monkeypatch.setattr(Translator, "sample", broken)
    fault = translate_case(Case(jobs[0], Settings(), model))
    assert isinstance(fault, FaultError)
    fault = pickle.loads(pickle.dumps(fault))
    assert repr(fault.__cause__) == "RuntimeError('KeyError')"
    assert fault.__cause__.__traceback__.tb_next is not None


def test_one_gpu_for_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(cluster, "worker_number", lambda: 6)
    wanted = ["auto", "cuda", "cuda:1", "cpu"]
    assert [device_of_worker(name) for name in wanted] == ["cuda:2", "cuda:2", "cuda:1", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of_worker("auto") == "auto"


def test_as_many_workers_as_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[int, int]] = []
    monkeypatch.setattr(cluster, "usable_cores", lambda: 8)
    monkeypatch.setattr(cluster, "local_workers", lambda *a, **k: threads.append((*a, *k.values())))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=r"has 2 GPUs.*--workers 2, or --device cpu"):
        workers_here(3, "auto")
    workers_here(2, "cuda")
    workers_here(3, "cpu")
    workers_here(16, "cpu")
    assert threads == [(2, 4), (3, 2), (16, 1)]


def test_workers_of_a_scheduler_have_this_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "workers_of", lambda *asked: SimpleNamespace(asked=asked))
    assert cluster.workers_at("tcp://a:1").asked == ("tcp://a:1", cluster.__version__)


def test_one_command_at_a_time_in_a_folder(
    inline: Inline, model: SharedModel, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(case: Case) -> Any:
        translator = Translator.load(model.name, "cpu")
        translate_cohort(translator, jobs, Settings(), strict=True, on_done=lambda *_: None)

    monkeypatch.setattr(cluster, "translate_case", meanwhile)
    with pytest.raises(OutputError, match="another translation works in this folder"):
        inline.run(model, jobs, strict=False)
