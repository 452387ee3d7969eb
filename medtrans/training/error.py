"""Training what a model knows of its own errors, after its residual stage.

A narrower U-Net sees what the residual stage makes of the run's pairs, under the augmentation of
training, and learns the scale of a Laplace distribution around it, whose best value is the expected
absolute error (Kendall and Gal, arXiv 1703.04977, learn both at once). What it answers is then
compared with the errors on val subjects, which taught neither network anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from medtrans.config.schema import Pipeline, WindowScale
from medtrans.diffusion import Stages, Steps, generator, middle, translate
from medtrans.evaluate.metrics import linear_fit
from medtrans.networks.binding import build_schedule, error_predictor, residual_predictor
from medtrans.networks.unet import error_network, residual_network
from medtrans.system.progress import track
from medtrans.training.checkpoint import Weights
from medtrans.training.data import Batch, Example, RandomSlices, batches
from medtrans.training.step import precision_of
from medtrans.training.validation import ValidationBatch, slices_of
from medtrans.volumes.voxels import Voxels

_STEPS = Steps(1, 0)  # fidelity mode
_WARMING = 0.3  # share of the steps over which the learning rate rises


@dataclass(frozen=True)
class Taught:
    """The finished residual stage, from whose errors another network learns.

    Attributes
    ----------
    pipeline : Pipeline
    residual : Module
        On the device, for evaluation.
    device : device
    seed : int
    """

    pipeline: Pipeline
    residual: nn.Module
    device: torch.device
    seed: int

    @classmethod
    def of(cls, pipeline: Pipeline, weights: Weights, device: torch.device, seed: int) -> Taught:
        """Build the network of a recipe with these weights."""
        network = residual_network(pipeline, seed)
        network.load_state_dict(weights)
        return cls(pipeline, network.to(device).eval().requires_grad_(False), device, seed)

    @property
    def autocast(self) -> torch.autocast:
        """What the residual stage was computed in."""
        in_bfloat16 = precision_of(self.pipeline.residual, self.device) == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=in_bfloat16)

    def made_of(self, source: Tensor, label: Tensor, eps: Tensor) -> Tensor:
        """Translate a stack (B, 2k + 1, H, W) of tasks (B,) in fidelity mode, (B, 1, H, W)."""
        stages = Stages(
            residual_predictor(self.residual, label), None, build_schedule(self.pipeline)
        )
        with torch.no_grad():
            return translate(stages, source, eps, _STEPS).float().clamp(-1, 1)


def learnt(taught: Taught, examples: Sequence[Example]) -> nn.Module:
    """Train the network of the expected error; a function of its arguments on one machine.

    Parameters
    ----------
    taught : Taught
    examples : sequence of Example
        Pairs.
    """
    pipeline, config = taught.pipeline, taught.pipeline.error
    network = error_network(pipeline, taught.seed).to(taught.device).train()
    rate, total = config.learning_rate, config.iterations
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=total + 1, pct_start=_WARMING
    )
    with track("steps of the expected error") as update:
        for step, batch in enumerate(_stream(taught, examples)):
            optimiser.zero_grad()
            torch.autograd.backward(_loss(network, taught, batch, step))
            nn.utils.clip_grad_norm_(network.parameters(), pipeline.residual.clip_norm)
            optimiser.step()
            schedule.step()
            update(step + 1, total)
    return network.eval().requires_grad_(False)


def seen_errors(
    taught: Taught, network: nn.Module, examples: Sequence[Example]
) -> list[tuple[Voxels, Voxels]]:
    """Compare a network's answers with the errors in slices of pairs: (answers, errors) of each.

    Errors count where both images have tissue. A real image without a unit, as of MR, is fitted to
    what was made of its source, by least squares.
    """
    found = []
    for example in examples:
        parts = list(_answers(taught, network, example))
        answers, made, truth = (np.concatenate([part[k] for part in parts]) for k in range(3))
        task = taught.pipeline.parsed_tasks[example.label]
        if not isinstance(taught.pipeline.contrasts[task.target], WindowScale):
            truth = linear_fit(truth, made, np.ones(truth.shape, dtype=bool))
        found.append((answers, np.abs(made - truth)))
    return found


def slices_for(taught: Taught, example: Example) -> Iterator[ValidationBatch]:
    """Yield the slices of a pair that answers are compared in."""
    count, divisible = taught.pipeline.residual.validation_slices, taught.pipeline.volume.divisible
    return slices_of(example, count, divisible, taught.device)


def _stream(taught: Taught, examples: Sequence[Example]) -> Iterator[Batch]:
    """Go on where the residual stage's examples ended."""
    config = taught.pipeline.residual
    slices = RandomSlices(examples, taught.pipeline, "residual", taught.seed)
    first = config.iterations
    steps = range(first, first + taught.pipeline.error.iterations)
    for batch in batches(slices, steps, config.batch_size):
        yield {key: value.to(taught.device) for key, value in batch.items()}


def _loss(network: nn.Module, taught: Taught, batch: Batch, step: int) -> Tensor:
    """Laplace's negative log-likelihood in the source's foreground, log b + |error| / b."""
    source, label, target = batch["source"], batch["label"], batch["target"]
    eps = torch.randn(target.shape, generator=generator(taught.seed, "error", step))
    with taught.autocast:
        made = taught.made_of(source, label, eps.to(taught.device))
        expected = error_predictor(network, label)(made, source)
    inside = (middle(source) > -1).float()
    loss = expected.log() + (made - target).abs() / expected
    return (loss * inside).sum() / inside.sum().clamp_min(1)


def _answers(
    taught: Taught, network: nn.Module, example: Example
) -> Iterator[tuple[Voxels, Voxels, Voxels]]:
    """Give answers, what was made and the real image, (n,) each, in a few whole slices."""
    for batch in slices_for(taught, example):
        assert batch.source is not None
        with torch.inference_mode(), taught.autocast:
            made = taught.made_of(batch.source, batch.label, batch.eps)
            expected = error_predictor(network, batch.label)(made, batch.source)
        inside = ((middle(batch.source) > -1) & (batch.target > -1)).cpu().numpy()
        yield (
            expected.cpu().numpy()[inside],
            made.cpu().numpy()[inside],
            batch.target.cpu().numpy()[inside],
        )
