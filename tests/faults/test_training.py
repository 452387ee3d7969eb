"""A training that is killed, stopped or short of disk loses nothing, and goes on the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medtrans.training.checkpoint import read_tensors
from medtrans.training.run import train
from tests import helpers
from tests.faults import soak
from tests.faults.children import in_child
from tests.faults.kills import kills
from tests.faults.trainings import WEIGHTS, look_into, small_pipeline, small_plan


def test_kills_lose_nothing(cohort: Path, tmp_path: Path) -> None:
    """Killed before every so-manieth change of the disk, through all parts of a run."""
    recipe = small_pipeline(iterations=3)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert in_child(lambda: train(small_plan(cohort, whole, recipe))) == 0
    steps: dict[str, int] = {}
    seen = []
    for n in kills(lambda: train(small_plan(cohort, out, recipe, resume=True)), step=41):
        found = look_into(out)
        assert found.unreadable == []
        assert all(found.steps[stage] >= step for stage, step in steps.items())
        steps = found.steps
        seen.append(n)
    assert len(seen) > 2
    assert steps
    found = look_into(out)
    assert (found.unreadable, found.leftovers) == ([], 0)
    assert helpers.digest(out / WEIGHTS) == helpers.digest(whole / WEIGHTS)


def test_full_disks_lose_nothing(tmp_path: Path) -> None:
    row = soak.disk_limits(tmp_path, count=3, seed=0, iterations=3)
    assert row[""] == "ok", row


# The command, whose noise stage takes so many seconds for a step from the 13th on.
SLOW = """
import sys, time
from medtrans.training import stages
from medtrans.cli.app import main
steps, seconds, original = 0, float(sys.argv.pop(1)), stages.noise_loss

def slow(*arguments):
    global steps
    steps += 1
    if steps == 13:
        print("slow", flush=True)
        time.sleep(seconds)
    return original(*arguments)

stages.noise_loss = slow
main()
"""
RECIPE = """
extends = "t1-to-t2"
[network]
channels = [4, 4]
blocks = 1
attention = [false, false]
norm_groups = 2
unshuffle = 2
[noise]
batch_size = 2
patch = [8, 8]
checkpoint_every = 10
[error]
iterations = 0
[look]
examples = 0
"""


@contextmanager
def slow_training(cohort: Path, folder: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The command in the middle of its 13th step; its folder is `folder`/run."""
    (folder / "mine.toml").write_text(RECIPE)
    command = [
        sys.executable, "-c", SLOW, str(seconds), "train", "--task", "t1-to-t2", "--manifest",
        str(cohort), "--pipeline", str(folder / "mine.toml"), "--device", "cpu",
        "--noise-iterations", "100", "--out", str(folder / "run"),
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    ) as job:  # fmt: skip
        assert job.stdout is not None
        assert job.stdout.readline() == "slow\n"
        try:
            yield job
        finally:
            job.kill()


@pytest.mark.parametrize(
    ("number", "times", "code", "step"),
    [(signal.SIGINT, 1, 130, 13), (signal.SIGTERM, 2, 143, 10)],
    ids=["one finishes the step", "two leave at once"],
)
def test_signals_save_and_exit_within_seconds(
    cohort: Path, tmp_path: Path, number: int, times: int, code: int, step: int
) -> None:
    with slow_training(cohort, tmp_path, 1.0 if times == 1 else 600.0) as job:
        start = time.monotonic()
        for _ in range(times):
            job.send_signal(number)
            time.sleep(0.3)
        _, said = job.communicate(timeout=60)
        took = time.monotonic() - start
    assert job.returncode == code, said
    assert "Traceback" not in said
    assert took < 30  # seconds, on a busy machine; else about two
    assert read_tensors(tmp_path / "run" / "noise" / "last.pt")["step"] == step
    found = look_into(tmp_path / "run")
    assert (found.unreadable, found.leftovers) == ([], 0)
    assert not (tmp_path / "run" / ".medtrans-lock").exists()
