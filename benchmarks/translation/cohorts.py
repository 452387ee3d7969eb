"""The data of the benchmark: which manifest, which task, and ever fewer pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from medtrans.config.recipes import load_pipeline
from medtrans.config.schema import Pipeline
from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest, write_manifest
from medtrans.training.cache import VolumeCache
from medtrans.training.data import Example, StageExamples
from medtrans.training.examples import (
    TrainingData,
    noise_examples,
    residual_examples,
    select_data,
)

HERE = Path(__file__).parent

Changes = dict[str, Any]
"""Keys of a recipe with their new values, table by table."""


@dataclass(frozen=True)
class Cohort:
    """One manifest and task.

    Attributes
    ----------
    name : str
    task : Task
    manifest : Path
    overrides : Changes
        What its recipe changes in the benchmark's.
    related : sequence of str
        Tasks to the same target, which a unified model learns beside this one.
    """

    name: str
    task: Task
    manifest: Path
    overrides: Changes
    related: Sequence[str] = ()

    def pipeline(self, variant: Changes | None = None) -> Pipeline:
        """Return the benchmark's recipe for this cohort, with a variant's changes."""
        base = load_pipeline(HERE / "recipe.toml", {**self.overrides, "tasks": [str(self.task)]})
        return load_pipeline_with(base, variant or {})


def leave_one_out(manifest: Path, number: int, folder: Path) -> Path:
    """Write a manifest whose test split is one subject of this one's train split.

    The rest of the train split and the val split train; this one's test split is not there.
    """
    table = Manifest.read(manifest).table
    table = table[table["split"] != "test"]
    subjects = sorted(set(table.loc[table["split"] == "train", "subject"]))
    held_out = subjects[number % len(subjects)]
    table["split"] = table["subject"].map(lambda s: "test" if s == held_out else "train")
    path = folder / f"{manifest.stem}-without-{held_out}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = table[["subject", "contrast", "path", "split"]].to_dict("records")
    write_manifest(path, [{**row, "path": Path(row["path"]).absolute()} for row in rows])
    return path


def leave_site_out(
    manifest: Path, site: str, source: str, folder: Path, *, its_targets: bool
) -> Path:
    """Write a manifest whose test split is half of the subjects of one site.

    All subjects of the other sites train. With `its_targets` the site's other half gives its target
    volumes, unpaired; without, nothing of the site is seen. What is scored is the same.
    """
    table = pd.read_csv(manifest, dtype=str)
    subjects = sorted(set(table.loc[table["site"] == site, "subject"]))
    scored, unpaired = set(subjects[::2]), set(subjects[1::2])
    kept = ~table["subject"].isin(unpaired) | (its_targets & (table["contrast"] != source))
    table = table[kept].copy()
    table["split"] = ["test" if subject in scored else "train" for subject in table["subject"]]
    path = folder / f"{manifest.stem}-without-{site}{'-targets' if its_targets else ''}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = table[["subject", "contrast", "path", "split"]].to_dict("records")
    write_manifest(
        path, [{**row, "path": (manifest.parent / row["path"]).resolve()} for row in rows]
    )
    return path


def load_pipeline_with(pipeline: Pipeline, changes: Changes) -> Pipeline:
    """Lay changes, table by table, over a recipe."""
    raw = pipeline.model_dump(mode="json")
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) else value
    return Pipeline.model_validate(raw)


class CohortData:
    """A cohort's examples, preprocessed under `folder`."""

    def __init__(self, cohort: Cohort, pipeline: Pipeline, folder: Path) -> None:
        self.cohort, self.pipeline = cohort, pipeline
        self.cache = VolumeCache(folder / "cache", pipeline)

    @cached_property
    def manifest(self) -> Manifest:
        """The cohort's manifest, read."""
        return Manifest.read(self.cohort.manifest)

    def residual(self, pairs: str, seed: int) -> StageExamples:
        """Return the residual stage's examples with the task's pairs cut down to `pairs`.

        Related tasks keep theirs, since it is this task that lacks pairs.
        """
        data = self._selected(pairs, seed)
        return _limited(residual_examples(data, self.cache, self.pipeline), pairs, self._label)

    def balanced(self, pairs: str, seed: int) -> StageExamples:
        """Return `residual`, with half of the images the task's own where there are others."""
        examples, label = self.residual(pairs, seed), self._label
        of_task = [example for example in examples.train if example.label == label]
        related = [example for example in examples.train if example.label != label]
        times = max(1, round(len(related) / len(of_task))) if of_task else 1
        return examples._replace(train=of_task * times + related)

    @property
    def _label(self) -> int:
        return self.pipeline.parsed_tasks.index(self.cohort.task)

    def _data(self, subjects: int | None, seed: int) -> TrainingData:
        tasks = self.pipeline.parsed_tasks
        return select_data(self.manifest, tasks, subjects, seed, need_pairs=False)

    def _selected(self, pairs: str, seed: int) -> TrainingData:
        few = self.manifest.pairs(*self.cohort.task, "train", _subjects(pairs), seed)
        every = self._data(None, seed)
        return replace(every, pairs={**every.pairs, self.cohort.task: few})

    def noise(self, pairs: str, seed: int) -> StageExamples:
        """Return the noise stage's examples; its pairs, where it has any, are the same."""
        data = self._selected(pairs, seed)
        label = self.pipeline.targets.index(self.cohort.task.target)
        return _limited(noise_examples(data, self.cache, self.pipeline), pairs, label)

    def scored(self, split: str) -> Iterator[tuple[str, Example]]:
        """Yield every subject of a split with its pair."""
        data = self._data(0, 0)
        for pair in self.manifest.require_pairs(*self.cohort.task, split):
            only = replace(data, pairs={self.cohort.task: [pair]}, validation_pairs={})
            yield pair.source.subject, residual_examples(only, self.cache, self.pipeline).train[0]


def _subjects(pairs: str) -> int | None:
    """How many subjects' pairs "all", "none", "2 subjects" or "8 slices" (of one subject) means."""
    number, _, unit = pairs.partition(" ")
    if unit == "slices":
        return 1
    return {"none": 0, "all": None}[pairs] if not unit else int(number)


def _limited(examples: StageExamples, pairs: str, label: int) -> StageExamples:
    """Keep so many slices of a subject's pairs with this label, evenly spaced."""
    number, _, unit = pairs.partition(" ")
    if unit != "slices":
        return examples

    def limited(example: Example) -> Example:
        paired = "source" in example.volumes and example.label == label
        return _thinned(example, int(number)) if paired else example

    return examples._replace(train=[limited(example) for example in examples.train])


def _thinned(example: Example, count: int) -> Example:
    lead = example.volumes["source"]
    step = len(lead.occupied) / count
    kept = tuple(lead.occupied[int((i + 0.5) * step)] for i in range(count))
    return replace(example, volumes={**example.volumes, "source": replace(lead, occupied=kept)})
