"""The two stages: what each trains on, its loss, and how it is validated.

The noise stage is given target volumes and nothing else, so no source voxel can reach it, unless
the recipe says `noise.sees_source`; the residual stage is given pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from medtrans.config.schema import NoiseConfig, Pipeline, StageConfig, WindowScale
from medtrans.config.terms import StageName
from medtrans.diffusion import (
    Draw,
    NoiseObjective,
    Schedule,
    draw_timesteps,
    noise_loss,
    residual_loss,
)
from medtrans.networks.binding import build_schedule, noise_predictor, residual_predictor
from medtrans.networks.transfer import copy_matching, relabelled
from medtrans.networks.unet import noise_network, residual_network
from medtrans.training.cache import CachedVolume
from medtrans.training.data import ROW, Batch, Example, RandomSlices
from medtrans.training.validation import Predict, denoised, translated

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
    validation : sequence of Example
        Of the val split; may be empty.
    predict : callable
        What is scored on the val split.
    monitored : str
        The score that picks the best checkpoint; higher is better.
    """

    name: StageName
    config: StageConfig
    network: nn.Module
    slices: RandomSlices
    loss: StepLoss
    validation: Sequence[Example]
    predict: Predict
    monitored: str


def target_example(volume: CachedVolume, label: int) -> Example:
    """Make an example of the noise stage: one target volume."""
    return Example({"target": volume}, {"target": 0}, label)


def pair_example(source: CachedVolume, target: CachedVolume, label: int, context: int) -> Example:
    """Make an example of a source with its neighbours, and the target."""
    return Example({"source": source, "target": target}, {"source": context, "target": 0}, label)


def pseudo_example(target: CachedVolume, label: int, context: int) -> Example:
    """Make an example of a target and a pseudo-source, which is made of the target itself."""
    return replace(pair_example(target, target, label, context), pseudo=True)


def noise_stage(
    pipeline: Pipeline,
    train: Sequence[Example],
    val: Sequence[Example],
    seed: int,
    pseudo: Sequence[Example] = (),
) -> Stage:
    """Eq. 10 on unpaired targets.

    Where the recipe lets the network see the source, `train` and `val` are pairs, and `pseudo` are
    pseudo-pairs of the unpaired targets, which come first.
    """
    schedule, config = build_schedule(pipeline), pipeline.noise
    objective = NoiseObjective(config.loss, config.prediction, config.min_snr or None)

    def loss(network: nn.Module, batch: Batch, rng: Generator) -> Tensor:
        draw = _draw(batch, schedule, config, rng)
        source = _dropped(batch, config, rng) if config.sees_source else None
        predict = noise_predictor(network, batch["label"], source)
        return noise_loss(predict, batch["target"], draw, schedule, objective)

    return Stage(
        "noise",
        config,
        noise_network(pipeline, seed),
        RandomSlices(train, pipeline, "noise", seed, pseudo),
        loss,
        val,
        denoised(schedule, pipeline),
        "denoised_psnr",
    )


def residual_stage(
    pipeline: Pipeline,
    train: Sequence[Example],
    val: Sequence[Example],
    seed: int,
    noise: nn.Module | None,
    pseudo: Sequence[Example] = (),
) -> Stage:
    """Eq. 9 on pairs, after pseudo-pairs where the recipe has them.

    `noise` is the finished noise network, for validation and, if the recipe says so, to start from.
    """
    schedule, config = build_schedule(pipeline), pipeline.residual

    def loss(network: nn.Module, batch: Batch, rng: Generator) -> Tensor:
        x0, source = batch["target"], batch["source"]
        draw = _draw(batch, schedule, config, rng)
        predict = residual_predictor(network, batch["label"])
        return residual_loss(predict, x0, source, draw, schedule, config.loss)

    network = residual_network(pipeline, seed)
    if noise is not None and config.from_noise:
        started = relabelled(network, noise.state_dict(), pipeline.targets, pipeline.tasks)
        copy_matching(network, started)
    return Stage(
        "residual",
        config,
        network,
        RandomSlices(train, pipeline, "residual", seed, pseudo),
        loss,
        val,
        translated(schedule, noise, pipeline),
        "fidelity_psnr" if _has_unit(pipeline) else "fidelity_psnr_fit",
    )


def _dropped(batch: Batch, config: NoiseConfig, rng: Generator) -> Tensor:
    """Show some examples no source, so that the network also learns to do without."""
    source, (count, rows) = batch["source"], _place(batch, config)
    kept = torch.rand(count, generator=rng)[rows] >= config.source_dropout
    return source * kept.to(source).view(-1, 1, 1, 1)


def _draw(batch: Batch, schedule: Schedule, config: StageConfig, rng: Generator) -> Draw:
    """Draw a batch's time steps and noise, in this order, on the CPU.

    A part of a batch draws for all of it and takes its own, so that the parts change nothing.
    """
    x0, (count, rows) = batch["target"], _place(batch, config)
    t = draw_timesteps(count, schedule, rng, config.terminal_share)[rows]
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
