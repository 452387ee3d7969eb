"""What a model package's configs/train.json points at, when MONAI's bundle runner trains it.

It is `medtrans train` with the config's values: the same loop, checkpoints and package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch.utils.data import Dataset

from medtrans.config.recipes import pipeline_from_dict
from medtrans.config.schema import Pipeline
from medtrans.config.terms import StageChoice
from medtrans.data.manifest import Manifest
from medtrans.system.progress import say
from medtrans.training.cache import VolumeCache
from medtrans.training.data import Item, RandomSlices
from medtrans.training.examples import residual_examples, select_data
from medtrans.training.parallel import current
from medtrans.training.plan import TrainingPlan
from medtrans.training.recipe import with_stages
from medtrans.training.run import train


class TrainingPatches(Dataset[Item]):
    """What the residual stage trains on (Eq. 9): item i is a function of (seed, i).

    The volumes are looked up and prepared when the first item is asked for. The noise stage draws
    its patches from the same manifest's target volumes.

    Parameters
    ----------
    data : path
        The manifest.
    pipeline : mapping
        The recipe.
    cache_dir : path
        Where prepared volumes are kept.
    pairs : int or None
        How many subjects' pairs to use; None for all.
    seed : int
    """

    def __init__(
        self,
        data: str | Path,
        pipeline: Mapping[str, object],
        cache_dir: str | Path,
        pairs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.data, self.cache_dir = Path(data), Path(cache_dir)
        self.pipeline: Pipeline = pipeline_from_dict(pipeline, "pipeline")
        self.pairs, self.seed = pairs, seed

    def __len__(self) -> int:
        return self.pipeline.residual.iterations * self.pipeline.residual.batch_size

    def __getitem__(self, position: int) -> Item:
        if position >= len(self):
            raise IndexError(position)
        return self._slices[position]

    def plan(self, out: Path) -> TrainingPlan:
        """Plan a run on this data."""
        return TrainingPlan(
            self.pipeline, Manifest.read(self.data), out, pairs=self.pairs, seed=self.seed
        )

    @cached_property
    def _slices(self) -> RandomSlices:
        tasks = self.pipeline.parsed_tasks
        data = select_data(Manifest.read(self.data), tasks, self.pairs, self.seed)
        cache = VolumeCache(self.cache_dir, self.pipeline)
        examples = residual_examples(data, cache, self.pipeline)
        return RandomSlices(examples.train, self.pipeline, "residual", self.seed, examples.pseudo)


class Trainer:
    """Train the stages of a data set's recipe and write a model package.

    The parameters are what configs/train.json of a package may say, so that they keep their names.

    Parameters
    ----------
    dataset : TrainingPatches
    output_dir : path
        The run's folder; the package will be output_dir/model.
    max_epochs : int
        How often the recipe's number of iterations is gone through.
    device : torch.device or str
    initial : str or None
        A model package to start from.
    stages : "all", "noise" or "residual"
    resume : bool
    train_handlers : sequence of callable
        Called with the trainer when the package is written.
    """

    def __init__(
        self,
        dataset: TrainingPatches,
        output_dir: str | Path,
        max_epochs: int = 1,
        device: torch.device | str = "auto",
        initial: str | None = None,
        stages: StageChoice = "all",
        resume: bool = False,
        train_handlers: Sequence[Callable[[Trainer], None]] = (),
    ) -> None:
        self.dataset, self.out, self.max_epochs = dataset, Path(output_dir), max_epochs
        self.device, self.initial, self.stages = str(device), initial, stages
        self.resume, self.handlers = resume, train_handlers
        self.model: Path | None = None

    def run(self) -> Path | None:
        """Train; returns the package's folder (None in all but the first of several processes)."""
        group = current()
        written = train(self.plan(), group)
        if not group.leads:
            return None
        self.model = written
        for handler in self.handlers:
            handler(self)
        return self.model

    def plan(self) -> TrainingPlan:
        """Return what will be trained."""
        plan = self.dataset.plan(self.out)
        longer = with_stages(
            plan.pipeline, lambda stage: {"iterations": self.max_epochs * stage.iterations}
        )
        return replace(
            plan,
            pipeline=longer,
            initial=self.initial,
            stages=self.stages,
            device=self.device,
            resume=self.resume,
        )


class TellWhereModelIs:
    """Handler: say where the trained package is."""

    def __call__(self, trainer: Trainer) -> None:
        if trainer.model is not None:
            say(f"The model is in {trainer.model}")
