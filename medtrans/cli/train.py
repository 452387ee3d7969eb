"""`medtrans train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medtrans.cli.recipe import RecipeRequest
from medtrans.config.terms import STAGE_CHOICES, StageChoice
from medtrans.data.manifest import Manifest
from medtrans.errors import Interrupted, UsageError
from medtrans.system.devices import memory_errors, tune_process
from medtrans.training.parallel import joined, own_gpu, restarted
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import summarise, train

LESS_MEMORY = (
    "Smaller volumes, a smaller patch or narrower network.channels in the recipe need less; what "
    "is saved is kept, and --resume goes on with it."
)


@dataclass(frozen=True)
class TrainRequest:
    """What `medtrans train` is asked for.

    Attributes
    ----------
    recipe : RecipeRequest
        Its model, if it names one, is what the run starts from.
    manifest, out : Path
        The CSV to read, and the run's folder.
    stage : "all", "noise" or "residual"
    noise_from : Path or None
        Where a finished noise stage is taken from.
    pairs : int or None
        How many subjects' pairs to use; None for all.
    seed : int
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
    """

    recipe: RecipeRequest
    manifest: Path
    out: Path
    stage: StageChoice = "all"
    noise_from: Path | None = None
    pairs: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False

    def plan(self) -> TrainingPlan:
        """Read the recipe and the manifest."""
        return TrainingPlan(
            pipeline=self.recipe.load(),
            manifest=Manifest.read(self.manifest),
            out=self.out,
            stages=self.stage,
            noise_from=self.noise_from,
            pairs=self.pairs,
            seed=self.seed,
            device=own_gpu(self.device),
            resume=self.resume,
            initial=self.recipe.initial,
        )


def parse_stage(text: str) -> StageChoice:
    """Read the stages to train; raises `UsageError` for another word."""
    for choice in STAGE_CHOICES:
        if text == choice:
            return choice
    raise UsageError(f"--stage is all, noise or residual, not '{text}'.")


def train_model(request: TrainRequest, dry_run: bool) -> dict[str, object]:
    """Train, or with `dry_run` say what would be trained.

    Of several processes under torchrun only the first has something to say.

    Raises
    ------
    MedtransError
        What `medtrans.training.run.train` raises.
    """
    plan = request.plan()
    if dry_run:
        return summarise(plan)
    if not (plan.resume or restarted()):
        plan.manifest.verify()
    tune_process()
    with joined() as group, memory_errors("Training", LESS_MEMORY):
        try:
            model = train(plan, group)
        except Interrupted:
            if group.leads:
                raise
    return {"model": str(model), "run": str(request.out)} if group.leads else {}
