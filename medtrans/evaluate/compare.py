"""Scores of a model on the subjects of a manifest's split, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from monai.data import MetaTensor

from medtrans.config.schema import PercentileScale, Pipeline
from medtrans.config.terms import Contrast, Task
from medtrans.data.manifest import Entry, Manifest, Pair
from medtrans.evaluate.baselines import ToneCurve
from medtrans.evaluate.scores import array_axis, score
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile, measure_profile
from medtrans.preprocessing.slices import AXES
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.voxels import Mask, Voxels


@dataclass(frozen=True)
class Case:
    """One subject's pair, read."""

    subject: str
    source: MetaTensor
    target: MetaTensor
    mask: Mask


def evaluate_model(
    translator: Translator,
    manifest: Manifest,
    split: str,
    task_name: str | None,
    all_settings: list[Settings],
    on_subject: Callable[[], None] = lambda: None,
) -> pd.DataFrame:
    """Score a model in several settings, and the baselines, on every pair of a split.

    The tone curve is fitted on the train split. MR volumes are compared on the scale of their own
    foreground's 99.5th percentile, and again after a least-squares linear fit; volumes with a
    fixed window (CT) on the window's scale.

    Returns
    -------
    DataFrame
        One row per subject and method: what `score` gives, in the target's foreground.
    """
    pipeline = translator.package.pipeline
    task = translator.package.task(task_name)
    curve = _fit_tone_curve(manifest.pairs(*task, "train"), task, pipeline)
    rows = []
    for case in _cases(manifest.require_pairs(*task, split)):
        for method, predicted in _predictions(case, task, translator, all_settings, curve):
            axis = array_axis(case.target, AXES[pipeline.slices.axis])
            scores = score(predicted, case.target.numpy(), case.mask, _window(pipeline, task), axis)
            rows.append({"subject": case.subject, "task": str(task), "method": method, **scores})
        on_subject()
    return pd.DataFrame(rows)


def summarise(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean over subjects, one row per method, in the table's order."""
    means = table.groupby("method", sort=False).mean(numeric_only=True).reset_index()
    return [{str(k): v for k, v in row.items()} for row in means.to_dict("records")]


def _cases(pairs: list[Pair]) -> Iterator[Case]:
    for pair in pairs:
        source, target = _read(pair.source), _read(pair.target)
        require_same_grid(source, target, f"{pair.source.path} and {pair.target.path}")
        yield Case(pair.source.subject, source, target, find_foreground(target.numpy()))


def _read(entry: Entry) -> MetaTensor:
    entry.verify()
    return read_volume(entry.path)


def _predictions(
    case: Case,
    task: Task,
    translator: Translator,
    all_settings: list[Settings],
    curve: ToneCurve | None,
) -> Iterator[tuple[str, Voxels]]:
    pipeline = translator.package.pipeline
    yield "identity", case.source.numpy()
    if curve is not None:
        unit = _window(pipeline, task) or Profile(0, 1)
        predicted = unit.restore(curve(_normalised(case.source, task.source, pipeline)))
        yield "tone curve", np.where(case.mask, predicted, np.float32(unit.low))
    for settings in all_settings:
        asked = replace(settings, task=str(task))
        yield settings.mode, translator.translate_volume(case.source, asked).voxels


def _fit_tone_curve(pairs: list[Pair], task: Task, pipeline: Pipeline) -> ToneCurve | None:
    def voxels() -> Iterator[tuple[Voxels, Voxels]]:
        for case in _cases(pairs):
            source = _normalised(case.source, task.source, pipeline)
            target = _normalised(case.target, task.target, pipeline)
            yield source[case.mask], target[case.mask]

    return ToneCurve.fit(voxels()) if pairs else None


def _normalised(volume: MetaTensor, contrast: Contrast, pipeline: Pipeline) -> Voxels:
    values = volume.numpy()
    scale = pipeline.contrasts[contrast]
    return measure_profile(values, find_foreground(values), scale).normalise(values)


def _window(pipeline: Pipeline, task: Task) -> Profile | None:
    scale = pipeline.contrasts[task.target]
    return None if isinstance(scale, PercentileScale) else Profile(*scale.window_hu)
