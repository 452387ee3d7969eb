"""A training run: from a recipe and a manifest to a model package in RUN/model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medtrans.config.schema import Pipeline
from medtrans.config.terms import StageName
from medtrans.data.manifest import Manifest
from medtrans.errors import OutputError, TrainingError
from medtrans.networks.transfer import copy_matching, misfitting, relabelled
from medtrans.networks.unet import noise_network, residual_network
from medtrans.package.folder import RUN_MODEL
from medtrans.package.store import (
    ModelPackage,
    TrainedModel,
    load_package,
    save_package,
)
from medtrans.preprocessing.intensity import typical_profile
from medtrans.system.atomic import make_folder
from medtrans.system.devices import choose_device
from medtrans.system.progress import be_silent, say
from medtrans.system.signals import StopSignal
from medtrans.training.cache import VolumeCache
from medtrans.training.checkpoint import Weights
from medtrans.training.examples import (
    TrainingData,
    noise_examples,
    prepared,
    residual_examples,
    select_data,
)
from medtrans.training.loop import LAST, fit
from medtrans.training.noise_level import resolve_noise_level
from medtrans.training.noise_origin import (
    NoiseOrigin,
    noise_origin_in,
    noise_origin_of_model,
    noise_origin_of_run,
)
from medtrans.training.parallel import ALONE, Group
from medtrans.training.run_folder import read_settings, recipe_of, write_recipe, write_settings
from medtrans.training.stages import Stage, noise_stage, residual_stage
from medtrans.version import __version__


@dataclass(frozen=True)
class TrainingPlan:
    """What a run trains, on what, and where it writes.

    Attributes
    ----------
    pipeline : Pipeline
    manifest : Manifest
    out : Path
        The run's folder.
    stages : "all", "noise" or "residual"
    noise_from : Path or None
        A run, a model package or a folder with denoiser.toml, whose finished noise network is
        used instead of training one.
    initial : str, Path or None
        A model package, by name or folder, whose weights both stages start from.
    pairs : int or None
        How many subjects' pairs may be used; 0 for unpaired targets alone, None for all.
    seed : int
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
    cache : Path or None
        Where preprocessed volumes are kept; by default in `out`.
    """

    pipeline: Pipeline
    manifest: Manifest
    out: Path
    stages: Literal["all", "noise", "residual"] = "all"
    noise_from: Path | None = None
    pairs: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    initial: str | Path | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class _Run:
    """A plan with all that its steps need, found once.

    The plan's recipe says what the noise stage that it starts from is, and may still leave sigma
    to be chosen.
    """

    plan: TrainingPlan
    data: TrainingData
    cache: VolumeCache
    device: torch.device
    group: Group
    initial: ModelPackage | None
    origin: NoiseOrigin | None

    @property
    def pipeline(self) -> Pipeline:
        return self.plan.pipeline

    def with_pipeline(self, pipeline: Pipeline) -> _Run:
        return replace(self, plan=replace(self.plan, pipeline=pipeline))


def summarise(plan: TrainingPlan) -> dict[str, Any]:
    """Say what a run would do, without doing it (`--dry-run`)."""
    run = _checked(plan, ALONE)
    _goes_on(run)
    data, pipeline = run.data, run.pipeline
    return {
        "tasks": list(pipeline.tasks),
        "stages": plan.stages,
        "out": str(plan.out),
        "device": str(run.device),
        "unpaired_targets": {c: len(e) for c, e in data.targets.items()},
        "train_pairs": {str(t): len(p) for t, p in data.pairs.items()},
        "val_pairs": {str(t): len(p) for t, p in data.validation_pairs.items()},
        "noise_iterations": pipeline.noise.iterations,
        "residual_iterations": pipeline.residual.iterations,
        "seed": plan.seed,
    }


def train(plan: TrainingPlan, group: Group = ALONE) -> Path:
    """Train the plan's stages and return the model package's folder (or the noise stage's).

    Ctrl-C saves and stops; the same plan with `resume` goes on, and ends with the same weights,
    bit for bit on the same machine, as a run that was never stopped. Several processes call it
    with the same plan; the first of them writes.
    """
    if not group.leads:
        be_silent()
    run = _checked(plan, group)
    with group.leader_first():
        if group.leads:
            _claim_folder(run)
        # After run.json, which keeps what the recipe says, so that a resumed run compares equal.
        chosen = resolve_noise_level(run.pipeline, plan.manifest, run.cache, plan.seed)
    run = run.with_pipeline(chosen)
    # torchrun passes on the Ctrl-C that the terminal has already sent to every process.
    with StopSignal(patient=group.world > 1) as stop:
        noise = _noise_weights(run, stop)
        if plan.stages == "noise":
            return plan.out / "noise"
        with group.leader_first():
            stage = _residual(run, noise)
        _start_from_initial(run, stage.name, stage.network)
        residual = _fit(run, stage, stop)
    if group.leads:
        _save(run, noise, residual)
    return plan.out / RUN_MODEL


def _checked(plan: TrainingPlan, group: Group) -> _Run:
    """Find what the plan names, and refuse what cannot work before any volume is prepared."""
    if plan.stages == "noise" and plan.noise_from is not None:
        raise TrainingError(
            "There is no noise stage to train when it is taken from elsewhere: leave out --stage "
            "noise or --noise-from."
        )
    initial = None if plan.initial is None else load_package(plan.initial)
    origin = _noise_origin(plan, initial)
    plan = replace(plan, pipeline=_described(plan, initial, origin))
    cache = VolumeCache(plan.cache or plan.out / "cache", plan.pipeline)
    device = choose_device(plan.device)
    run = _Run(plan, _data(plan), cache, device, group, initial, origin)
    for name in _trained(plan):
        config = run.pipeline.stage(name)
        group.rows(config.batch_size, config.accumulate)
        _check_network(run, name)
    if origin is not None:
        origin.taken_over(run.pipeline)
    return run


def _noise_origin(plan: TrainingPlan, initial: ModelPackage | None) -> NoiseOrigin | None:
    """Find the noise stage that the run takes over, if it does not train one."""
    if "noise" in _trained(plan):
        return None
    if plan.noise_from is not None:
        return noise_origin_in(plan.noise_from)
    own = noise_origin_of_run(plan.out)
    return own or (None if initial is None else noise_origin_of_model(initial))


def _described(
    plan: TrainingPlan, initial: ModelPackage | None, origin: NoiseOrigin | None
) -> Pipeline:
    """Write into the recipe what its noise stage is, or starts from."""
    if origin is not None:
        return origin.described_in(plan.pipeline)
    start = None if initial is None else noise_origin_of_model(initial)
    return plan.pipeline if start is None else start.predicted_in(plan.pipeline)


def _data(plan: TrainingPlan) -> TrainingData:
    need_pairs = plan.stages != "noise" or plan.pipeline.noise.sees_source
    return select_data(plan.manifest, plan.pipeline, plan.pairs, plan.seed, need_pairs=need_pairs)


def _trained(plan: TrainingPlan) -> list[StageName]:
    """Name the stages that the run trains, in their order."""
    if plan.stages == "all":
        return ["noise", "residual"] if plan.noise_from is None else ["residual"]
    return [plan.stages]


def _check_network(run: _Run, name: StageName) -> None:
    """Refuse to train what cannot be, or a network that the initial weights do not fit."""
    if name == "noise" and run.pipeline.denoiser is not None:
        raise TrainingError(
            "The recipe's noise stage was trained elsewhere, by rules of its own, and cannot be "
            "trained here. Take it as it is with --noise-from MODEL or --stage residual, or "
            "choose another --pipeline."
        )
    network = {"noise": noise_network, "residual": residual_network}[name]
    started = _start_from_initial(run, name, network(run.pipeline, run.plan.seed))
    if run.initial is not None and not started:
        say(f"{run.initial.name} has no {name} stage of this kind: that stage starts afresh.")


def _save(run: _Run, noise: Weights | None, residual: Weights) -> None:
    volumes = {c: prepared(entries, run.cache) for c, entries in run.data.targets.items()}
    shown = [pair.source for pairs in run.data.pairs.values() for pair in pairs]
    model = TrainedModel(
        pipeline=run.pipeline,
        profiles={c: typical_profile(v.profile for v in found) for c, found in volumes.items()},
        residual=residual,
        noise=noise,
        masked_background=bool(shown) and all(run.cache.get(source).masked for source in shown),
        training=_record(run),
    )
    save_package(run.plan.out / RUN_MODEL, model)


def _noise_weights(run: _Run, stop: StopSignal) -> Weights | None:
    """Train, take over or leave out the noise stage."""
    if "noise" not in _trained(run.plan):
        if run.origin is None:
            say("No noise stage: the model will have fidelity mode only.")
            return None
        return run.origin.taken_over(run.pipeline)
    with run.group.leader_first():
        examples = noise_examples(run.data, run.cache, run.pipeline)
        if run.group.leads:
            write_recipe(run.plan.out / "noise", run.pipeline)
    seed = run.plan.seed
    stage = noise_stage(run.pipeline, examples.train, examples.val, seed, examples.pseudo)
    _start_from_initial(run, stage.name, stage.network)
    return _fit(run, stage, stop)


def _residual(run: _Run, noise: Weights | None) -> Stage:
    network = None
    if noise is not None:
        network = noise_network(run.pipeline, run.plan.seed)
        network.load_state_dict(noise)
        network = network.to(run.device).eval().requires_grad_(False)
    examples = residual_examples(run.data, run.cache, run.pipeline)
    return residual_stage(
        run.pipeline, examples.train, examples.val, run.plan.seed, network, examples.pseudo
    )


def _start_from_initial(run: _Run, name: StageName, network: nn.Module) -> bool:
    """Give a stage's network the weights of the model that the run starts from, if any."""
    package = run.initial
    if package is None:
        return False
    found = package.noise if name == "noise" else package.residual
    if found is None or (name == "noise" and package.pipeline.denoiser is not None):
        return False
    weights = found.state_dict()
    misfits = misfitting(network, weights)
    if misfits:
        raise TrainingError(
            f"The {name} network of the model '{package.name}' does not fit this recipe: "
            f"{misfits[0]} has another shape or is missing. Train with the model's own [network] "
            "and [slices], or without --from."
        )
    before, after = (
        p.targets if name == "noise" else p.tasks for p in (package.pipeline, run.pipeline)
    )
    copy_matching(network, relabelled(network, weights, before, after))
    return True


def _fit(run: _Run, stage: Stage, stop: StopSignal) -> Weights:
    plan, world = run.plan, run.group.world
    folder = plan.out / stage.name
    many = f" in {world} processes" if world > 1 else ""
    say(f"Training the {stage.name} stage on {run.device}{many}; checkpoints and logs in {folder}.")
    if not stage.validation:
        say("No val split: the last weights are kept, not the best. Add val subjects to the CSV.")
    return fit(
        stage,
        plan.pipeline,
        folder,
        seed=plan.seed,
        device=run.device,
        resume=plan.resume,
        stop=stop,
        group=run.group,
    )


def _claim_folder(run: _Run) -> None:
    """Make the run's folder, unless it is this very run that goes on."""
    if _goes_on(run):
        return
    if run.plan.resume:
        say(f"There is no run in {run.plan.out} to go on with: one starts there.")
    write_settings(make_folder(run.plan.out), _settings(run))


def _goes_on(run: _Run) -> bool:
    """Whether the run was begun in its folder and is resumed; refuses a folder of another run."""
    plan, settings = run.plan, _settings(run)
    before = read_settings(plan.out) if plan.resume else None
    if before is not None:
        before["pipeline"] = recipe_of(before, plan.out).model_dump(mode="json")
        changed = sorted(key for key in settings if before.get(key) != settings[key])
        if changed:
            raise TrainingError(
                f"{plan.out} was started with another {', '.join(changed)}. Resume with what it "
                "was started with, or train into a new folder."
            )
        return True
    if any((plan.out / stage / LAST).exists() for stage in _trained(plan)):
        raise OutputError(
            f"{plan.out} already holds a run. Add --resume to go on with it, or name a new folder."
        )
    return False


def _settings(run: _Run) -> dict[str, Any]:
    plan = run.plan
    manifest = hashlib.sha256(plan.manifest.path.read_bytes()).hexdigest()
    return {
        "pipeline": plan.pipeline.model_dump(mode="json"),
        "manifest_sha256": manifest,
        "pairs": plan.pairs,
        "seed": plan.seed,
        "stages": plan.stages,
        "initial": None if run.initial is None else run.initial.sha256,
        "noise_taken_over": None if run.origin is None else run.origin.sha256,
    }


def _record(run: _Run) -> dict[str, Any]:
    """Describe the training for the model card and `medtrans models`, naming no subject."""
    return {
        "medtrans_version": __version__,
        "unpaired_targets": {c: len(e) for c, e in run.data.targets.items()},
        "pairs": {str(t): len(p) for t, p in run.data.pairs.items()},
        "noise_iterations": run.pipeline.noise.iterations,
        "residual_iterations": run.pipeline.residual.iterations,
        "seed": run.plan.seed,
        "started_from": None if run.initial is None else run.initial.name,
    }
