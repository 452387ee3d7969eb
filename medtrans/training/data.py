"""Training examples: random patches of random slices.

An example is a function of (seed, position in the stream), so that resuming at step n, or reading
with any number of workers, gives the same examples.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medtrans.config.schema import Pipeline
from medtrans.config.terms import StageName
from medtrans.diffusion.randomness import seed_of
from medtrans.training.augment import Augmentation
from medtrans.training.cache import CachedVolume
from medtrans.training.pseudo import pseudo_source

Batch = dict[str, Tensor]
ROW = "row"  # key of a part of a batch: where in the whole batch its examples are


@dataclass(frozen=True)
class Example:
    """What one slice is read from.

    Attributes
    ----------
    volumes : dict
        Key of the batch -> volume; all on one grid.
    contexts : dict
        Key of the batch -> neighbours on each side.
    label : int
        The task (residual stage) or contrast (noise stage).
    pseudo : bool
        Whether the source is to be made a pseudo-source: it is read from the target itself.
    """

    volumes: dict[str, CachedVolume]
    contexts: dict[str, int]
    label: int
    pseudo: bool = False

    @property
    def lead(self) -> CachedVolume:
        """The volume whose foreground decides which slices count: the source where there is one."""
        return self.volumes.get("source", self.volumes["target"])


class RandomSlices(Dataset[dict[str, Any]]):
    """An endless stream of augmented patches, addressed by position.

    Every volume (or pair) is as likely as every other; within it every slice with foreground.

    Parameters
    ----------
    examples : sequence of Example
    pipeline : Pipeline
    stage : "noise" or "residual"
    seed : int
    pseudo : sequence of Example
        Pseudo-pairs, which are read instead of `examples` up to the recipe's `pseudo_until`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        pipeline: Pipeline,
        stage: StageName,
        seed: int,
        pseudo: Sequence[Example] = (),
    ) -> None:
        config = pipeline.stage(stage)
        self.examples, self.pseudo = examples, pseudo
        share = config.pseudo_until if examples else 1.0
        self.real_from = round(share * config.iterations) * config.batch_size if pseudo else 0
        self.curves = pipeline.pseudo
        self.patch = config.patch
        self.stage = stage
        self.seed = seed
        every = [*examples, *pseudo]
        keys = tuple(every[0].volumes)
        self.augmentations = {
            axis: Augmentation(keys, pipeline.augmentation, _left_right(axis))
            for axis in {example.lead.axis for example in every}
        }

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return {"target": (1, H, W) [, "source": (2k + 1, H, W)], "label": int}."""
        key = (self.seed, self.stage)
        rng = np.random.default_rng(seed_of(*key, "example", position))
        pool = self.pseudo if position < self.real_from else self.examples
        example = pool[int(rng.integers(len(pool)))]
        lead = example.lead
        index = lead.occupied[int(rng.integers(len(lead.occupied)))]
        corner = _random_corner(lead, self.patch, rng)
        read = {
            key: volume.patch(index, corner, self.patch, example.contexts[key])
            for key, volume in example.volumes.items()
        }
        if example.pseudo:
            read["source"] = pseudo_source(read["source"], self.curves, rng)
        # A key of its own: from the example's seed, the slice would decide whether it is flipped.
        augmented = self.augmentations[lead.axis](read, seed_of(*key, "augmentation", position))
        tensors = {key: torch.from_numpy(value) for key, value in augmented.items()}
        return {**tensors, "label": example.label}


def _random_corner(
    volume: CachedVolume, patch: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    """Place the patch inside the foreground's box, or the box inside the patch."""
    corners = []
    for (start, end), size in zip(volume.box, patch, strict=True):
        low, high = sorted((start, end - size))
        corners.append(int(rng.integers(low, high + 1)))
    return corners[0], corners[1]


def _left_right(axis: int) -> int | None:
    """Which in-plane axis of a slice across RAS axis `axis` runs left to right."""
    return None if axis == 0 else 0


class _Positions(Sampler[int]):
    """The positions of steps `first` … `last` - 1, in order: each `world`-th from `rank` on."""

    def __init__(self, first: int, last: int, batch_size: int, rank: int, world: int) -> None:
        self.range = range(first * batch_size + rank, last * batch_size, world)

    def __iter__(self) -> Iterator[int]:
        return iter(self.range)

    def __len__(self) -> int:
        return len(self.range)


def batches(
    slices: RandomSlices,
    first: int,
    last: int,
    batch_size: int,
    workers: int = 1,
    *,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of training steps `first` … `last` - 1.

    Parameters
    ----------
    slices : RandomSlices
    first, last : int
    batch_size : int
        Of all processes together; a multiple of `world`.
    workers : int
    rank, world : int
        Which of how many equal shares of every batch to read: its rows `rank::world`.
    pin : bool
        Put batches into page-locked memory, from which a GPU copies while it computes.
    """
    loader: DataLoader[dict[str, Any]] = DataLoader(
        slices,
        batch_size=batch_size // world,
        sampler=_Positions(first, last, batch_size, rank, world),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
    )
    yield from loader


def _quiet_worker(_: int) -> None:
    """Leave stopping to the main process, which saves first: a job's signal reaches every one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
