"""From a manifest to training examples: which volumes each stage reads, with which label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Axis, Contrast, Task
from medtrans.data.manifest import Entry, Manifest, Pair, chosen_subjects
from medtrans.preprocessing.slices import AXES, fitting_axes
from medtrans.system.progress import say, track
from medtrans.training.cache import CachedVolume, VolumeCache
from medtrans.training.data import (
    Example,
    StageExamples,
    pair_example,
    pseudo_example,
    target_example,
)
from medtrans.volumes.geometry import require_same_grid, spacing_mm


@dataclass(frozen=True)
class TrainingData:
    """The volumes of a run, by label: contrast for the targets, task for the pairs."""

    targets: dict[Contrast, list[Entry]]
    validation_targets: dict[Contrast, list[Entry]]
    pairs: dict[Task, list[Pair]]
    validation_pairs: dict[Task, list[Pair]]


def select_data(
    manifest: Manifest,
    tasks: Sequence[Task],
    pairs: int | None,
    seed: int,
    *,
    need_pairs: bool = True,
) -> TrainingData:
    """Look up a run's volumes in the manifest.

    Parameters
    ----------
    manifest : Manifest
    tasks : sequence of Task
        What is trained; at least one.
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
    listed = {t: manifest.pairs(*t, "train") for t in tasks}
    kept = chosen_subjects([pair for of_task in listed.values() for pair in of_task], pairs, seed)
    limited = {t: [p for p in of_task if p.source.subject in kept] for t, of_task in listed.items()}
    for task in tasks:
        for split in ("train", "val"):
            if left_out := manifest.left_out(*task, split):
                say(left_out)
    if need_pairs and pairs != 0 and not any(limited.values()):
        manifest.require_pairs(*tasks[0], "train", pairs, seed)
    targets = dict.fromkeys(task.target for task in tasks)
    return TrainingData(
        {c: manifest.require_targets(c) for c in targets},
        {c: manifest.targets(c, "val") for c in targets},
        limited,
        {t: manifest.pairs(*t, "val") for t in tasks},
    )


def noise_examples(data: TrainingData, cache: VolumeCache, pipeline: Pipeline) -> StageExamples:
    """Prepare what the noise stage reads; the label is the target contrast.

    Unpaired targets alone, unless the recipe says `noise.sees_source`: then pairs, and pseudo-pairs
    of the unpaired targets.

    Parameters
    ----------
    data : TrainingData
    cache : VolumeCache
        Where prepared volumes are kept.
    pipeline : Pipeline

    Raises
    ------
    FileError
        When a volume cannot be prepared, or the volumes of a pair lie on different grids.
    """
    return _along_all(_noise_along, data, cache, pipeline)


def _noise_along(data: TrainingData, cache: VolumeCache, pipeline: Pipeline) -> StageExamples:
    """Prepare what the noise stage reads along the axis of a cache."""
    label_of = {contrast: label for label, contrast in enumerate(pipeline.targets)}
    if not pipeline.noise.sees_source:
        return StageExamples(
            _target_examples(data.targets, label_of, cache),
            _target_examples(data.validation_targets, label_of, cache),
        )
    context = pipeline.slices.context
    pseudo = [
        pseudo_example(volume, label_of[contrast], context)
        for contrast, entries in data.targets.items()
        for volume in prepared(entries, cache)
    ]
    labels = {task: label_of[task.target] for task in pipeline.parsed_tasks}
    return StageExamples(
        _pair_examples(data.pairs, labels, cache, context),
        _pair_examples(data.validation_pairs, labels, cache, context),
        pseudo,
    )


def residual_examples(data: TrainingData, cache: VolumeCache, pipeline: Pipeline) -> StageExamples:
    """Prepare what the residual stage reads; the label is the task.

    Pairs, and pseudo-pairs of the unpaired targets where the recipe asks for them or there is no
    pair.

    Parameters
    ----------
    data : TrainingData
    cache : VolumeCache
        Where prepared volumes are kept.
    pipeline : Pipeline

    Raises
    ------
    FileError
        When a volume cannot be prepared, or the volumes of a pair lie on different grids.
    """
    return _along_all(_residual_along, data, cache, pipeline)


