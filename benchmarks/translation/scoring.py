"""Scores of translated slices of one subject, in the networks' space."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch

from benchmarks.translation.methods import Predict
from medtrans.diffusion import SliceNoise
from medtrans.evaluate.metrics import linear_fit, similarity
from medtrans.evaluate.realism import realism_distance
from medtrans.evaluate.texture import high_frequency_ratio, slice_ratio
from medtrans.training.data import Example
from medtrans.training.validation import slice_support
from medtrans.volumes.voxels import Mask, Voxels

_BATCH = 16
_STRIDE = 8  # pixels: what slices are padded to
_MARGIN = 1  # pixels around the source's foreground that a translation may fill

Scores = dict[str, str | float | None]
"""Columns of results.csv with their values; None where a score cannot be had."""


def score_subject(
    predict: Predict, example: Example, seed: int, correlation: float = 0.0
) -> Scores:
    """Translate all of a subject's slices and compare them with its target; see `compared`."""
    source, target = (slices_of(example, key) for key in ("source", "target"))
    start = time.process_time()
    predicted = translate_slices(predict, source, seed, correlation)
    seconds = time.process_time() - start
    predicted = np.where(margin_of(source), predicted, np.float32(-1))
    return {**compared(predicted, target[:, 0]), "seconds": round(seconds, 3)}


def margin_of(source: Voxels) -> Mask:
    """(n, 2k + 1, H, W) -> (n, H, W): where a translation of these slices may show something."""
    return slice_support(source[:, source.shape[1] // 2], _MARGIN, (1.0, 1.0))


def compared(predicted: Voxels, target: Voxels) -> Scores:
    """Compare translated slices with the real ones, both (n, H, W) in [-1, 1].

    Inside the target's foreground and whole, raw and after a least-squares linear fit; texture on
    the raw scale, since a fit by least squares shrinks what it cannot explain.
    """
    image, truth = (predicted + 1) / 2, (target + 1) / 2
    mask = truth > 0
    fitted = np.where(mask | (image > 0), linear_fit(image, truth, mask), np.float32(0))
    scores: Scores = {}
    for name, values in (("", image), ("_fit", fitted)):
        inside = similarity(values, truth, mask)
        whole = similarity(values, truth, np.ones_like(mask))
        scores |= {f"{k}{name}": v for k, v in inside.as_dict().items()}
        scores |= {f"whole_{k}{name}": v for k, v in whole.as_dict().items()}
    texture = {
        "high_frequency": high_frequency_ratio(image, truth, mask, axis=0),
        "slice_to_slice": slice_ratio(image, truth, mask, axis=0),
        "realism": _realism(image, truth),
    }
    return {**scores, **texture}


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Add a column `name`: the method, with its mode where it has one."""
    mode = table["mode"]
    return table.assign(name=table.method + (" " + mode).where(mode != "", ""))


def _realism(image: Voxels, truth: Voxels) -> float | None:
    try:
        return realism_distance(image, truth)
    except ValueError:  # too few patches with foreground: a cohort of single slices
        return None


def translate_slices(
    predict: Predict, source: Voxels, seed: int, correlation: float = 0.0
) -> Voxels:
    """(n, 2k + 1, H, W) -> (n, H, W), clipped to [-1, 1]; the noise is a function of the slice."""
    done = []
    for first in range(0, len(source), _BATCH):
        batch = torch.from_numpy(source[first : first + _BATCH])
        indices = range(first, first + len(batch))
        size = (batch.shape[2], batch.shape[3])
        eps = SliceNoise(seed, 0, indices, size, batch.device, correlation).start()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            done.append(predict(batch, eps).float().clamp(-1, 1)[:, 0].numpy())
    return np.concatenate(done)


def slices_of(example: Example, key: str) -> Voxels:
    """Read all slices with foreground, cut to its box and padded; (n, 2k + 1, H, W) in [-1, 1]."""
    lead = example.lead
    corner = (lead.box[0][0], lead.box[1][0])
    size = tuple(-(-(end - start) // _STRIDE) * _STRIDE for start, end in lead.box)
    context = example.contexts[key]
    volume = example.volumes[key]
    return np.stack([volume.patch(i, corner, size, context) for i in lead.occupied])
