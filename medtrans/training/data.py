"""Training examples: random patches of random slices.

An example is a function of (seed, position in the stream), so that resuming at step n, or reading
with any number of workers, gives the same examples.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medtrans.config.schema import Pipeline
from medtrans.config.terms import StageName
from medtrans.diffusion.randomness import seed_of
from medtrans.errors import MedtransError, TrainingError
from medtrans.system.progress import say
from medtrans.training.augment import Augmentation
from medtrans.training.cache import CachedVolume
from medtrans.training.parallel import ALONE, Group
from medtrans.training.pseudo import pseudo_source

Item = dict[str, Tensor | int]
"""One patch: {"target": (1, H, W) [, "source": (2k + 1, H, W)], "label": int}."""
Batch = dict[str, Tensor]
"""Patches stacked along a first axis; "label" has shape (B,)."""
_AHEAD = 4  # batches that each process reads ahead
# Of Linux: where batches wait for the process that trains. torch names what it writes there.
_SHARED = Path("/dev/shm")  # noqa: S108
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


class StageExamples(NamedTuple):
    """What a stage trains on, what it is validated on, and its pseudo-pairs (may be none)."""

    train: Sequence[Example]
    val: Sequence[Example] = ()
    pseudo: Sequence[Example] = ()


def target_example(volume: CachedVolume, label: int) -> Example:
    """Make an example of the noise stage: one target volume; the label is its contrast."""
    return Example({"target": volume}, {"target": 0}, label)


def pair_example(source: CachedVolume, target: CachedVolume, label: int, context: int) -> Example:
    """Make an example of a source with `context` neighbours on each side, and the target.

    Both volumes lie on one grid; the label is the task, or in the noise stage the target contrast.
    """
    return Example({"source": source, "target": target}, {"source": context, "target": 0}, label)


def pseudo_example(target: CachedVolume, label: int, context: int) -> Example:
    """Make an example of a target and a pseudo-source, which is made of the target itself."""
    return replace(pair_example(target, target, label, context), pseudo=True)


class RandomSlices(Dataset[Item]):
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

    def __getitem__(self, position: int) -> Item:
        """Return the patch at a position of the stream, in [-1, 1]."""
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


def batches(
    slices: RandomSlices,
    steps: range,
    batch_size: int,
    workers: int = 1,
    *,
    group: Group = ALONE,
    pin: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of consecutive training steps.

    Parameters
    ----------
    slices : RandomSlices
    steps : range
        The steps, from 0.
    batch_size : int
        Of all processes together; a multiple of their number.
    workers : int
        Processes that read ahead; 0 reads in this one.
    group : Group
        Whose share of every batch to read: the rows `rank::world`.
    pin : bool
        Put batches into page-locked memory, from which a GPU copies while it computes.
    """
    first, end = steps.start * batch_size, steps.stop * batch_size
    if workers and steps and not _fit_shared_memory(slices, batch_size // group.world, workers):
        say(
            f"Warning: {_SHARED} is too small for processes that read ahead, so volumes are read "
            "in this one, which is slower. A container has more with --shm-size=1g."
        )
        workers = 0
    loader: DataLoader[Item] = DataLoader(
        slices,
        batch_size=batch_size // group.world,
        sampler=range(first + group.rank, end, group.world),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_quiet_worker,
        prefetch_factor=_AHEAD if workers else None,
    )
    yield from loader


@contextmanager
def readers_errors() -> Iterator[None]:
    """Say in a sentence what became of a process that reads ahead.

    Its death may be noticed at any moment of the block, also in the middle of a training step.

    Raises
    ------
    TrainingError
        When one has died.
    MedtransError
        What one has raised, without the traceback that torch wraps it in.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        what = str(error).splitlines()[0].partition(". ")[0].rstrip(".")
        raise TrainingError(
            f"A process that reads volumes ahead has died: {what}. Memory or shared memory "
            f"({_SHARED}) was short, most likely. Go on with --resume where there is "
            "more; a container has more shared memory with --shm-size=1g."
        ) from None
    except MedtransError as error:
        if "in DataLoader worker process" not in str(error):
            raise
        sentence = str(error).strip().splitlines()[-1].partition(f"{type(error).__name__}: ")[2]
        raise type(error)(sentence) from None


def _fit_shared_memory(slices: RandomSlices, rows: int, workers: int) -> bool:
    """Whether the batches that are read ahead fit; else the system kills who writes them."""
    if not _SHARED.is_dir():
        return True
    item = slices[0]
    size = sum(value.nbytes for value in item.values() if isinstance(value, Tensor))
    return size * rows * (_AHEAD * workers + 2) <= shutil.disk_usage(_SHARED).free


def _quiet_worker(_: int) -> None:
    """Leave stopping to the main process, which saves first: a job's signal reaches them all.

    A second SIGTERM ends it: so does Python, when it exits, with processes that are still there.
    """

    def first(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, first)
    torch.set_num_threads(1)
