"""A training run: from a recipe and a manifest to a model package in RUN/model."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from medtrans.system.progress import be_silent, say
from medtrans.system.signals import StopSignal
from medtrans.training.assembly import (
    assembled_noise_stage,
    assembled_residual_stage,
    kept_residual,
    with_sigma_chosen,
)
from medtrans.training.checkpoint import Weights
from medtrans.training.loop import Execution, fit
from medtrans.training.packaging import save_model
from medtrans.training.page import run_page
from medtrans.training.parallel import ALONE, Group, restarted
from medtrans.training.plan import TrainingPlan
from medtrans.training.run_folder import claimed, goes_on, write_recipe
from medtrans.training.setup import TrainingSetup, set_up
from medtrans.training.stages import Stage


def train(plan: TrainingPlan, group: Group = ALONE) -> Path:
    """Train the plan's stages.

    Ctrl-C and SIGTERM save and stop a stage, and act at once between the stages, where nothing is
    lost; the same plan with `resume` goes on, and ends with the same weights, bit for bit on the
    same machine, as a run that was never stopped. Several processes call it
    with the same plan; the first of them writes. Processes that torchrun has started anew go on
    without `resume`.

    Parameters
    ----------
    plan : TrainingPlan
    group : Group
        The processes that train together.

    Returns
    -------
    Path
        The model package's folder; of a run of the noise stage alone, that stage's.

    Raises
    ------
    MedtransError
        What `set_up`, `claimed` and `fit` raise, and a `FileError` for a volume that cannot be
        prepared.
    """
    if not group.leads:
        be_silent()
    plan = replace(plan, resume=plan.resume or restarted())
    setup = set_up(plan, group)
    with ExitStack() as claims:
        with group.leader_first():
            if group.leads:
                claims.enter_context(claimed(setup.plan, setup.settings))
            setup = with_sigma_chosen(setup)
        # torchrun passes on the Ctrl-C that the terminal has already sent to every process.
        stop = StopSignal(patient=group.world > 1)
        with run_page(setup) as page:
            return _trained(
                setup, Execution(plan.seed, setup.device, stop, plan.resume, group, page)
            )


def _trained(setup: TrainingSetup, execution: Execution) -> Path:
    plan, group = setup.plan, setup.group
    noise = _noise_weights(setup, execution)
    if plan.stages == "noise":
        return plan.stage_folder("noise")
    residual = _residual_weights(setup, execution, noise)
    if group.leads:
        save_model(setup, noise, residual)
    return plan.model_folder


def summarise(plan: TrainingPlan) -> dict[str, object]:
    """Say what a run would do, without doing it (`--dry-run`); raises what `train` would."""
    setup = set_up(plan, ALONE)
    goes_on(setup.plan, setup.settings)
    return {"out": str(plan.out), **described(setup)}


def described(setup: TrainingSetup) -> dict[str, object]:
    """Say what a run would train, on what and for how long."""
    plan, data, pipeline = setup.plan, setup.data, setup.pipeline
    return {
        "tasks": list(pipeline.tasks),
        "stages": plan.stages,
        "device": str(setup.device),
        "unpaired_targets": {c: len(e) for c, e in data.targets.items()},
        "train_pairs": {str(t): len(p) for t, p in data.pairs.items()},
        "val_pairs": {str(t): len(p) for t, p in data.validation_pairs.items()},
        "noise_iterations": pipeline.noise.iterations,
        "residual_iterations": setup.residual_iterations,
        "seed": plan.seed,
    }


def _noise_weights(setup: TrainingSetup, execution: Execution) -> Weights | None:
    """Train, take over or leave out the noise stage."""
    plan, group = setup.plan, execution.group
    if "noise" not in plan.trained:
        if setup.taken_over is None:
            say("No noise stage: the model will have fidelity mode only.")
        return setup.taken_over
    with group.leader_first():
        stage = assembled_noise_stage(setup)
        if group.leads:
            write_recipe(plan.stage_folder(stage.name), setup.pipeline)
    return _fit(stage, plan, execution)


def _residual_weights(setup: TrainingSetup, execution: Execution, noise: Weights | None) -> Weights:
    """Train the residual stage, or keep the model's."""
    if setup.keeps_residual:
        say("No pairs: the residual stage stays that of the model.")
        return kept_residual(setup)
    with execution.group.leader_first():
        stage = assembled_residual_stage(setup, noise)
    return _fit(stage, setup.plan, execution)


def _fit(stage: Stage, plan: TrainingPlan, execution: Execution) -> Weights:
    folder, world = plan.stage_folder(stage.name), execution.group.world
    many = f" in {world} processes" if world > 1 else ""
    say(
        f"Training the {stage.name} stage on {execution.device}{many}; checkpoints and logs in "
        f"{folder}, a page to look at in {plan.page}."
    )
    if not stage.validation.examples:
        say("No val split: the last weights are kept, not the best. Add val subjects to the CSV.")
    return fit(stage, folder, execution)
