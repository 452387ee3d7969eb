"""The methods, each a training stage of medtrans' own loop and a way to translate slices.

All networks are the recipe's U-Net with the same inputs (an image, the source stack, a time), and
all are trained by `medtrans.training.loop.fit`, so that what differs is the method alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Generator, Tensor, nn
from torch.nn import functional

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Task
from medtrans.diffusion import Loss, Stages, Steps, distance, draw_timesteps, middle, translate
from medtrans.networks.binding import build_schedule, denoiser, residual_predictor
from medtrans.networks.unet import TimeUNet, residual_network
from medtrans.training.data import Batch, StageExamples
from medtrans.training.stages import Stage, residual_stage

Predict = Callable[[Tensor, Tensor], Tensor]
"""(source stack (B, 2k + 1, H, W), eps (B, 1, H, W)) -> target (B, 1, H, W)."""

_LAST = 1000.0  # the time that a network without time steps is told
_LEFT_RIGHT = 2  # of (B, C, H, W), in axial and coronal slices of RAS volumes
_DRAWS = 4
_ADVERSARIAL = 0.01  # of the l1 loss: pix2pix's 1 : 100
_CYCLE, _IDENTITY = 10.0, 5.0  # of CycleGAN's adversarial loss


def regression(loss: Loss) -> Callable[[Pipeline, StageExamples, int], Stage]:
    """U-Net regression of the residual: one call, no noise."""

    def build(pipeline: Pipeline, examples: StageExamples, seed: int) -> Stage:
        def step(network: nn.Module, batch: Batch, _: Generator) -> Tensor:
            predicted = regress(network, batch["source"], batch["label"])
            return distance(predicted, batch["target"], loss)

        return _stage(pipeline, examples, seed, step)

    return build


def regress(network: nn.Module, source: Tensor, label: Tensor) -> Tensor:
    """Return y - r_theta(y, stack), (B, 1, H, W), of a stack (B, 2k + 1, H, W) and tasks (B,)."""
    y, time = middle(source), source.new_full((len(source),), _LAST)
    return y - network(torch.cat([y, source], dim=1), time, label)


def regress_predict(network: nn.Module, number: int) -> Predict:
    """Regression of the task with this number."""

    def predict(source: Tensor, eps: Tensor) -> Tensor:
        return regress(network, source, torch.full((len(source),), number))

    return predict


def pix2pix(pipeline: Pipeline, examples: StageExamples, seed: int) -> Stage:
    """Pix2pix (Isola et al., arXiv 1611.07004): l1 and a conditional patch discriminator (MONAI's).

    The adversarial loss is least squares (Mao et al., arXiv 1611.04076).
    """
    critic, optimizer = _critic(pipeline, seed, channels=2)

    def step(network: nn.Module, batch: Batch, _: Generator) -> Tensor:
        y, real = middle(batch["source"]), batch["target"]
        fake = regress(network, batch["source"], batch["label"])
        _teach(critic, optimizer, torch.cat([y, real], 1), torch.cat([y, fake.detach()], 1))
        fooled = _taken_for_real(critic, torch.cat([y, fake], 1))
        return functional.l1_loss(fake.float(), real) + _ADVERSARIAL * fooled

    return _stage(pipeline, examples, seed, step)


def cyclegan(pipeline: Pipeline, examples: StageExamples, seed: int) -> Stage:
    """CycleGAN (Zhu et al., arXiv 1703.10593), with least squares, cycles of l1 and identities.

    It is given sources and targets, and never the two of one pair: the targets of a batch are moved
    on by one. Its second generator makes sources of targets.
    """
    back = residual_network(pipeline, seed).train()
    rate = pipeline.residual.learning_rate
    optimizer = torch.optim.AdamW(back.parameters(), lr=rate, betas=(0.5, 0.999))
    critics = [_critic(pipeline, seed + number, channels=1) for number in range(2)]

    def step(network: nn.Module, batch: Batch, _: Generator) -> Tensor:
        optimizer.step()  # by the gradients of the step before
        optimizer.zero_grad()
        stack, label = batch["source"].shape[1], batch["label"]
        real_source, real_target = middle(batch["source"]), batch["target"].roll(1, 0)
        total = real_target.new_zeros(())
        ways = (
            (network, back, real_source, real_target),
            (back, network, real_target, real_source),
        )
        for (there, again, given, wanted), critic in zip(ways, critics, strict=True):
            fake = regress(there, given.expand(-1, stack, -1, -1), label)
            _teach(*critic, wanted, fake.detach())
            returned = regress(again, fake.expand(-1, stack, -1, -1), label)
            kept = regress(there, wanted.expand(-1, stack, -1, -1), label)
            total = total + _taken_for_real(critic[0], fake)
            total = total + _CYCLE * functional.l1_loss(returned.float(), given)
            total = total + _IDENTITY * functional.l1_loss(kept.float(), wanted)
        return total

    return _stage(pipeline, examples, seed, step)


def _critic(
    pipeline: Pipeline, seed: int, channels: int
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Build a patch discriminator (MONAI's) of images with so many channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = PatchDiscriminator(2, 32, in_channels=channels, num_layers_d=3)
    rate = pipeline.residual.learning_rate
    return critic, torch.optim.AdamW(critic.parameters(), lr=rate, betas=(0.5, 0.999))


def _teach(critic: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, fake: Tensor) -> None:
    """Take a step of a discriminator: real images are 1, others 0."""
    answers = [critic(image)[-1] for image in (real, fake)]
    loss = (answers[0] - 1).square().mean() + answers[1].square().mean()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def _taken_for_real(critic: nn.Module, fake: Tensor) -> Tensor:
    return (critic(fake)[-1] - 1).square().mean()


def rddm(pipeline: Pipeline, examples: StageExamples, seed: int) -> Stage:
    """Coupled residual diffusion (RDDM, Liu et al., arXiv 2308.13712): residual and noise at once.

    One state and one t: I_t = x0 + alpha_bar_t r + beta_bar_t eps; one network answers r and eps.
    """
    schedule = build_schedule(pipeline)

    def step(network: nn.Module, batch: Batch, rng: Generator) -> Tensor:
        x0, source = batch["target"], batch["source"]
        t = draw_timesteps(len(x0), schedule, rng, pipeline.residual.terminal_share)
        eps = torch.randn(x0.shape, generator=rng)
        r = middle(source) - x0
        alpha, beta = (
            s.to(x0)[t].view(-1, 1, 1, 1) for s in (schedule.alpha_bar, schedule.beta_bar)
        )
        state = torch.cat([x0 + alpha * r + beta * eps, source], 1)
        answer = network(state, schedule.residual_time(t))
        return distance(answer[:, :1], r, "l2") + distance(answer[:, 1:], eps, "l2")

    stage = _stage(pipeline, examples, seed, step)
    return replace(stage, network=rddm_network(pipeline, seed))


def rddm_network(pipeline: Pipeline, seed: int) -> nn.Module:
    """Build RDDM's network: the residual network with two answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stack = pipeline.slices.stack
        network = TimeUNet(1 + stack, 2, 1, pipeline.network)
    return network.to(memory_format=torch.channels_last)


def rddm_predict(network: nn.Module, pipeline: Pipeline, steps: int) -> Predict:
    """Reverse of RDDM, deterministic."""
    schedule = build_schedule(pipeline)
    grid = schedule.grid(steps)

    def predict(source: Tensor, eps: Tensor) -> Tensor:
        x = middle(source) + schedule.sigma * eps
        for now, then in pairwise(grid):
            t = torch.full((len(x),), now)
            answer = network(torch.cat([x, source], 1), schedule.residual_time(t))
            alpha = float(schedule.alpha_bar[now] - schedule.alpha_bar[then])
            beta = float(schedule.beta_bar[now] - schedule.beta_bar[then])
            x = x - alpha * answer[:, :1] - beta * answer[:, 1:]
        return x

    return predict


def drdd_predict(
    residual: nn.Module, noise: nn.Module | None, pipeline: Pipeline, task: Task, steps: Steps
) -> Predict:
    """Translate by DRDD (Alg. 2); `noise` may be None where no noise step is taken."""
    schedule = build_schedule(pipeline)
    number = pipeline.parsed_tasks.index(task)

    def predict(source: Tensor, eps: Tensor) -> Tensor:
        label = torch.full((len(source),), number)
        contrast = torch.full_like(label, pipeline.target_labels[number])
        denoise = noise and denoiser(noise, pipeline, schedule, contrast, source)
        stages = Stages(residual_predictor(residual, label), denoise, schedule)
        return translate(stages, source, eps, steps)

    return predict


def averaged(predict: Predict, over: str) -> Predict:
    """Average a method over "x4", four draws of eps, or "flips", left-right mirror images."""

    def mirrored(source: Tensor, eps: Tensor) -> Tensor:
        other = predict(source.flip(_LEFT_RIGHT), eps.flip(_LEFT_RIGHT)).flip(_LEFT_RIGHT)
        return (predict(source, eps) + other) / 2

    def redrawn(source: Tensor, eps: Tensor) -> Tensor:
        rolled = [eps.roll((17 * k, 29 * k), (2, 3)) for k in range(_DRAWS)]
        return torch.stack([predict(source, e) for e in rolled]).mean(dim=0)

    return {"x4": redrawn, "flips": mirrored}[over]


def _stage(
    pipeline: Pipeline,
    examples: StageExamples,
    seed: int,
    step: Callable[[nn.Module, Batch, Generator], Tensor],
) -> Stage:
    """Make the residual stage's data and network another method's."""
    stage = residual_stage(pipeline, examples._replace(val=()), seed)
    return replace(stage, network=residual_network(pipeline, seed), loss=step)
