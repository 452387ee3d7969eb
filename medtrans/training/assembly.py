"""The stages of a run, with sigma chosen, their examples prepared, their networks as they start."""

from __future__ import annotations

from medtrans.networks.unet import noise_network, residual_network
from medtrans.training.checkpoint import Weights
from medtrans.training.examples import noise_examples, residual_examples
from medtrans.training.initial import start_from
from medtrans.training.noise_level import resolve_noise_level
from medtrans.training.setup import TrainingSetup
from medtrans.training.stages import Stage, noise_stage, residual_stage


def with_sigma_chosen(setup: TrainingSetup) -> TrainingSetup:
    """Choose sigma where the recipe leaves that to the images."""
    plan = setup.plan
    chosen = resolve_noise_level(plan.pipeline, plan.manifest, setup.cache, plan.seed)
    return setup.with_pipeline(chosen)


def assembled_noise_stage(setup: TrainingSetup) -> Stage:
    """Prepare the noise stage's volumes, and build it.

    Raises
    ------
    FileError
        When a volume cannot be prepared, or a pair's volumes lie on different grids.
    """
    pipeline = setup.pipeline
    examples = noise_examples(setup.data, setup.cache, pipeline)
    return _started(noise_stage(pipeline, examples, setup.plan.seed), setup)


def assembled_residual_stage(setup: TrainingSetup, noise: Weights | None) -> Stage:
    """Prepare the residual stage's volumes, and build it.

    Parameters
    ----------
    setup : TrainingSetup
    noise : dict of Tensor or None
        The finished noise stage's weights, for validation.

    Raises
    ------
    FileError
        When a volume cannot be prepared, or a pair's volumes lie on different grids.
    """
    pipeline, seed, network = setup.pipeline, setup.plan.seed, None
    if noise is not None:
        network = noise_network(pipeline, seed)
        network.load_state_dict(noise)
        network = network.to(setup.device).eval().requires_grad_(False)
    examples = residual_examples(setup.data, setup.cache, pipeline)
    return _started(residual_stage(pipeline, examples, seed, network), setup)


def kept_residual(setup: TrainingSetup) -> Weights:
    """Return the residual network of the model that the run starts from, for the run's tasks."""
    network = residual_network(setup.pipeline, setup.plan.seed)
    start_from(setup.initial, "residual", network, setup.pipeline)
    return network.state_dict()


def _started(stage: Stage, setup: TrainingSetup) -> Stage:
    start_from(setup.initial, stage.name, stage.network, setup.pipeline)
    return stage
