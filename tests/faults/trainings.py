"""A small training to break: its data and plan, and what must be true of its folder at any time."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest
from medtrans.errors import MedtransError
from medtrans.package.store import load_package
from medtrans.training.checkpoint import BEST, LAST, PREVIOUS, read_tensors
from medtrans.training.plan import TrainingPlan
from tests import helpers

with suppress(ImportError):  # once for all children, which take seconds for it
    import torch.utils.tensorboard  # noqa: F401

WEIGHTS = Path("model") / "models" / "model.safetensors"


def small_pipeline(iterations: int = 12) -> Pipeline:
    """A recipe that saves and validates at almost every step, so that a kill often meets both."""
    stage = {
        "iterations": iterations,
        "checkpoint_every": 1,
        "validate_every": 2,
        "validation_slices": 1,
        "patch": [8, 8],
    }
    return helpers.tiny_pipeline(noise=stage, residual=stage)


def small_plan(manifest: Path, out: Path, pipeline: Pipeline, **options: Any) -> TrainingPlan:
    return TrainingPlan(pipeline, Manifest.read(manifest), out, device="cpu", **options)


@dataclass(frozen=True)
class Found:
    """What a look into a run's folder shows.

    Attributes
    ----------
    steps : dict
        Stage -> step of the newest checkpoint that loads.
    unreadable : list of str
        Files under their final name that do not load.
    leftovers : int
        Temporary files.
    """

    steps: dict[str, int]
    unreadable: list[str]
    leftovers: int


def look_into(out: Path) -> Found:
    """Load every file of a run; changes nothing."""
    steps: dict[str, int] = {}
    unreadable = []
    leftovers = [path for path in out.rglob(".medtrans-*") if path.name != ".medtrans-lock"]
    for path in helpers.files_below(out):
        if any(part.startswith(".medtrans-") for part in path.relative_to(out).parts):
            continue
        try:
            step = _step_of(path)
        except (MedtransError, ValueError, OSError, EOFError) as error:
            unreadable.append(f"{path}: {error}")
            continue
        if step is not None:
            steps[path.parent.name] = max(step, steps.get(path.parent.name, 0))
    if (out / "model").is_dir():
        try:
            load_package(out / "model")
        except MedtransError as error:
            unreadable.append(str(error))
    return Found(steps, unreadable, len(leftovers))


def _step_of(path: Path) -> int | None:
    """Load a file; of a checkpoint return the step."""
    if path.name in (LAST, PREVIOUS, BEST):
        step = read_tensors(path).get("step")
        return None if step is None else int(step)
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".csv":
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            raise ValueError("its last row is not whole")
    return None
