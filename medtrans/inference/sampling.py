"""DRDD on the slices of a volume: what `Translator` runs between preparing and restoring one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medtrans.config.terms import Task
from medtrans.diffusion import (
    NoiseStep,
    SliceNoise,
    Stages,
    Steps,
    estimate_target,
    noise_step,
)
from medtrans.inference.settings import Settings
from medtrans.networks.binding import (
    build_schedule,
    denoiser,
    error_predictor,
    residual_predictor,
)
from medtrans.networks.head import without_period
from medtrans.networks.slice_by_slice import ready
from medtrans.package.store import ModelPackage
from medtrans.preprocessing.detail import raised
from medtrans.preprocessing.slices import SlicePlan, cut, occupied, place, stacks
from medtrans.system.devices import choose_precision, describe, lacks_memory, slices_at_a_time
from medtrans.system.progress import say
from medtrans.volumes.voxels import Voxels

_ORDER = 4  # of what takes a pattern out: at three pixels it dims by a third
OnSlices = Callable[[int, int], None]
"""Called with the number of slices translated so far, and in all."""


class Pass(NamedTuple):
    """One way through a volume, sampled slice by slice.

    Attributes
    ----------
    plan : SlicePlan
    chosen : list of int
        The slices to sample, in the volume as it lies, or mirrored.
    mirrored : bool
        Whether the volume is mirrored, left for right, before it is cut.
    """

    plan: SlicePlan
    chosen: list[int]
    mirrored: bool

    def turned(self, volume: Voxels) -> Voxels:
        """Mirror a volume (X, Y, Z) in RAS if this pass does; its own inverse, a view."""
        return volume[::-1] if self.mirrored else volume


def plan_passes(image: Voxels, plans: Sequence[SlicePlan], flips: bool) -> list[Pass]:
    """List the passes through an image (X, Y, Z) in [-1, 1]: along each axis, and mirrored."""
    sides = (False, True) if flips else (False,)
    return [
        Pass(plan, occupied(image[::-1] if side else image, plan), side)
        for plan in plans
        for side in sides
    ]


@dataclass(frozen=True)
class Arithmetic:
    """What decides how a result is rounded: the same arithmetic gives the same bits.

    Attributes
    ----------
    device : str
        With the CPU's instruction set, or the name of the GPU.
    precision : str
        "float32" or "bfloat16".
    batch_size : int
        Slices in one call of a network.
    threads : int or None
        Threads of the CPU in one call; None on a GPU.
    """

    device: str
    precision: str
    batch_size: int
    threads: int | None

    @property
    def entries(self) -> dict[str, str | int]:
        """Entries of a sidecar."""
        entries: dict[str, str | int] = {
            "Device": self.device,
            "Precision": self.precision,
            "BatchSize": self.batch_size,
        }
        return entries if self.threads is None else {**entries, "Threads": self.threads}


class Sampled(NamedTuple):
    """What was sampled of a volume.

    Attributes
    ----------
    draws : list of array of float32
        One volume (X, Y, Z) a draw, in [-1, 1]; -1 in slices that were not sampled.
    arithmetic : Arithmetic
    error : array of float32 or None
        Expected absolute error (X, Y, Z) of the draws' mean, on the same scale; 0 in slices that
        were not sampled. None where it is not asked for, or the model has not learnt it.
    """

    draws: list[Voxels]
    arithmetic: Arithmetic
    error: Voxels | None = None


@dataclass(frozen=True)
class _Work:
    """What is to be sampled of a volume, and how many slices of it at a time."""

    image: Voxels
    passes: Sequence[Pass]
    task: Task
    steps: Steps
    settings: Settings
    batch_size: int
    tell: Callable[[int], None]

    @property
    def turns(self) -> list[Pass]:
        """The pass of each noise step."""
        return _turns(self.passes, self.steps)

    @property
    def crossed(self) -> bool:
        """Whether noise steps go along several axes."""
        return len({one.plan for one in self.turns}) > 1


class _Noisy(NamedTuple):
    """A volume (X, Y, Z) on its way through the noise stage; each step changes it in place.

    `x` is the volume, `clean` what the network answered last, at first the estimate; `draw` names
    it.
    """

    x: Voxels
    clean: Voxels
    draw: str


class SliceSampler:
    """A model's networks, ready to sample slices.

    Parameters
    ----------
    package : ModelPackage
    device : torch.device
    precision : "auto", "float32" or "bfloat16"
        What the networks compute in; auto is bfloat16 where the hardware has it.
    """

    def __init__(
        self, package: ModelPackage, device: torch.device, precision: str = "auto"
    ) -> None:
        self.package = package
        self.device = device
        self.precision = choose_precision(device, precision)
        self.schedule = build_schedule(package.pipeline)

    @property
    def precision(self) -> torch.dtype:
        """What the networks compute in."""
        return self._precision

    @precision.setter
    def precision(self, dtype: torch.dtype) -> None:
        """Make copies of the package's networks that compute in another type."""

        def copied(network: nn.Module) -> nn.Module:
            return ready(network, self.device, dtype)

        self._precision = dtype
        self.residual = copied(self.package.residual)
        self.noise = None if self.package.noise is None else copied(self.package.noise)
        self.error = None if self.package.error is None else copied(self.package.error.network)

    def sample(
        self,
        image: Voxels,
        passes: Sequence[Pass],
        task: Task,
        steps: Steps,
        settings: Settings,
        on_slices: OnSlices | None = None,
    ) -> Sampled:
        """Sample a volume as often as the settings say, averaging each draw over the passes.

        Where the memory does not suffice, the volume is begun again with half as many slices at a
        time, so that all of it is computed alike.

        Parameters
        ----------
        image : array of float32
            Shape (X, Y, Z), the source in [-1, 1].
        passes : sequence of Pass
        task : Task
        steps : Steps
        settings : Settings
        on_slices : callable, optional
            Told of progress.
        """
        taken = (*passes, *_turns(passes, steps))
        total = settings.samples * sum(len(one.chosen) for one in taken)
        if settings.uncertainty and self.error is not None:
            total += len(passes[0].chosen)
        size = self._batch_size(image, passes, settings)
        while True:
            tell = _counting(on_slices, total)
            work = _Work(image, passes, task, steps, settings, size, tell)
            try:
                draws = [self._draw(number, work) for number in range(settings.samples)]
                return Sampled(draws, self._arithmetic(size), self._expected_error(draws, work))
            except (RuntimeError, MemoryError) as error:
                if size == 1 or not lacks_memory(error):
                    raise
            say(f"The memory does not suffice for {size} slices at a time: now {size // 2}.")
            size //= 2

    def _batch_size(self, image: Voxels, passes: Sequence[Pass], settings: Settings) -> int:
        """How many slices to sample at a time; no more than there are."""
        largest = max(cut(image, one.plan)[0].size for one in passes)
        size = settings.batch_size or slices_at_a_time(largest, self.device)
        return max(1, min(size, max(len(one.chosen) for one in passes)))

    def _arithmetic(self, batch_size: int) -> Arithmetic:
        precision = str(self.precision).removeprefix("torch.")
        if self.device.type == "cpu":  # as `SliceBySlice` calls the networks
            return Arithmetic(describe(self.device), precision, batch_size=1, threads=1)
        return Arithmetic(describe(self.device), precision, batch_size, threads=None)

    def _draw(self, number: int, work: _Work) -> Voxels:
        """Sample a volume once: the residual stage's estimate, and what is drawn around it."""
        volume = self._estimate(number, work)
        if work.steps.noise:
            volume = self._drawn(volume, str(number), work)
        return np.clip(volume, -1, 1, out=volume)

    def _estimate(self, number: int, work: _Work) -> Voxels:
        """Take the residual away: the mean over the passes, each with noise of its own."""
        total = self._pass(work.passes[0], str(number), work)
        for other, one in enumerate(work.passes[1:], start=1):
            total += self._pass(one, f"{number}, pass {other}", work)
        total /= np.float32(len(work.passes))
        return total

    def _drawn(self, estimate: Voxels, draw: str, work: _Work) -> Voxels:
        """Draw an image around an estimate (X, Y, Z), by the noise stage.

        Its detail is raised to that of real images, to which noise is then added as in training.
        The steps go along the passes' axes in turn, so that slices fit together along all of them
        (after Lee et al., arXiv 2303.08440).
        """
        gains = self.package.detail.get(str(work.task))
        if gains is not None:
            estimate = raised(estimate, work.image > -1, gains)
        x = estimate + np.float32(self.schedule.sigma) * self._start(draw, work)
        noisy = _Noisy(x, estimate.copy(), draw)
        for one, step in zip(work.turns, NoiseStep.all(self.schedule, work.steps), strict=True):
            self._step(noisy, one, step, work)
        if not work.crossed:
            self._take_pattern_out(x, work)
        for one in work.turns:  # the noise that was added is still in slices without a source
            empty = np.setdiff1d(range(len(cut(x, one.plan))), one.chosen)
            cut(x, one.plan)[empty] = cut(estimate, one.plan)[empty]
        return x

    def _take_pattern_out(self, x: Voxels, work: _Work) -> None:
        """Take the period of folded pixels out of what steps along one axis have left, in place.

        A noise network of folded pixels leaves noise of that period; steps along other axes take it
        away.
        """
        fold = self.package.pipeline.network.unshuffle
        if fold == 1 or self.package.pipeline.denoiser is not None:
            return
        one = work.turns[0]
        slices = cut(x, one.plan)
        for index in one.chosen:  # one by one: of a batch the order of sums would be another
            part = torch.from_numpy(slices[[index]][:, None]).to(self.device)
            smooth = without_period(part, fold, _ORDER)
            place(smooth[:, 0].cpu().numpy(), [index], x, one.plan)

    def _start(self, draw: str, work: _Work) -> Voxels:
        """Draw the noise of a start (X, Y, Z)."""
        plan = work.passes[0].plan
        noise = np.empty(work.image.shape, dtype=np.float32)
        count = len(cut(noise, plan))
        for first in range(0, count, work.batch_size):
            indices = list(range(first, min(first + work.batch_size, count)))
            eps = self._noise(indices, draw, plan, work, crossed=work.crossed).start()
            place(eps[:, 0].cpu().numpy(), indices, noise, plan)
        return noise

    def _step(self, noisy: _Noisy, one: Pass, step: NoiseStep, work: _Work) -> None:
        """Take a step of the noise stage, slice by slice."""
        slices, answers = (cut(volume, one.plan) for volume in (noisy.x, noisy.clean))
        for indices, stack in stacks(work.image, one.plan, one.chosen, work.batch_size):
            source, x, before = (
                torch.from_numpy(np.ascontiguousarray(part)).to(self.device)
                for part in (stack, slices[indices][:, None], answers[indices][:, None])
            )
            noise = self._noise(indices, noisy.draw, one.plan, work, crossed=work.crossed)
            with torch.inference_mode():
                denoise = self._stages(work.task, source).denoise
                assert denoise is not None  # `ModelPackage.steps` refuses noise steps without it
                answer = denoise(x, torch.full((len(x),), step.now, device=self.device))
                less = noise_step(x, answer, before, step, noise.fresh)
            for volume, values in ((noisy.clean, answer), (noisy.x, less)):
                place(values[:, 0].float().cpu().numpy(), indices, volume, one.plan)
            work.tell(len(indices))

    def _noise(
        self, indices: list[int], draw: str, plan: SlicePlan, work: _Work, *, crossed: bool
    ) -> SliceNoise:
        """Give the noise of some slices.

        It is alike in neighbouring ones, unless slices along other axes cross it: these would see
        that.
        """
        correlation = 0.0 if crossed else self.package.pipeline.sampling.correlation_length
        height, width = cut(work.image, plan).shape[1:]
        return SliceNoise(
            work.settings.seed, draw, indices, (height, width), self.device, correlation
        )

    def _pass(self, one: Pass, draw: str, work: _Work) -> Voxels:
        """Take the residual away along one pass; slices that are not chosen stay background."""
        turned = one.turned(work.image)
        result = np.full(work.image.shape, -1, dtype=np.float32)
        for indices, stack in stacks(turned, one.plan, one.chosen, work.batch_size):
            source = torch.from_numpy(stack).to(self.device)
            noise = self._noise(indices, draw, one.plan, work, crossed=False)
            with torch.inference_mode():
                stages = self._stages(work.task, source)
                x = estimate_target(stages, source, noise.start(), work.steps.residual)
            place(x[:, 0].float().cpu().numpy(), indices, result, one.plan)
            work.tell(len(indices))
        return one.turned(result)

    def _expected_error(self, draws: Sequence[Voxels], work: _Work) -> Voxels | None:
        """Ask the network of the error, slice by slice, how far off the mean of the draws is."""
        known = self.package.error
        if known is None or self.error is None or not work.settings.uncertainty:
            return None
        one, task = work.passes[0], self.package.pipeline.parsed_tasks.index(work.task)
        made = cut(draws[0] if len(draws) == 1 else np.mean(draws, axis=0), one.plan)
        result = np.zeros(work.image.shape, dtype=np.float32)
        for indices, stack in stacks(work.image, one.plan, one.chosen, work.batch_size):
            label = torch.full((len(indices),), task, device=self.device)
            shown = (np.ascontiguousarray(made[indices][:, None]), stack)
            with torch.inference_mode():
                answers = error_predictor(self.error, label)(
                    *(torch.from_numpy(part).to(self.device) for part in shown)
                )
            expected = known.calibration(answers[:, 0].cpu().numpy())
            place(expected, indices, result, one.plan)
            work.tell(len(indices))
        return result

    def _stages(self, task: Task, source: Tensor) -> Stages:
        pipeline = self.package.pipeline
        label = torch.full((len(source),), pipeline.parsed_tasks.index(task), device=self.device)
        predict = residual_predictor(self.residual, label)
        if self.noise is None:
            return Stages(predict, None, self.schedule)
        contrast = torch.full_like(label, pipeline.targets.index(task.target))
        denoise = denoiser(self.noise, pipeline, self.schedule, contrast, source)
        return Stages(predict, denoise, self.schedule)


def _turns(passes: Sequence[Pass], steps: Steps) -> list[Pass]:
    """Choose the pass of each noise step: along the axes in turn, never mirrored."""
    return list(islice(cycle(one for one in passes if not one.mirrored), steps.noise))


def _counting(on_slices: OnSlices | None, total: int) -> Callable[[int], None]:
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if on_slices is not None:
            on_slices(done, total)

    return tell
