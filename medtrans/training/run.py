"""A training run: from a recipe and a manifest to a model package in RUN/model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medtrans import __version__
from medtrans.cache import VolumeCache
from medtrans.config import Pipeline, StageName
from medtrans.denoiser_config import DenoiserConfig
from medtrans.devices import choose_device
from medtrans.errors import OutputError, TrainingError
from medtrans.foreign_noise import DESCRIPTION, read_foreign_noise
from medtrans.intensity import typical_profile
from medtrans.manifest import Manifest
from medtrans.networks import (
    copy_matching,
    misfitting,
    noise_network,
    residual_network,
)
from medtrans.package import load_package, save_package
from medtrans.progress import be_silent, say
from medtrans.recipes import pipeline_from_dict
from medtrans.signals import StopSignal
from medtrans.training.checkpoint import Weights, read_tensors
from medtrans.training.examples import (
    TrainingData,
    noise_examples,
    prepared,
    residual_examples,
    select_data,
)
from medtrans.training.loop import BEST, LAST, fit
from medtrans.training.noise_level import resolve_noise_level
from medtrans.training.parallel import ALONE, Group
from medtrans.training.stages import Stage, noise_stage, residual_stage
from medtrans.volumes.atomic import replacing

_SETTINGS = "run.json"


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


def summarise(plan: TrainingPlan) -> dict[str, Any]:
    """Say what a run would do, without doing it (`--dry-run`)."""
    data = _data(plan)
    _check_initial(plan)
    return {
        "tasks": list(plan.pipeline.tasks),
        "stages": plan.stages,
        "out": str(plan.out),
        "device": str(choose_device(plan.device)),
        "unpaired_targets": {c: len(e) for c, e in data.targets.items()},
        "train_pairs": {str(t): len(p) for t, p in data.pairs.items()},
        "val_pairs": {str(t): len(p) for t, p in data.validation_pairs.items()},
        "noise_iterations": plan.pipeline.noise.iterations,
        "residual_iterations": plan.pipeline.residual.iterations,
        "seed": plan.seed,
    }


def _data(plan: TrainingPlan) -> TrainingData:
    need_pairs = plan.stages != "noise" or plan.pipeline.noise.sees_source
    return select_data(plan.manifest, plan.pipeline, plan.pairs, plan.seed, need_pairs=need_pairs)


def train(plan: TrainingPlan, group: Group = ALONE) -> Path:
    """Train the plan's stages and return the model package's folder (or the noise stage's).

    Ctrl-C saves and stops; the same plan with `resume` goes on, and ends with the same weights,
    bit for bit on the same machine, as a run that was never stopped. Several processes call it
    with the same plan; the first of them writes.
    """
    if not group.leads:
        be_silent()
    device = choose_device(plan.device)
    plan = _with_prediction(_with_foreign_denoiser(plan))
    data = _data(plan)
    _check_batches(plan, group)
    _check_initial(plan)
    cache = VolumeCache(plan.cache or plan.out / "cache", plan.pipeline)
    with group.leader_first():
        if group.leads:
            _claim_folder(plan)
        # After run.json, which keeps what the recipe says, so that a resumed run compares equal.
        chosen = resolve_noise_level(plan.pipeline, plan.manifest, cache, plan.seed)
    plan = replace(plan, pipeline=chosen)
    # torchrun passes on the Ctrl-C that the terminal has already sent to every process.
    with StopSignal(patient=group.world > 1) as stop:
        noise = _noise_weights(plan, data, cache, device, stop, group)
        if plan.stages == "noise":
            return plan.out / "noise"
        with group.leader_first():
            stage = _residual(plan, data, cache, noise, device)
        _start_from_initial(plan, stage.name, stage.network)
        residual = _fit(plan, stage, device, stop, group)
    if group.leads:
        _save(plan, data, cache, noise, residual)
    return plan.out / "model"


def _save(
    plan: TrainingPlan,
    data: TrainingData,
    cache: VolumeCache,
    noise: Weights | None,
    residual: Weights,
) -> None:
    volumes = {c: prepared(entries, cache) for c, entries in data.targets.items()}
    save_package(
        plan.out / "model",
        pipeline=plan.pipeline,
        profiles={c: typical_profile(v.profile for v in found) for c, found in volumes.items()},
        residual=residual,
        noise=noise,
        masked_background=all(v.masked for found in volumes.values() for v in found),
        training=_record(plan, data),
    )


def _noise_weights(
    plan: TrainingPlan,
    data: TrainingData,
    cache: VolumeCache,
    device: torch.device,
    stop: StopSignal,
    group: Group,
) -> Weights | None:
    """Train, load or leave out the noise stage."""
    if plan.noise_from is not None:
        return _foreign_noise(plan.noise_from)
    own = plan.out / "noise" / BEST
    if plan.stages == "residual":
        if own.is_file():
            return read_tensors(own)
        kept = None if plan.initial is None else load_package(plan.initial).noise
        if kept is None:
            say("No noise stage: the model will have fidelity mode only.")
        return None if kept is None else dict(kept.state_dict())
    with group.leader_first():
        examples = noise_examples(data, cache, plan.pipeline)
    stage = noise_stage(plan.pipeline, examples.train, examples.val, plan.seed, examples.pseudo)
    _start_from_initial(plan, stage.name, stage.network)
    return _fit(plan, stage, device, stop, group)


def _with_foreign_denoiser(plan: TrainingPlan) -> TrainingPlan:
    """Write into the recipe what a noise stage from elsewhere is, so that the model knows."""
    folder = plan.noise_from
    if folder is None or (folder / "noise" / BEST).is_file():
        return plan
    if (folder / DESCRIPTION).is_file():
        denoiser: DenoiserConfig | None = read_foreign_noise(folder)[0]
    else:
        denoiser = load_package(folder).pipeline.denoiser
    if denoiser is None:
        return plan
    recipe = {**plan.pipeline.model_dump(mode="json"), "denoiser": denoiser.model_dump()}
    return replace(plan, pipeline=pipeline_from_dict(recipe, str(folder)))


def _with_prediction(plan: TrainingPlan) -> TrainingPlan:
    """Have the noise stage predict what the one it comes from does: weights do not tell."""
    origin = _noise_origin(plan)
    if origin is None or origin.noise.prediction == plan.pipeline.noise.prediction:
        return plan
    predicted = origin.noise.prediction
    say(f"The noise stage predicts {predicted}, as the one it comes from does.")
    recipe = plan.pipeline.model_dump(mode="json")
    recipe["noise"]["prediction"] = predicted
    return replace(plan, pipeline=pipeline_from_dict(recipe, "the recipe"))


def _noise_origin(plan: TrainingPlan) -> Pipeline | None:
    """Give the recipe of the noise stage that the run takes over or starts from, if any."""
    folder = plan.noise_from
    if folder is None and plan.stages == "residual" and (plan.out / "noise" / BEST).is_file():
        folder = plan.out
    if folder is not None and (folder / DESCRIPTION).is_file():
        return None
    if folder is not None and (folder / "noise" / BEST).is_file():
        settings = folder / _SETTINGS
        return _recipe_of(_read_settings(settings), settings) if settings.is_file() else None
    source = folder or plan.initial
    package = None if source is None else load_package(source)
    return None if package is None or package.noise is None else package.pipeline


def _read_settings(path: Path) -> dict[str, Any]:
    """Read what a run was started with."""
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise TrainingError(
            f"{path} is damaged, so it cannot be told what run this is. Train into a new folder."
        ) from None
    return settings


def _recipe_of(settings: Mapping[str, Any], path: Path) -> Pipeline:
    return pipeline_from_dict(settings.get("pipeline", {}), str(path))  # may lack newer keys


def _foreign_noise(folder: Path) -> Weights:
    """Take the noise network of another run's folder, a model package or one from elsewhere."""
    if (folder / DESCRIPTION).is_file():
        return read_foreign_noise(folder)[1]
    best = folder / "noise" / BEST
    if best.is_file():
        return read_tensors(best)
    network = load_package(folder).noise
    if network is None:
        raise TrainingError(f"The model package {folder} has no noise stage to take over.")
    return dict(network.state_dict())


def _residual(
    plan: TrainingPlan,
    data: TrainingData,
    cache: VolumeCache,
    noise: Weights | None,
    device: torch.device,
) -> Stage:
    network = None
    if noise is not None:
        network = noise_network(plan.pipeline, plan.seed)
        try:
            network.load_state_dict(noise)
        except RuntimeError as error:
            raise TrainingError(
                "The noise stage does not fit the recipe's [network] or its target contrasts: "
                f"{str(error).splitlines()[-1].strip()}"
            ) from None
        network = network.to(device).eval().requires_grad_(False)
    examples = residual_examples(data, cache, plan.pipeline)
    return residual_stage(
        plan.pipeline, examples.train, examples.val, plan.seed, network, examples.pseudo
    )


def _check_batches(plan: TrainingPlan, group: Group) -> None:
    """Refuse batches that cannot be shared equally before any volume is prepared."""
    for name in _trained(plan):
        config = plan.pipeline.stage(name)
        group.rows(config.batch_size, config.accumulate)


def _check_initial(plan: TrainingPlan) -> None:
    """Refuse a model that does not fit before any volume is prepared."""
    networks = {"noise": noise_network, "residual": residual_network}
    for name in _trained(plan):
        network = networks[name](plan.pipeline, plan.seed)
        if plan.initial is not None and not _start_from_initial(plan, name, network):
            say(f"The model {plan.initial} has no {name} stage: that stage starts afresh.")


def _start_from_initial(plan: TrainingPlan, name: StageName, network: nn.Module) -> bool:
    """Give a stage's network the weights of the model that the run starts from, if any."""
    if plan.initial is None:
        return False
    package = load_package(plan.initial)
    found = package.noise if name == "noise" else package.residual
    if found is None:
        return False
    weights = found.state_dict()
    misfits = misfitting(network, weights)
    if misfits:
        raise TrainingError(
            f"The {name} network of the model '{package.name}' does not fit this recipe: "
            f"{misfits[0]} has another shape or is missing. Train with the model's own [network] "
            "and [slices], or without --from."
        )
    copy_matching(network, weights)
    return True


def _fit(
    plan: TrainingPlan, stage: Stage, device: torch.device, stop: StopSignal, group: Group
) -> Weights:
    folder = plan.out / stage.name
    many = f" in {group.world} processes" if group.world > 1 else ""
    say(f"Training the {stage.name} stage on {device}{many}; checkpoints and logs in {folder}.")
    if not stage.validation:
        say("No val split: the last weights are kept, not the best. Add val subjects to the CSV.")
    return fit(
        stage,
        plan.pipeline,
        folder,
        seed=plan.seed,
        device=device,
        resume=plan.resume,
        stop=stop,
        group=group,
    )


def _claim_folder(plan: TrainingPlan) -> None:
    """Make the run's folder, or check that a resumed run is the same run."""
    settings = _settings(plan)
    path = plan.out / _SETTINGS
    if plan.resume and path.is_file():
        before = _read_settings(path)
        before["pipeline"] = _recipe_of(before, path).model_dump(mode="json")
        changed = sorted(key for key in settings if before.get(key) != settings[key])
        if changed:
            raise TrainingError(
                f"{plan.out} was started with another {', '.join(changed)}. Resume with what it "
                "was started with, or train into a new folder."
            )
        return
    if any((plan.out / stage / LAST).exists() for stage in _trained(plan)):
        raise OutputError(
            f"{plan.out} already holds a run. Add --resume to go on with it, or name a new folder."
        )
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{plan.out} cannot be made ({error.strerror}).") from None
    with replacing(path) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _trained(plan: TrainingPlan) -> list[StageName]:
    return ["noise", "residual"] if plan.stages == "all" else [plan.stages]


def _settings(plan: TrainingPlan) -> dict[str, Any]:
    manifest = hashlib.sha256(plan.manifest.path.read_bytes()).hexdigest()
    return {
        "pipeline": plan.pipeline.model_dump(mode="json"),
        "manifest_sha256": manifest,
        "pairs": plan.pairs,
        "seed": plan.seed,
        "stages": plan.stages,
        "initial": None if plan.initial is None else load_package(plan.initial).sha256,
    }


def _record(plan: TrainingPlan, data: TrainingData) -> dict[str, Any]:
    """Describe the training for the model card and `medtrans models`, naming no subject."""
    return {
        "medtrans_version": __version__,
        "unpaired_targets": {c: len(e) for c, e in data.targets.items()},
        "pairs": {str(t): len(p) for t, p in data.pairs.items()},
        "noise_iterations": plan.pipeline.noise.iterations,
        "residual_iterations": plan.pipeline.residual.iterations,
        "seed": plan.seed,
        "started_from": None if plan.initial is None else load_package(plan.initial).name,
    }
