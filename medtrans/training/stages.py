"""The two stages: what each trains on, its loss, and how it is validated.

The noise stage is given target volumes and nothing else, so no source voxel can reach it, unless
the recipe says `noise.sees_source`; the residual stage is given pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from medtrans.config.schema import NoiseConfig, Pipeline, StageConfig, WindowScale
from medtrans.config.terms import StageName
from medtrans.diffusion import (
    Draw,
    NoiseObjective,
    draw_low_timesteps,
    draw_timesteps,
    noise_loss,
    residual_loss,
)
from medtrans.networks.binding import build_schedule, noise_predictor, residual_predictor
from medtrans.networks.transfer import copy_matching, relabelled
from medtrans.networks.unet import noise_network, residual_network
from medtrans.training.data import ROW, Batch, RandomSlices, StageExamples
from medtrans.training.validation import Validation, denoised, translated

DrawTimesteps = Callable[[int, Generator], Tensor]
StepLoss = Callable[[nn.Module, Batch, Generator], Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage, ready for the training loop.

    Attributes
    ----------
    name : "noise" or "residual"
    config : StageConfig
    network : Module
        Freshly initialised from the seed.
    slices : RandomSlices
    loss : callable
        (network, batch, rng) -> scalar, a mean over the batch; draws time steps and noise from
        `rng` alone. A part of a batch says in `batch[ROW]` which rows it is (on the CPU).
    validation : Validation
        What is scored on the val split; it may have no examples.
    monitored : str
        The score that picks the best checkpoint; higher is better.
    """

    name: StageName
    config: StageConfig
    network: nn.Module
    slices: RandomSlices
    loss: StepLoss
    validation: Validation
    monitored: str


def noise_stage(pipeline: Pipeline, examples: StageExamples, seed: int) -> Stage:
    """Build the noise stage: Eq. 10 on unpaired targets.

    Parameters
    ----------
    pipeline : Pipeline
    examples : StageExamples
        Targets; pairs and pseudo-pairs where the recipe lets the network see the source.
    seed : int
        Decides the network's first weights and what is drawn.
    """
    schedule, config = build_schedule(pipeline), pipeline.noise
    objective = NoiseObjective(config.loss, config.prediction, config.min_snr or None)

    def timesteps(count: int, rng: Generator) -> Tensor:
        if config.level_span:
            return draw_low_timesteps(count, schedule, rng, config.level_span)
        return draw_timesteps(count, schedule, rng, config.terminal_share)

    def loss(network: nn.Module, batch: Batch, rng: Generator) -> Tensor:
        draw = _draw(batch, config, rng, timesteps)
        source = _dropped(batch, config, rng) if config.sees_source else None
        eps_theta = noise_predictor(network, batch["label"], source)
        return noise_loss(eps_theta, batch["target"], draw, schedule, objective)

    predict = denoised(schedule, pipeline)
    return Stage(
        name="noise",
        config=config,
        network=noise_network(pipeline, seed),
        slices=RandomSlices(examples.train, pipeline, "noise", seed, examples.pseudo),
        loss=loss,
        validation=Validation(examples.val, predict, pipeline.volume, config.validation_slices),
        monitored="denoised_psnr",
    )


def residual_stage(
    pipeline: Pipeline, examples: StageExamples, seed: int, noise: nn.Module | None = None
) -> Stage:
    """Build the residual stage: Eq. 9 on pairs, after pseudo-pairs where there are some.

    Parameters
    ----------
    pipeline : Pipeline
    examples : StageExamples
    seed : int
        Decides the network's first weights and what is drawn.
    noise : Module or None
        The finished noise network, for validation and, if the recipe says so, to start from.
    """
    schedule, config = build_schedule(pipeline), pipeline.residual

    def timesteps(count: int, rng: Generator) -> Tensor:
        return draw_timesteps(count, schedule, rng, config.terminal_share)

    def loss(network: nn.Module, batch: Batch, rng: Generator) -> Tensor:
        x0, source = batch["target"], batch["source"]
        draw = _draw(batch, config, rng, timesteps)
        r_theta = residual_predictor(network, batch["label"])
        return residual_loss(r_theta, x0, source, draw, schedule, config.loss)

    network = residual_network(pipeline, seed)
    if noise is not None and config.from_noise:
        started = relabelled(network, noise.state_dict(), pipeline.targets, pipeline.tasks)
        copy_matching(network, started)
    predict = translated(schedule, noise, pipeline)
    return Stage(
        name="residual",
        config=config,
        network=network,
        slices=RandomSlices(examples.train, pipeline, "residual", seed, examples.pseudo),
        loss=loss,
        validation=Validation(examples.val, predict, pipeline.volume, config.validation_slices),
        monitored="fidelity_psnr" if _has_unit(pipeline) else "fidelity_psnr_fit",
    )


def _dropped(batch: Batch, config: NoiseConfig, rng: Generator) -> Tensor:
    """Show some examples no source, so that the network also learns to do without."""
    source, (count, rows) = batch["source"], _place(batch, config)
    kept = torch.rand(count, generator=rng)[rows] >= config.source_dropout
    return source * kept.to(source).view(-1, 1, 1, 1)


def _draw(batch: Batch, config: StageConfig, rng: Generator, timesteps: DrawTimesteps) -> Draw:
    """Draw a batch's time steps and noise, in this order, on the CPU.

    A part of a batch draws for all of it and takes its own, so that the parts change nothing.
    """
    x0, (count, rows) = batch["target"], _place(batch, config)
    t = timesteps(count, rng)[rows]
    eps = torch.randn(count, *x0.shape[1:], generator=rng)[rows]
    return Draw(t.to(x0.device), eps.to(x0.device))


def _place(batch: Batch, config: StageConfig) -> tuple[int, Tensor]:
    """Return how many examples the step's whole batch has, and which of them these are."""
    if ROW in batch:
        return config.batch_size, batch[ROW]
    count = len(batch["target"])
    return count, torch.arange(count)


def _has_unit(pipeline: Pipeline) -> bool:
    """Whether the targets' intensities mean something by themselves, as HU do."""
    scales = [pipeline.contrasts[target] for target in pipeline.targets]
    return all(isinstance(scale, WindowScale) for scale in scales)
