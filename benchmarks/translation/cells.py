"""One cell of the benchmark: train a method on a cohort's pairs, then score it on a split."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from benchmarks.translation.cohorts import Changes, Cohort, CohortData
from benchmarks.translation.methods import (
    Predict,
    averaged,
    cyclegan,
    drdd_predict,
    pix2pix,
    rddm,
    rddm_predict,
    regress_predict,
    regression,
)
from benchmarks.translation.scoring import Scores, score_subject
from medtrans.config.schema import Pipeline
from medtrans.config.terms import MODES, Mode
from medtrans.diffusion import Steps
from medtrans.errors import TrainingError
from medtrans.evaluate.baselines import ToneCurve
from medtrans.system.signals import StopSignal
from medtrans.training.checkpoint import BEST, read_tensors
from medtrans.training.data import StageExamples
from medtrans.training.loop import Execution, fit
from medtrans.training.stages import Stage, noise_stage, residual_stage

BASELINES = {
    "regression l1": regression("l1"),
    "regression l2": regression("l2"),
    "pix2pix": pix2pix,
    "cyclegan": cyclegan,
    "rddm": rddm,
}
LONGER = " x4"  # ends the name of a method, or variant, with four times the steps on pairs
_LONGER_TIMES = 4
_RDDM_STEPS = 4
_SECONDS = "cpu_seconds.txt"
_RECIPE = "recipe.json"
_UNPAIRED = ("cyclegan",)  # methods that take no notice of which volumes are pairs
_NO_RESUME = ("pix2pix", "cyclegan")  # their critics are in no checkpoint
_OWN_KEYS = ("start", "related", "method")  # of a variant; the others are of the recipe
_DEVICE = torch.device("cpu")


@dataclass(frozen=True)
class Cell:
    """What is trained: a method, or a variant of one, on so many pairs with a seed.

    A variant is changes to the recipe, and three keys of its own: `start`, changes to [residual]
    for a training on pseudo-pairs alone, from which the network starts; `related`, which adds the
    cohort's related tasks, with as many images as the task itself has; and `method`, where that is
    not DRDD.
    """

    cohort: Cohort
    method: str
    variant: Changes
    pairs: str
    seed: int
    modes: tuple[str, ...] = MODES

    @property
    def base(self) -> str:
        """The method or variant, whatever its budget."""
        return self.method.removesuffix(LONGER)

    @property
    def learner(self) -> str:
        """The method that a variant is one of."""
        return str(self.variant.get("method", self.base))

    @property
    def needs_pairs(self) -> bool:
        """Whether nothing is learnt without a pair: neither on pseudo-pairs nor at all."""
        learns_without = "start" in self.variant or self.learner in _UNPAIRED
        return self.learner == "tone curve" or (self.learner in BASELINES and not learns_without)

    @property
    def changes(self) -> Changes:
        """The variant's changes to the recipe."""
        changes = {k: v for k, v in self.variant.items() if k not in _OWN_KEYS}
        together = bool(self.variant.get("related") and self.cohort.related)
        times = (2 if together else 1) * (1 if self.method == self.base else _LONGER_TIMES)
        if together:
            changes["tasks"] = [str(self.cohort.task), *self.cohort.related]
        if times > 1:
            iterations = times * self.cohort.pipeline(changes).residual.iterations
            changes["residual"] = changes.get("residual", {}) | {"iterations": iterations}
        return changes

    @property
    def name(self) -> str:
        """The cell's folder, below the one of all."""
        return f"{self.cohort.name}/{self.method}/{self.pairs}/{self.seed}".replace(" ", "-")


def run_cell(cell: Cell, split: str, folder: Path) -> list[Scores]:
    """Train what is not trained yet, and score it; a row for each subject and mode."""
    pipeline = cell.cohort.pipeline(cell.changes)
    data = CohortData(cell.cohort, pipeline, folder)
    predictors = _predictors(cell, pipeline, data, folder)
    correlation = pipeline.sampling.correlation_length
    facts = {
        "iterations": pipeline.residual.iterations,
        "batch": pipeline.residual.batch_size,
        "train_seconds": _read_seconds(folder / cell.name),
    }
    return [
        {
            "subject": subject,
            "mode": mode,
            "network_calls": calls,
            **score_subject(predict, example, cell.seed, correlation),
            **facts,
        }
        for subject, example in data.scored(split)
        for (mode, calls), predict in predictors.items()
    ]


