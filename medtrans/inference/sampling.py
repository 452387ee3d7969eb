"""DRDD on the slices of a volume: what `Translator` runs between preparing and restoring one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medtrans.config.terms import Task
from medtrans.diffusion import SliceNoise, Stages, Steps, translate
from medtrans.inference.settings import Settings
from medtrans.networks.binding import build_schedule, denoiser, residual_predictor
from medtrans.networks.unet import inference_copy
from medtrans.package.store import ModelPackage
from medtrans.preprocessing.slices import SlicePlan, cut, occupied, place, stacks
from medtrans.system.devices import inference_precision, slices_at_a_time
from medtrans.volumes.voxels import Voxels

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


class SliceSampler:
    """A model's networks, ready to sample slices.

    Parameters
    ----------
    package : ModelPackage
    device : torch.device
    """

    def __init__(self, package: ModelPackage, device: torch.device) -> None:
        self.package = package
        self.device = device
        self.precision = inference_precision(device)
        self.schedule = build_schedule(package.pipeline)

    @property
    def precision(self) -> torch.dtype:
        """What the networks compute in; bfloat16 where the hardware has it."""
        return self._precision

    @precision.setter
    def precision(self, dtype: torch.dtype) -> None:
        def ready(network: nn.Module) -> nn.Module:
            return inference_copy(network, self.device, dtype)

        self._precision = dtype
        self.residual = ready(self.package.residual)
        self.noise = None if self.package.noise is None else ready(self.package.noise)

    def sample(
        self,
        image: Voxels,
        passes: Sequence[Pass],
        task: Task,
        steps: Steps,
        settings: Settings,
        on_slices: OnSlices | None = None,
    ) -> list[Voxels]:
        """Sample a volume as often as the settings say, averaging each draw over the passes.

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

        Returns
        -------
        list of array of float32
            One volume (X, Y, Z) a draw; -1 in slices that were not sampled.
        """
        tell = _counting(on_slices, settings.samples * sum(len(one.chosen) for one in passes))
        draws = []
        for draw in range(settings.samples):
            run = partial(self._run, image, task, steps, settings, draw, tell)
            draws.append(_mean(map(run, passes), len(passes)))
        return draws

    def _run(
        self,
        image: Voxels,
        task: Task,
        steps: Steps,
        settings: Settings,
        draw: int,
        tell: Callable[[int], None],
        one: Pass,
    ) -> Voxels:
        """Go through the volume once; slices that are not chosen stay background."""
        turned, result = one.turned(image), np.full(image.shape, -1, dtype=np.float32)
        height, width = cut(turned, one.plan).shape[1:]
        size = settings.batch_size or slices_at_a_time(height * width, self.device)
        correlation = self.package.pipeline.sampling.correlation_length
        for indices, stack in stacks(turned, one.plan, one.chosen, size):
            source = torch.from_numpy(stack).to(self.device)
            noise = SliceNoise(
                settings.seed, draw, indices, (height, width), self.device, correlation
            )
            with torch.inference_mode():
                stages = self._stages(task, source)
                x = translate(stages, source, noise.start(), steps, noise.fresh)
            place(x[:, 0].float().cpu().numpy(), indices, result, one.plan)
            tell(len(indices))
        return one.turned(result)

    def _stages(self, task: Task, source: Tensor) -> Stages:
        pipeline = self.package.pipeline
        label = torch.full((len(source),), pipeline.parsed_tasks.index(task), device=self.device)
        predict = residual_predictor(self.residual, label)
        if self.noise is None:
            return Stages(predict, None, self.schedule)
        contrast = torch.full_like(label, pipeline.targets.index(task.target))
        denoise = denoiser(self.noise, pipeline, self.schedule, contrast, source)
        return Stages(predict, denoise, self.schedule)


def _mean(volumes: Iterator[Voxels], count: int) -> Voxels:
    total = next(volumes)
    for volume in volumes:
        total = total + volume
    return total if count == 1 else total / np.float32(count)


def _counting(on_slices: OnSlices | None, total: int) -> Callable[[int], None]:
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if on_slices is not None:
            on_slices(done, total)

    return tell
