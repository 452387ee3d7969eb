"""Scores of a model on the subjects of a manifest's split, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.data import MetaTensor
from numpy.typing import NDArray

from medtrans.config import PercentileScale, Pipeline, Task
from medtrans.evaluate.baselines import ToneCurve
from medtrans.evaluate.metrics import linear_fit, similarity, unit_scale
from medtrans.foreground import Mask, find_foreground
from medtrans.intensity import Profile, measure_profile
from medtrans.manifest import Manifest, Pair
from medtrans.settings import Settings
from medtrans.translate import Translator
from medtrans.volumes import read_volume, require_same_grid

Values = NDArray[np.float32]


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
        One row per subject and method: psnr, ssim, mae in the target's foreground, and the same
        after the fit with the suffix `_fit`.
    """
    pipeline = translator.package.pipeline
    task = translator.package.task(task_name)
    curve = _fit_tone_curve(manifest.pairs(*task, "train"), task, pipeline)
    rows = []
    for case in _cases(manifest.require_pairs(*task, split)):
        for method, predicted in _predictions(case, task, translator, all_settings, curve):
            scores = score(predicted, case.target.numpy(), case.mask, _window(pipeline, task))
            rows.append({"subject": case.subject, "task": str(task), "method": method, **scores})
        on_subject()
    return pd.DataFrame(rows)


def score(
    predicted: Values, reference: Values, mask: Mask, window: Profile | None = None
) -> dict[str, float]:
    """Compare two volumes in a mask, raw and after a linear fit.

    Parameters
    ----------
    predicted, reference : array of float32
        Shape (X, Y, Z), any intensity unit.
    mask : array of bool
        Shape (X, Y, Z).
    window : Profile, optional
        The fixed intensity window that becomes [0, 1]; None for MR, where each volume's own
        foreground percentile does.
    """
    if window is None:
        raw, truth = unit_scale(predicted, mask), unit_scale(reference, mask)
    else:
        raw, truth = ((window.normalise(v) + 1) * np.float32(0.5) for v in (predicted, reference))
    plain = similarity(raw, truth, mask).as_dict()
    fitted = similarity(linear_fit(raw, truth, mask), truth, mask).as_dict()
    return {**plain, **{f"{key}_fit": value for key, value in fitted.items()}}


def evaluate_files(prediction: Path, reference: Path, mask_path: Path | None) -> dict[str, float]:
    """Score one file against another on the same grid."""
    predicted, truth = read_volume(prediction), read_volume(reference)
    require_same_grid(predicted, truth, "The prediction and the reference")
    if mask_path is None:
        mask = find_foreground(truth.numpy())
    else:
        mask_volume = read_volume(mask_path)
        require_same_grid(mask_volume, truth, "The mask and the reference")
        mask = mask_volume.numpy() > 0
    return score(predicted.numpy(), truth.numpy(), mask)


def summarise(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean over subjects, one row per method, in the table's order."""
    means = table.groupby("method", sort=False).mean(numeric_only=True).reset_index()
    return [{str(k): v for k, v in row.items()} for row in means.to_dict("records")]


def _cases(pairs: list[Pair]) -> Iterator[Case]:
    for pair in pairs:
        source, target = read_volume(pair.source.path), read_volume(pair.target.path)
        require_same_grid(source, target, f"{pair.source.path} and {pair.target.path}")
        yield Case(pair.source.subject, source, target, find_foreground(target.numpy()))


def _predictions(
    case: Case,
    task: Task,
    translator: Translator,
    all_settings: list[Settings],
    curve: ToneCurve | None,
) -> Iterator[tuple[str, Values]]:
    pipeline = translator.package.pipeline
    yield "identity", case.source.numpy()
    if curve is not None:
        unit = _window(pipeline, task) or Profile(0, 1)
        predicted = unit.restore(curve(_normalised(case.source, task.source, pipeline)))
        yield "tone curve", np.where(case.mask, predicted, np.float32(unit.low))
    for settings in all_settings:
        yield settings.mode, translator.translate_volume(case.source, settings).voxels


def _fit_tone_curve(pairs: list[Pair], task: Task, pipeline: Pipeline) -> ToneCurve | None:
    def voxels() -> Iterator[tuple[Values, Values]]:
        for case in _cases(pairs):
            source = _normalised(case.source, task.source, pipeline)
            target = _normalised(case.target, task.target, pipeline)
            yield source[case.mask], target[case.mask]

    return ToneCurve.fit(voxels()) if pairs else None


def _normalised(volume: MetaTensor, contrast: str, pipeline: Pipeline) -> Values:
    values = volume.numpy()
    scale = pipeline.contrasts[contrast]  # type: ignore[index]
    return measure_profile(values, find_foreground(values), scale).normalise(values)


def _window(pipeline: Pipeline, task: Task) -> Profile | None:
    scale = pipeline.contrasts[task.target]  # type: ignore[index]
    return None if isinstance(scale, PercentileScale) else Profile(*scale.window_hu)