def _predictors(
    cell: Cell, pipeline: Pipeline, data: CohortData, folder: Path
) -> dict[tuple[str, int], Predict]:
    if cell.method == "identity":
        return {("", 0): lambda source, eps: source[:, source.shape[1] // 2][:, None]}
    if cell.method == "tone curve":
        return {("", 0): _tone_curve(cell, data)}
    if cell.learner in BASELINES:
        return _baseline(cell, pipeline, data, folder)
    return _drdd(cell, pipeline, data, folder)


def _baseline(
    cell: Cell, pipeline: Pipeline, data: CohortData, folder: Path
) -> dict[tuple[str, int], Predict]:
    network = _trained_baseline(cell, pipeline, data, folder)
    if cell.learner == "rddm":
        return {("", _RDDM_STEPS): rddm_predict(network, pipeline, _RDDM_STEPS)}
    number = pipeline.parsed_tasks.index(cell.cohort.task)
    return {("", 1): regress_predict(network, number)}


def _trained_baseline(cell: Cell, pipeline: Pipeline, data: CohortData, folder: Path) -> nn.Module:
    start = _start(cell, folder) if "start" in cell.variant else None
    if start is not None and cell.pairs == "none":
        return start
    stage = BASELINES[cell.learner](pipeline, data.balanced(cell.pairs, cell.seed), cell.seed)
    if start is not None:
        stage.network.load_state_dict(start.state_dict())
    resume = cell.learner not in _NO_RESUME
    return trained(stage, pipeline, folder / cell.name, cell.seed, resume=resume)


def _drdd(
    cell: Cell, pipeline: Pipeline, data: CohortData, folder: Path
) -> dict[tuple[str, int], Predict]:
    steps = {mode: _steps(mode, pipeline) for mode in cell.modes}
    residual, noise = trained_drdd(cell, pipeline, data, folder)
    predictors: dict[tuple[str, int], Predict] = {}
    for mode, taken in steps.items():
        over = mode.partition(" ")[2]
        plain = drdd_predict(residual, noise, pipeline, cell.cohort.task, taken)
        calls = (taken.residual + taken.noise) * {"": 1, "flips": 2, "x4": 4}[over]
        predictors[mode, calls] = averaged(plain, over) if over else plain
    return predictors


def trained_drdd(
    cell: Cell, pipeline: Pipeline, data: CohortData, folder: Path
) -> tuple[nn.Module, nn.Module | None]:
    """Train a cell's residual network, and its noise network where a mode or the recipe needs it.

    What an earlier call has trained is read.
    """
    needed = any(_steps(mode, pipeline).noise for mode in cell.modes)
    needed = needed or pipeline.residual.from_noise
    noise = _noise(cell, pipeline, data, folder) if needed else None
    return _residual(cell, pipeline, data, folder, noise), noise


def _steps(mode: str, pipeline: Pipeline) -> Steps:
    """Read "2+10", or a mode of the recipe with what `averaged` knows behind it."""
    if "+" in mode:
        return Steps(*map(int, mode.split("+")))
    return Steps(*pipeline.sampling.steps(cast(Mode, mode.partition(" ")[0])))


def _residual(
    cell: Cell, pipeline: Pipeline, data: CohortData, folder: Path, noise: nn.Module | None
) -> nn.Module:
    """Train the residual stage; its start on pseudo-pairs once for all numbers of pairs."""
    start = _start(cell, folder) if "start" in cell.variant else None
    if start is not None and cell.pairs == "none":
        return start
    examples = data.balanced(cell.pairs, cell.seed)
    stage = residual_stage(pipeline, examples._replace(val=()), cell.seed, noise)
    if start is not None:
        stage.network.load_state_dict(start.state_dict())
    return trained(stage, pipeline, folder / cell.name, cell.seed)


def _start(cell: Cell, folder: Path) -> nn.Module:
    """Train a network on pseudo-pairs alone, once for all cells that share it."""
    changes = {**cell.changes, "residual": {"pseudo_until": 1.0, **cell.variant["start"]}}
    pipeline = cell.cohort.pipeline(changes)
    examples = CohortData(cell.cohort, pipeline, folder).residual("none", cell.seed)
    build = BASELINES.get(cell.learner, residual_stage)
    stage = build(pipeline, StageExamples([], pseudo=examples.pseudo), cell.seed)
    start = f"start-{_fingerprint({k: v for k, v in changes.items() if k != 'noise'})}"
    if cell.learner in BASELINES:
        start = f"{cell.learner}-{start}".replace(" ", "-")
    return trained(stage, pipeline, folder / cell.cohort.name / start / str(cell.seed), cell.seed)


def _fingerprint(changes: Changes) -> str:
    return hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:8]


def _noise(cell: Cell, pipeline: Pipeline, data: CohortData, folder: Path) -> nn.Module:
    """Train the noise stage, once for all cells that share it."""
    examples = data.noise(cell.pairs, cell.seed)
    stage = noise_stage(pipeline, examples._replace(val=()), cell.seed)
    changes = _fingerprint({k: v for k, v in cell.changes.items() if k != "residual"})
    paired = pipeline.noise.sees_source and pipeline.noise.pseudo_until < 1
    pairs = cell.pairs if paired else "unpaired"
    name = f"{cell.cohort.name}/noise-{changes}/{pairs}/{cell.seed}".replace(" ", "-")
    return trained(stage, pipeline, folder / name, cell.seed)


def trained(
    stage: Stage, pipeline: Pipeline, folder: Path, seed: int, *, resume: bool = True
) -> nn.Module:
    """Train a stage, or read what an earlier call has trained; keeps the CPU time beside it.

    Returns the stage's network, ready to translate. Without `resume` a training that was stopped
    starts afresh. Raises `TrainingError` where the folder's training followed another recipe.
    """
    _claim_folder(folder, stage, pipeline)
    if not (folder / BEST).is_file():  # there is no validation, so it comes last
        start = time.process_time()
        with StopSignal() as stop:
            fit(stage, folder, Execution(seed, _DEVICE, stop, resume))
        (folder / _SECONDS).write_text(f"{time.process_time() - start:.1f}")
    stage.network.load_state_dict(read_tensors(folder / BEST))
    return stage.network.eval().requires_grad_(False)


def _claim_folder(folder: Path, stage: Stage, pipeline: Pipeline) -> None:
    """Write down what a stage is trained by, or check that it is what is there."""
    others = {"noise", "residual", "sampling"} - {stage.name}
    recipe = json.dumps(pipeline.model_dump(mode="json", exclude=others), indent=2)
    path = folder / _RECIPE
    if folder.exists() and (not path.is_file() or path.read_text() != recipe):
        raise TrainingError(
            f"{folder} was trained by another recipe. Delete it, with its rows, or give another "
            "--folder and --results."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe)


def _read_seconds(folder: Path) -> float | None:
    path = folder / _SECONDS
    return float(path.read_text()) if path.is_file() else None


def _tone_curve(cell: Cell, data: CohortData) -> Predict:
    """E[target | source] over the training pairs; what has no pair has no curve."""

    def voxels() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for example in data.residual(cell.pairs, cell.seed).train:
            source, target = (np.load(example.volumes[k].path) for k in ("source", "target"))
            chosen = list(example.lead.occupied)
            inside = target[chosen] > -1
            yield source[chosen][inside], target[chosen][inside]

    curve = ToneCurve.fit(voxels())
    return lambda source, eps: torch.from_numpy(
        curve(source[:, source.shape[1] // 2][:, None].numpy())
    )