def _along_all(
    prepare: Callable[[TrainingData, VolumeCache, Pipeline], StageExamples],
    data: TrainingData,
    cache: VolumeCache,
    pipeline: Pipeline,
) -> StageExamples:
    """Prepare what a stage reads along all axes of a recipe; it is validated along the leading."""
    leading = prepare(data, cache, pipeline)
    train, pseudo = list(leading.train), list(leading.pseudo)
    unvalidated = replace(data, validation_pairs={}, validation_targets={})
    for axis in pipeline.slices.also:
        other = prepare(unvalidated, _along(axis, cache), pipeline)
        train += [example for example in other.train if _fits(example, axis, pipeline)]
        pseudo += [example for example in other.pseudo if _fits(example, axis, pipeline)]
    return StageExamples(train, leading.val, pseudo)


def _residual_along(data: TrainingData, cache: VolumeCache, pipeline: Pipeline) -> StageExamples:
    """Prepare what the residual stage reads along the axis of a cache."""
    labels = {task: label for label, task in enumerate(pipeline.parsed_tasks)}
    context = pipeline.slices.context
    # All are prepared, pseudo-pairs or not: the model's intensity profiles are taken from them.
    targets = {contrast: prepared(entries, cache) for contrast, entries in data.targets.items()}
    use_pseudo = pipeline.residual.pseudo_until > 0 or not any(data.pairs.values())
    pseudo = [
        pseudo_example(volume, label, context)
        for task, label in labels.items()
        for volume in (targets[task.target] if use_pseudo else ())
    ]
    return StageExamples(
        _pair_examples(data.pairs, labels, cache, context),
        _pair_examples(data.validation_pairs, labels, cache, context),
        pseudo,
    )


def _along(axis: Axis, cache: VolumeCache) -> VolumeCache:
    """Return the cache of the same volumes, cut along another axis."""
    slices = cache.pipeline.slices.model_copy(update={"axis": axis, "also": ()})
    return VolumeCache(cache.folder, cache.pipeline.model_copy(update={"slices": slices}))


def _fits(example: Example, axis: Axis, pipeline: Pipeline) -> bool:
    """Whether a volume may be cut along another axis: it has slices there, of usual pixels."""
    lead = example.lead
    grid = lead.grid
    fitting = fitting_axes(pipeline, grid.shape, spacing_mm(grid.affine).tolist())
    return lead.axis == AXES[axis] and axis in fitting


def prepared(entries: Sequence[Entry], cache: VolumeCache) -> list[CachedVolume]:
    """Preprocess those volumes of one contrast that are not yet, with a progress bar; return all.

    Raises
    ------
    FileError
        When a volume cannot be read, or holds nothing to translate.
    """
    missing = [entry for entry in entries if not cache.has(entry)]
    if missing:
        with track(f"preparing {missing[0].contrast} volumes") as update:
            for done, entry in enumerate(missing, start=1):
                cache.get(entry)
                update(done, len(missing))
    return [cache.get(entry) for entry in entries]


def _target_examples(
    entries: Mapping[Contrast, list[Entry]], labels: Mapping[Contrast, int], cache: VolumeCache
) -> list[Example]:
    return [
        target_example(volume, labels[contrast])
        for contrast, of_contrast in entries.items()
        for volume in prepared(of_contrast, cache)
    ]


def _pair_examples(
    pairs: Mapping[Task, list[Pair]],
    labels: Mapping[Task, int],
    cache: VolumeCache,
    context: int,
) -> list[Example]:
    examples = []
    for task, of_task in pairs.items():
        sources = prepared([pair.source for pair in of_task], cache)
        targets = prepared([pair.target for pair in of_task], cache)
        for pair, source, target in zip(of_task, sources, targets, strict=True):
            names = f"{pair.source.path} and {pair.target.path}"
            require_same_grid(source.grid, target.grid, names)
            examples.append(pair_example(source, target, labels[task], context))
    return examples
