"""`medtrans train`, and the recipe that its options make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtrans.config.recipes import load_pipeline, pipeline_from_dict, shipped_tasks
from medtrans.config.schema import Pipeline
from medtrans.config.terms import STAGES, Task
from medtrans.data.manifest import Manifest
from medtrans.errors import Interrupted, UsageError
from medtrans.package.store import load_package
from medtrans.system.devices import tune_process
from medtrans.training.parallel import joined, own_gpu
from medtrans.training.run import TrainingPlan, summarise, train

_STAGES = ("all", *STAGES)


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of `medtrans train`."""

    task: str | None
    manifest: Path
    out: Path
    pipeline: str | None
    stage: str
    noise_from: Path | None
    pairs: int | None
    iterations: Mapping[str, int | None]
    resume: bool
    seed: int
    device: str
    initial: str | None = None


def train_model(request: TrainRequest, dry_run: bool) -> dict[str, Any]:
    """Train, or with `dry_run` say what would be trained.

    Of several processes under torchrun only the first has something to say.
    """
    if request.stage not in _STAGES:
        raise UsageError(f"--stage is all, noise or residual, not '{request.stage}'.")
    plan = TrainingPlan(
        pipeline=requested_pipeline(request),
        manifest=Manifest.read(request.manifest),
        out=request.out,
        stages=request.stage,  # type: ignore[arg-type]
        noise_from=request.noise_from,
        pairs=request.pairs,
        seed=request.seed,
        device=own_gpu(request.device),
        resume=request.resume,
        initial=request.initial,
    )
    if dry_run:
        return summarise(plan)
    tune_process()
    with joined() as group:
        try:
            model = train(plan, group)
        except Interrupted:
            if group.leads:
                raise
    return {"model": str(model), "run": str(request.out)} if group.leads else {}


def _only(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: values[key]} if key in values else {}


def requested_pipeline(request: TrainRequest) -> Pipeline:
    """Read the recipe, and lay over it what the command line says.

    A model to start from brings its own recipe, since its weights fit no other network.
    """
    overrides: dict[str, Any] = {
        stage: {"iterations": count}
        for stage, count in request.iterations.items()
        if count is not None
    }
    if request.task is not None:
        overrides["tasks"] = [str(Task.parse(text)) for text in request.task.split(",")]
    if request.pipeline is not None:
        return load_pipeline(request.pipeline, overrides)
    if request.initial is not None:
        own = load_package(request.initial).pipeline.model_dump(mode="json")
        for stage in STAGES:
            own[stage] |= overrides.get(stage, {})
        return pipeline_from_dict({**own, **_only(overrides, "tasks")}, request.initial)
    if request.task is None:
        raise UsageError(
            "Which task? Give --task t1-to-t2 (several with commas), or a recipe with --pipeline."
        )
    first = overrides["tasks"][0]
    return load_pipeline(first if first in shipped_tasks() else "base", overrides)
