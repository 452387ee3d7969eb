"""Every function that writes, when the disk is full: a sentence, the old file, nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import SimpleITK
import torch
from torch import nn

from medtrans.cli.noise_level import _write_rows
from medtrans.cli.scores import write_scores
from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Entry, Manifest, write_manifest
from medtrans.report.index import Card, Index, save_index
from medtrans.report.page import Page, save_page
from medtrans.report.pictures import save_curves, save_grid
from medtrans.report.scene import Layer, Scene, arrange
from medtrans.report.still import save_picture
from medtrans.training import log as training_log
from medtrans.training.cache import VolumeCache
from medtrans.training.checkpoint import State, averaged, save_checkpoint, save_weights
from medtrans.training.log import TrainingLog
from medtrans.training.plan import TrainingPlan
from medtrans.training.run_folder import claimed, write_recipe
from medtrans.volumes import read_volume, write_volume
from tests import helpers
from tests.faults.limits import DONE, writing_at_most
from tests.volumes import builders

SENTENCE = "cannot be written|could not write"

Write = Callable[[Path, Path], object]
"""Called with a folder to write into, and one with inputs."""

RNG = np.random.default_rng(0)
TILE = RNG.random((40, 60)).astype(np.float32)


def state() -> State:
    network = nn.Linear(30, 20)
    return State(network, averaged(network, 0.9), torch.optim.AdamW(network.parameters()))


def pipeline() -> Pipeline:
    return helpers.tiny_pipeline()


def log(out: Path, _: Path) -> None:
    with mock.patch.object(training_log, "_tensorboard", return_value=None):
        rows = TrainingLog(out, 10**6)
    rows.training(1, {"loss": 0.5, "gradient_norm": 0.25, "learning_rate": 0.125})


def prepare(out: Path, inputs: Path) -> None:
    path = inputs / "t1.nii.gz"
    VolumeCache(out, pipeline()).get(Entry("s", "", "t1", path, "train"))


def claim(out: Path, inputs: Path) -> None:
    plan = TrainingPlan(pipeline(), Manifest.read(inputs / "manifest.csv"), out)
    with claimed(plan, {"pipeline": pipeline().model_dump(mode="json")}):
        pass


def result(out: Path, inputs: Path, kind: str, name: str) -> None:
    volume = read_volume(inputs / kind)
    noise = RNG.random(volume.shape).astype(np.float32)
    write_volume(noise, out / name, volume.meta["source"], builders.provenance())


def scene(inputs: Path) -> Scene:
    return arrange([Layer("source", "a", read_volume(inputs / "t1.nii.gz"))])


def page(out: Path, inputs: Path) -> None:
    save_page(out / "page.html", Page("title", scene(inputs), (), {"facts": {"a": "b"}}))


WRITES: dict[str, Write] = {
    "checkpoint": lambda out, _: save_checkpoint(out, state()),
    "weights": lambda out, _: save_weights(out / "best.pt", state().network.state_dict()),
    "large weights": lambda out, _: save_weights(out / "best.pt", {"a": torch.ones(200_000)}),
    "row of the log": log,
    "cache": prepare,
    "run": claim,
    "recipe of a stage": lambda out, _: write_recipe(out / "noise", pipeline()),
    "package": lambda out, _: helpers.save_model(out / "model", pipeline()),
    "nifti": lambda out, inputs: result(out, inputs, "t1.nii.gz", "a.nii.gz"),
    "nifti pair": lambda out, inputs: result(out, inputs, "t1.nii.gz", "a.hdr"),
    "mha": lambda out, inputs: result(out, inputs, "t1.mha", "a.mha"),
    "nrrd": lambda out, inputs: result(out, inputs, "t1.mha", "a.nrrd"),
    "dicom": lambda out, inputs: result(out, inputs, "series", "result"),
    "grid of pictures": lambda out, _: save_grid(out / "a.png", [[TILE]], ["a"]),
    "curves": lambda out, _: save_curves(out / "a.png", [0.1, 1.0], {"J": [0.2, 0.3]}, 0.1),
    "picture of volumes": lambda out, inputs: save_picture(out / "a.png", scene(inputs)),
    "page": page,
    "index of pages": lambda out, _: save_index(
        out, Index("title", "", {"Cases": [Card("a")] * 9})
    ),
    "manifest": lambda out, _: write_manifest(
        out / "manifest.csv", [{"subject": "s", "contrast": "t1", "path": "a.nii"}] * 5
    ),
    "phantoms": lambda out, _: helpers.write_cohort(out, 1),
    "noise level": lambda out, _: _write_rows(out / "a.csv", [{"sigma": 0.1, "J": 0.5}] * 9),
    "scores": lambda out, _: write_scores(out / "scores.csv", pd.DataFrame({"psnr": [1.0] * 99})),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def make_inputs(folder: Path) -> Path:
    """Write what the writers need."""
    image, affine = helpers.head()
    helpers.write_nifti(folder / "t1.nii.gz", image, affine)
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(image.T.astype(np.float32)), str(folder / "t1.mha")
    )
    builders.dicom_series(folder / "series")
    rows = [{"subject": "s", "contrast": "t1", "path": "t1.nii.gz"}]
    write_manifest(folder / "manifest.csv", rows)
    return folder


def sizes(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in helpers.files_below(folder)}


def contents(folder: Path) -> dict[Path, str]:
    return {path: helpers.digest(path) for path in helpers.files_below(folder)}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
class TestFullDisk:
    def test_new_files(self, tmp_path: Path, inputs: Path, write: Write) -> None:
        full = tmp_path / "full"
        full.mkdir()
        told = writing_at_most(20, lambda: write(full, inputs))
        assert told.startswith(str(full)), told
        assert re.search(SENTENCE, told), told
        assert "\n" not in told
        assert [path for path, size in sizes(full).items() if size] == []

    def test_files_that_are_there_stay_as_they_are(
        self, tmp_path: Path, inputs: Path, write: Write
    ) -> None:
        """The largest file is written by half."""
        write(tmp_path, inputs)
        before = contents(tmp_path)
        half = max(sizes(tmp_path).values()) // 2
        told = writing_at_most(half, lambda: write(tmp_path, inputs))
        assert re.search(SENTENCE, told) or told == DONE or "expected a new" in told, told
        assert contents(tmp_path) == before


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    told = writing_at_most(20, lambda: TrainingLog(tmp_path, 0))
    assert re.search(SENTENCE, told), told
