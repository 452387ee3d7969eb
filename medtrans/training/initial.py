"""The model that a run starts from, if it does: its networks' weights, where they fit."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from medtrans.config.schema import Pipeline
from medtrans.config.terms import StageName
from medtrans.errors import TrainingError
from medtrans.networks.transfer import copy_matching, misfitting, relabelled
from medtrans.networks.unet import noise_network, residual_network
from medtrans.package.store import ModelPackage
from medtrans.system.progress import say


def start_from(
    initial: ModelPackage | None, stage: StageName, network: nn.Module, pipeline: Pipeline
) -> bool:
    """Give a stage's network the weights of the model that the run starts from.

    Parameters
    ----------
    initial : ModelPackage or None
        None when the run starts afresh.
    stage : "noise" or "residual"
    network : Module
        As `noise_network` or `residual_network` builds it; changed in place.
    pipeline : Pipeline
        What it is trained by.

    Returns
    -------
    bool
        False when there is no model, or it has no such stage: then the network stays as it is.

    Raises
    ------
    TrainingError
        When the weights do not fit the network.
    """
    given = None if initial is None else _network(initial, stage)
    if initial is None or given is None:
        return False
    weights = given.state_dict()
    misfits = misfitting(network, weights)
    if misfits:
        raise TrainingError(
            f"The {stage} network of the model '{initial.name}' does not fit this recipe: "
            f"{misfits[0]} has another shape or is missing. Train with the model's own [network] "
            "and [slices], or without --from."
        )
    before, after = _labels(initial.pipeline, stage), _labels(pipeline, stage)
    copy_matching(network, relabelled(network, weights, before, after))
    return True


def require_trainable(
    stage: StageName, pipeline: Pipeline, initial: ModelPackage | None, seed: int
) -> None:
    """Refuse to train what cannot be, or a network that the initial weights do not fit.

    Parameters
    ----------
    stage : "noise" or "residual"
    pipeline : Pipeline
    initial : ModelPackage or None
        The model that the run starts from.
    seed : int

    Raises
    ------
    TrainingError
        When the noise stage was trained elsewhere, or the initial weights do not fit.
    """
    if stage == "noise" and pipeline.denoiser is not None:
        raise TrainingError(
            "The recipe's noise stage was trained elsewhere, by rules of its own, and cannot be "
            "trained here. Take it as it is with --noise-from MODEL or --stage residual, or "
            "choose another --pipeline."
        )
    build = noise_network if stage == "noise" else residual_network
    started = start_from(initial, stage, build(pipeline, seed), pipeline)
    if initial is not None and not started:
        say(f"{initial.name} has no {stage} stage of this kind: that stage starts afresh.")


def _network(package: ModelPackage, stage: StageName) -> nn.Module | None:
    """Return the package's network of a stage, unless that was trained elsewhere."""
    if stage == "residual":
        return package.residual
    return package.noise if package.pipeline.denoiser is None else None


def _labels(pipeline: Pipeline, stage: StageName) -> Sequence[str]:
    """Return what a stage's network tells apart: target contrasts, or tasks."""
    return pipeline.targets if stage == "noise" else pipeline.tasks
