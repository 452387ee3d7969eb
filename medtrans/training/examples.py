"""From a manifest to training examples: which volumes each stage reads, with which label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Task
from medtrans.data.manifest import Entry, Manifest, Pair, chosen_subjects
from medtrans.system.progress import track
from medtrans.training.cache import CachedVolume, VolumeCache
from medtrans.training.data import Example
from medtrans.training.stages import pair_example, pseudo_example, target_example
from medtrans.volumes.geometry import require_same_grid


@dataclass(frozen=True)
class TrainingData:
    """The volumes of a run, by label: contrast for the targets, task for the pairs."""

    targets: dict[str, list[Entry]]
    validation_targets: dict[str, list[Entry]]
    pairs: dict[Task, list[Pair]]
    validation_pairs: dict[Task, list[Pair]]


class StageExamples(NamedTuple):
    """What a stage trains on, what it is validated on, and its pseudo-pairs (may be none)."""

    train: list[Example]
    val: list[Example]
    pseudo: list[Example]


def select_data(
    manifest: Manifest, pipeline: Pipeline, pairs: int | None, seed: int, *, need_pairs: bool = True
) -> TrainingData:
    """Look up a run's volumes in the manifest.

    Parameters
    ----------
    manifest : Manifest
    pipeline : Pipeline
    pairs : int or None
        How many subjects' pairs to keep, whatever their tasks; 0 trains from unpaired targets
        alone; None keeps all.
    seed : int
        Decides which.
    need_pairs : bool
        Whether a manifest without a single pair is an error.

    Raises
    ------
    ManifestError
        When a target contrast has no volume, or there is no pair although some were asked for.
    """
    tasks = pipeline.parsed_tasks
    every = {t: manifest.pairs(*t, "train") for t in tasks}
    kept = chosen_subjects([pair for found in every.values() for pair in found], pairs, seed)
    found = {t: [pair for pair in ps if pair.source.subject in kept] for t, ps in every.items()}
    if need_pairs and pairs != 0 and not any(found.values()):
        manifest.require_pairs(*tasks[0], "train", pairs, seed)
    return TrainingData(
        {c: manifest.require_targets(c) for c in pipeline.targets},
        {c: manifest.targets(c, "val") for c in pipeline.targets},
        found,
        {t: manifest.pairs(*t, "val") for t in tasks},
    )


def noise_examples(data: TrainingData, cache: VolumeCache, pipeline: Pipeline) -> StageExamples:
    """Unpaired targets; where the network sees the source, pairs and pseudo-pairs of the targets.

    The label is the target contrast.
    """
    if not pipeline.noise.sees_source:
        return StageExamples(
            _target_examples(data.targets, cache, pipeline),
            _target_examples(data.validation_targets, cache, pipeline),
            [],
        )
    labels = dict(zip(pipeline.parsed_tasks, pipeline.target_labels, strict=True))
    context = pipeline.slices.context
    pseudo = [
        pseudo_example(volume, pipeline.targets.index(contrast), context)
        for contrast, entries in data.targets.items()
        for volume in prepared(entries, cache)
    ]
    return StageExamples(
        _pair_examples(data.pairs, labels, cache, context),
        _pair_examples(data.validation_pairs, labels, cache, context),
        pseudo,
    )


def residual_examples(data: TrainingData, cache: VolumeCache, pipeline: Pipeline) -> StageExamples:
    """Pairs, and pseudo-pairs of the unpaired targets where they are wanted or all there is.

    The label is the task.
    """
    labels = {task: label for label, task in enumerate(pipeline.parsed_tasks)}
    context = pipeline.slices.context
    wanted = pipeline.residual.pseudo_until > 0 or not any(data.pairs.values())
    pseudo = [
        pseudo_example(volume, label, context)
        for task, label in labels.items()
        for volume in prepared(data.targets[task.target], cache)
        if wanted
    ]
    return StageExamples(
        _pair_examples(data.pairs, labels, cache, context),
        _pair_examples(data.validation_pairs, labels, cache, context),
        pseudo,
    )


def prepared(entries: Sequence[Entry], cache: VolumeCache) -> list[CachedVolume]:
    """Preprocess volumes of one contrast that are not yet, with a progress bar; return all."""
    missing = [entry for entry in entries if not cache.has(entry)]
    if missing:
        with track(f"preparing {missing[0].contrast} volumes") as update:
            for done, entry in enumerate(missing, start=1):
                cache.get(entry)
                update(done, len(missing))
    return [cache.get(entry) for entry in entries]


def _target_examples(
    entries: Mapping[str, list[Entry]], cache: VolumeCache, pipeline: Pipeline
) -> list[Example]:
    return [
        target_example(volume, pipeline.targets.index(contrast))
        for contrast, found in entries.items()
        for volume in prepared(found, cache)
    ]


def _pair_examples(
    pairs: Mapping[Task, list[Pair]],
    labels: Mapping[Task, int],
    cache: VolumeCache,
    context: int,
) -> list[Example]:
    examples = []
    for task, found in pairs.items():
        sources = prepared([pair.source for pair in found], cache)
        targets = prepared([pair.target for pair in found], cache)
        for pair, source, target in zip(found, sources, targets, strict=True):
            require_same_grid(
                source.grid, target.grid, f"{pair.source.path} and {pair.target.path}"
            )
            examples.append(pair_example(source, target, labels[task], context))
    return examples
