"""A plan with all that its steps need, looked up once; what cannot work is refused here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch

from medtrans.config.schema import Pipeline
from medtrans.errors import TrainingError
from medtrans.package.store import ModelPackage, load_package
from medtrans.system.devices import choose_device
from medtrans.training.cache import VolumeCache
from medtrans.training.checkpoint import Weights
from medtrans.training.examples import TrainingData, select_data
from medtrans.training.initial import require_trainable
from medtrans.training.noise_origin import (
    NoiseOrigin,
    noise_origin_in,
    noise_origin_of_model,
    noise_origin_of_run,
)
from medtrans.training.parallel import Group
from medtrans.training.plan import TrainingPlan
from medtrans.training.run_folder import Settings

_SHOWN = ("volume", "slices", "contrasts", "diffusion")  # of a recipe: what a network is shown


@dataclass(frozen=True)
class TrainingSetup:
    """A plan with all that its steps need.

    Attributes
    ----------
    plan : TrainingPlan
        Its recipe says what the noise stage is, or starts from, and may still leave sigma to be
        chosen.
    data : TrainingData
    cache : VolumeCache
    device : torch.device
    group : Group
    initial : ModelPackage or None
        The model whose weights both stages start from.
    taken_over : dict of Tensor or None
        The weights of a finished noise stage, when the run takes one over.
    settings : Settings
        What the run is started with, which a resumed run agrees with.
    """

    plan: TrainingPlan
    data: TrainingData
    cache: VolumeCache
    device: torch.device
    group: Group
    initial: ModelPackage | None
    taken_over: Weights | None
    settings: Settings

    @property
    def pipeline(self) -> Pipeline:
        """The plan's recipe."""
        return self.plan.pipeline

    @property
    def keeps_residual(self) -> bool:
        """Whether the residual stage stays that of the model, which does the tasks, for no pairs.

        Pseudo-pairs teach a network that knows nothing; to one that was trained on pairs they do
        harm (docs/adapt.md). It is trained on them where the recipe shows it other images.
        """
        if self.initial is None or any(self.data.pairs.values()):
            return False
        ours, before = self.pipeline, self.initial.pipeline
        same = all(getattr(ours, part) == getattr(before, part) for part in _SHOWN)
        return same and set(ours.tasks) <= set(before.tasks)

    @property
    def residual_iterations(self) -> int:
        """How many steps the residual stage is trained."""
        return 0 if self.keeps_residual else self.pipeline.residual.iterations

    def with_pipeline(self, pipeline: Pipeline) -> TrainingSetup:
        """Return the setup with another recipe; `settings` keep the one that it started with."""
        return replace(self, plan=replace(self.plan, pipeline=pipeline))


def set_up(plan: TrainingPlan, group: Group) -> TrainingSetup:
    """Look up what the plan names, and refuse what cannot work before any volume is prepared.

    Parameters
    ----------
    plan : TrainingPlan
    group : Group
        The processes that train together.

    Raises
    ------
    ManifestError
        When a target contrast has no volume, or there is no pair although some are needed.
    PackageError
        When a model that the plan names is missing or damaged.
    TrainingError
        When the plan contradicts itself, or a noise stage or initial weights do not fit it.
    UsageError
        When the device is unknown, or not there.
    """
    if plan.stages == "noise" and plan.noise_from is not None:
        raise TrainingError(
            "There is no noise stage to train when it is taken from elsewhere: leave out --stage "
            "noise or --noise-from."
        )
    initial = None if plan.initial is None else load_package(plan.initial)
    origin = _noise_origin(plan, initial)
    plan = replace(plan, pipeline=_described(plan, initial, origin))
    pipeline, device = plan.pipeline, choose_device(plan.device)
    data = select_data(
        plan.manifest, pipeline.parsed_tasks, plan.pairs, plan.seed, need_pairs=plan.needs_pairs
    )
    for stage in plan.trained:
        config = pipeline.stage(stage)
        group.rows(config.batch_size, config.accumulate)
        require_trainable(stage, pipeline, initial, plan.seed)
    return TrainingSetup(
        plan=plan,
        data=data,
        cache=VolumeCache(plan.cache_folder, pipeline),
        device=device,
        group=group,
        initial=initial,
        taken_over=None if origin is None else origin.taken_over(pipeline),
        settings=_settings(plan, initial, origin),
    )


def _noise_origin(plan: TrainingPlan, initial: ModelPackage | None) -> NoiseOrigin | None:
    """Find the noise stage that the run takes over, if it does not train one."""
    if "noise" in plan.trained:
        return None
    if plan.noise_from is not None:
        return noise_origin_in(plan.noise_from)
    of_this_run = noise_origin_of_run(plan.out)
    return of_this_run or (None if initial is None else noise_origin_of_model(initial))


def _described(
    plan: TrainingPlan, initial: ModelPackage | None, origin: NoiseOrigin | None
) -> Pipeline:
    """Write into the recipe what its noise stage is, or starts from."""
    if origin is not None:
        return origin.described_in(plan.pipeline)
    start = None if initial is None else noise_origin_of_model(initial)
    return plan.pipeline if start is None else start.predicted_in(plan.pipeline)


def _settings(
    plan: TrainingPlan, initial: ModelPackage | None, origin: NoiseOrigin | None
) -> Settings:
    return {
        "pipeline": plan.pipeline.model_dump(mode="json"),
        "manifest_sha256": hashlib.sha256(plan.manifest.path.read_bytes()).hexdigest(),
        "pairs": plan.pairs,
        "seed": plan.seed,
        "stages": plan.stages,
        "initial": None if initial is None else initial.sha256,
        "noise_taken_over": None if origin is None else origin.sha256,
    }
