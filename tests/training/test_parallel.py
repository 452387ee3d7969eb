"""Training in two processes gives the weights of training in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import medtrans
from medtrans.config.recipes import load_pipeline
from medtrans.data.manifest import Manifest
from medtrans.errors import TrainingError
from medtrans.package.store import load_package
from medtrans.training.checkpoint import read_tensors
from medtrans.training.parallel import ALONE, Group, joined, own_gpu
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train
from tests import helpers

WORKER = Path(__file__).with_name("in_parallel.py")
KILLED = Path(__file__).with_name("killed_rank.py")
RECIPE = """
extends = "t1-to-t2"
[network]
channels = [4, 4]
blocks = 1
attention = [false, false]
norm_groups = 2
unshuffle = 2
[residual]
iterations = 10
batch_size = 4
patch = [8, 8]
precision = "fp32"
checkpoint_every = 2
[error]
iterations = 0
[look]
examples = 0
"""


@pytest.fixture(scope="module")
def recipe() -> Any:
    stage = {"batch_size": 4, "accumulate": 2}
    return helpers.tiny_pipeline(noise=stage, residual=stage)


@pytest.fixture(scope="module")
def shared(cohort: Path, recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run's folder, and what its two processes said."""
    out = tmp_path_factory.mktemp("parallel") / "run"
    options = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    given = (str(cohort), str(out), recipe.model_dump_json())
    done = subprocess.run(
        [sys.executable, *options, str(WORKER), *given],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(medtrans.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]  # Gloo prints, too
    return out, [json.loads(line) for line in lines], done.stderr


def test_the_weights_are_those_of_one_process(
    shared: Any, cohort: Path, recipe: Any, tmp_path: Path
) -> None:
    out, _, _ = shared
    whole = helpers.tiny_pipeline(noise={"batch_size": 4}, residual={"batch_size": 4})
    train(TrainingPlan(whole, Manifest.read(cohort), tmp_path / "one", device="cpu"))
    for stage in ("noise", "residual"):
        ours, alone = (read_tensors(p / stage / "last.pt") for p in (out, tmp_path / "one"))
        assert ours["step"] == alone["step"] == recipe.stage(stage).iterations
        for name, weights in alone["network"].items():
            torch.testing.assert_close(ours["network"][name], weights, rtol=0, atol=1e-5)
    assert load_package(out / "model").noise is not None


def test_ctrl_c_in_one_stops_and_saves_all(shared: Any) -> None:
    _, lines, _ = shared
    stopped = {line["rank"]: line["stopped"] for line in lines if "stopped" in line}
    assert set(stopped) == {0, 1}
    assert all("Saved at noise step 2." in text for text in stopped.values())


def test_only_the_first_speaks(shared: Any) -> None:
    _, lines, said = shared
    assert {line["rank"] for line in lines if "model" in line} == {0, 1}
    assert said.count("Training the noise stage on cpu in 2 processes") == 2  # begun and resumed
    assert said.count("Training the residual stage") == 1


def test_after_kills_it_goes_on_from_the_last_checkpoint(cohort: Path, tmp_path: Path) -> None:
    """One process is killed, then the one that writes; nobody types --resume."""
    recipe, out = tmp_path / "mine.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    restarting = ("--nproc_per_node=2", "--max-restarts=2", "--monitor-interval=0.1")
    options = ("-m", "torch.distributed.run", "--standalone", *restarting)
    given = (str(cohort), str(out), str(recipe))
    done = subprocess.run(
        [sys.executable, *options, str(KILLED), *given],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(medtrans.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("Training the residual stage on cpu in 2 processes") == 3
    assert "Another process of this training has ended" in done.stderr
    assert "fault of medtrans" not in done.stderr
    read = Manifest.read(cohort)
    whole = TrainingPlan(
        load_pipeline(recipe), read, tmp_path / "one", stages="residual", device="cpu"
    )
    train(whole)
    ours, alone = (read_tensors(p / "residual" / "last.pt") for p in (out, tmp_path / "one"))
    assert ours["step"] == alone["step"] == 10
    for name, weights in alone["network"].items():
        torch.testing.assert_close(ours["network"][name], weights, rtol=0, atol=1e-5)
    _, *rows = (out / "residual" / "training.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["10"]
    assert load_package(out / "model").noise is None


def test_shares_are_equal() -> None:
    rows = [Group(rank, 2).rows(8).tolist() for rank in (0, 1)]
    assert rows == [[0, 2, 4, 6], [1, 3, 5, 7]]
    with pytest.raises(TrainingError, match=r"batch_size is 6; for 2 processes.*multiple of 4"):
        Group(0, 2).rows(6, accumulate=2)


def test_one_process_is_a_group() -> None:
    with joined() as group:
        assert group == ALONE
        assert group.leads
        assert group.agree(None) is None
        assert group.agree(2) == 2
        assert group.average(nn.Linear(1, 1), torch.tensor(3.0)) == 3


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_gpu("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [own_gpu(d) for d in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:3",
        "cuda:3",
        "cuda:1",
        "cpu",
    ]
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(TrainingError, match=r"process 5 here.*no GPU.*--nproc_per_node=4"):
        own_gpu("auto")
