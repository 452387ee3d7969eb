"""A few steps of each stage at the recipe's size: what a whole run will take on this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from medtrans.config.terms import StageName
from medtrans.system.signals import StopSignal
from medtrans.training.assembly import assembled_noise_stage, assembled_residual_stage
from medtrans.training.cache import VolumeCache
from medtrans.training.examples import TrainingData
from medtrans.training.loop import Execution, timed_steps
from medtrans.training.recipe import with_sigma
from medtrans.training.setup import TrainingSetup

_ANY_SIGMA = 0.3  # costs what every other one does
_WARM_UP = 1  # the first step also starts the readers and chooses kernels


class Estimate(NamedTuple):
    """What a stage will take, without its validations."""

    stage: StageName
    seconds_per_step: float
    steps: int
    hours: float


def rehearse(setup: TrainingSetup, folder: Path, steps: int) -> list[Estimate]:
    """Time a few steps of each stage that the run trains, on one pair or target.

    Parameters
    ----------
    setup : TrainingSetup
    folder : Path
        For prepared volumes; to be removed after.
    steps : int
        Of each stage.
    """
    small = _on_little(setup, folder)
    execution = Execution(setup.plan.seed, setup.device, StopSignal())
    found = []
    for name in setup.plan.trained:
        stage = (
            assembled_noise_stage(small)
            if name == "noise"
            else assembled_residual_stage(small, None)
        )
        seconds = timed_steps(stage, execution, steps + _WARM_UP)
        each = float(np.median(seconds[_WARM_UP:]))
        total = stage.config.iterations
        found.append(Estimate(name, each, total, each * total / 3600))
    return found


def peak_memory_gb(device: torch.device) -> float:
    """Return the most memory that this process has had so far: the GPU's, or else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def _on_little(setup: TrainingSetup, folder: Path) -> TrainingSetup:
    data, pipeline = setup.data, setup.pipeline
    little = TrainingData(
        {contrast: entries[:1] for contrast, entries in data.targets.items()},
        {contrast: [] for contrast in data.targets},
        {task: pairs[:1] for task, pairs in data.pairs.items()},
        {task: [] for task in data.pairs},
    )
    if pipeline.diffusion.sigma == "auto":
        pipeline = with_sigma(pipeline, _ANY_SIGMA)
    small = replace(setup, data=little, cache=VolumeCache(folder, pipeline))
    return small.with_pipeline(pipeline)
