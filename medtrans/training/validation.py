"""Scores on the val split: the translated result, not only the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from medtrans.config.schema import Pipeline, VolumeConfig
from medtrans.config.terms import Mode
from medtrans.diffusion import Schedule, Stages, Steps, add_noise, middle, slice_noise, translate
from medtrans.evaluate.metrics import linear_fit, psnr, similarity
from medtrans.networks.binding import denoiser, residual_predictor
from medtrans.preprocessing.foreground import dilate
from medtrans.system.signals import StopSignal
from medtrans.training.data import Example
from medtrans.volumes.voxels import Mask, Voxels

_BATCH = 4
_SEED = 0  # validation is the same whatever the training's seed, so that runs compare

Scores = dict[str, float]
Rows = list[list[Voxels]]
Predict = Callable[[nn.Module, "ValidationBatch"], dict[str, Tensor]]


@dataclass(frozen=True)
class ValidationBatch:
    """A few evenly spaced slices of one val subject, whole in-plane.

    Attributes
    ----------
    target : Tensor
        Shape (B, 1, H, W).
    source : Tensor or None
        Shape (B, 2k + 1, H, W); None in a noise stage that does not see the source.
    eps : Tensor
        Shape (B, 1, H, W).
    label : Tensor
        Shape (B,).
    """

    target: Tensor
    source: Tensor | None
    eps: Tensor
    label: Tensor

    @property
    def lead(self) -> Tensor:
        """The slices whose foreground counts, (B, H, W): the source's where there is one."""
        return self.target[:, 0] if self.source is None else middle(self.source)[:, 0]


@dataclass(frozen=True)
class Validation:
    """What a stage is scored on.

    Attributes
    ----------
    examples : sequence of Example
        One for each val subject; may be empty.
    predict : callable
        (network, batch) -> {name: images (B, 1, H, W) in [-1, 1]}.
    volume : VolumeConfig
        What slices are padded to, and how far around the foreground a translation may show
        something.
    slices_each : int
        Slices of each subject, evenly spaced over those with foreground.
    """

    examples: Sequence[Example]
    predict: Predict
    volume: VolumeConfig
    slices_each: int


@dataclass
class Outcome:
    """Scores, the mean over subjects, and picture rows: source (if any), predictions, target.

    PSNR is in dB, on a scale on which the networks' [-1, 1] is [0, 1].
    """

    scores: Scores
    rows: Rows = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def validate(
    network: nn.Module,
    validation: Validation,
    device: torch.device,
    stop: StopSignal | None = None,
) -> Outcome | None:
    """Score what is predicted of every val subject's slices.

    Parameters
    ----------
    network : Module
        The averaged network.
    validation : Validation
        With at least one example.
    device : device
        Where the network is.
    stop : StopSignal, optional
        Looked at after every few slices.

    Returns
    -------
    Outcome or None
        None when `stop` is set before the end.
    """
    outcome = Outcome({})
    totals: dict[str, list[float]] = {}
    for example in validation.examples:
        reach_mm = validation.volume.reach_mm(masked=example.lead.masked)
        spacing_mm = example.lead.in_plane_mm
        results = []
        divisible = validation.volume.divisible
        for batch in slices_of(example, validation.slices_each, divisible, device):
            if stop is not None and stop.is_set:
                return None
            results.append(_predicted(network, validation, batch, reach_mm, spacing_mm))
        for name in results[0].images:
            images = np.concatenate([result.images[name] for result in results])
            truth = np.concatenate([r.batch.target.cpu().numpy()[:, 0] for r in results])
            for key, value in _score(images, truth).items():
                totals.setdefault(f"{name}_{key}", []).append(value)
        outcome.rows.append(_picture_row(results[len(results) // 2]))
        outcome.captions = _captions(results[0])
    outcome.scores = {key: float(np.mean(values)) for key, values in totals.items()}
    return outcome


def denoised(schedule: Schedule, pipeline: Pipeline) -> Predict:
    """Predict in the noise stage: D(x0 + sigma eps, sigma), one call from the strongest noise.

    The images are named "denoised".

    Parameters
    ----------
    schedule : Schedule
    pipeline : Pipeline
        Says what the network predicts, and whether it sees the source.
    """

    def predict(network: nn.Module, batch: ValidationBatch) -> dict[str, Tensor]:
        level = torch.full((len(batch.target),), schedule.sigma, device=batch.target.device)
        denoise = denoiser(network, pipeline, schedule, batch.label, batch.source)
        return {"denoised": denoise(add_noise(batch.target, batch.eps, level), level)}

    return predict


def translated(schedule: Schedule, noise: nn.Module | None, pipeline: Pipeline) -> Predict:
    """Predict in the residual stage: the whole translation (Alg. 2).

    The images are named after their mode: "fidelity" and, with a noise network, "realistic".

    Parameters
    ----------
    schedule : Schedule
    noise : Module or None
        The finished noise network.
    pipeline : Pipeline
        Says what the noise network predicts, and the modes' steps.
    """
    modes: list[Mode] = ["fidelity"] if noise is None else ["fidelity", "realistic"]
    targets = torch.tensor(pipeline.target_labels)

    def predict(network: nn.Module, batch: ValidationBatch) -> dict[str, Tensor]:
        assert batch.source is not None
        residual = residual_predictor(network, batch.label)
        contrast = targets.to(batch.label.device)[batch.label]
        denoise = noise and denoiser(noise, pipeline, schedule, contrast, batch.source)
        stages = Stages(residual, denoise, schedule)
        steps = {mode: Steps(*pipeline.sampling.steps(mode)) for mode in modes}
        return {mode: translate(stages, batch.source, batch.eps, steps[mode]) for mode in modes}

    return predict


class _Result(NamedTuple):
    """A batch, and what was predicted of it: name -> (B, H, W), -1 outside the support."""

    batch: ValidationBatch
    images: dict[str, Voxels]


def slices_of(
    example: Example, count: int, divisible: int, device: torch.device
) -> Iterator[ValidationBatch]:
    """Yield at most so many slices of an example, evenly spaced, a few at a time.

    Each is whole in-plane: the foreground's box, padded to multiples of `divisible`.
    """
    chosen = _evenly(example.lead.occupied, count)
    for i in range(0, len(chosen), _BATCH):
        yield _read(example, chosen[i : i + _BATCH], divisible, device)


def _read(
    example: Example, indices: Sequence[int], divisor: int, device: torch.device
) -> ValidationBatch:
    corner = (example.lead.box[0][0], example.lead.box[1][0])
    height, width = (-(-(end - start) // divisor) * divisor for start, end in example.lead.box)
    stacked = {}
    for key, volume in example.volumes.items():
        context = example.contexts[key]
        patches = [volume.patch(i, corner, (height, width), context) for i in indices]
        stacked[key] = torch.from_numpy(np.stack(patches)).to(device)
    eps = slice_noise(_SEED, indices, (height, width)).to(device)
    label = torch.full((len(indices),), example.label, device=device)
    return ValidationBatch(stacked["target"], stacked.get("source"), eps, label)


def _predicted(
    network: nn.Module,
    validation: Validation,
    batch: ValidationBatch,
    reach_mm: float,
    spacing_mm: tuple[float, float],
) -> _Result:
    with torch.inference_mode():
        images = validation.predict(network, batch)
    support = slice_support(batch.lead.cpu().numpy(), reach_mm, spacing_mm)
    shown = {
        name: np.where(support, image[:, 0].float().clamp(-1, 1).cpu().numpy(), np.float32(-1))
        for name, image in images.items()
    }
    return _Result(batch, shown)


def slice_support(slices: Voxels, margin_mm: float, spacing_mm: tuple[float, float]) -> Mask:
    """Where a translation of slices may show anything: their foreground, dilated in-plane.

    The foreground's darkest voxels are clipped to -1 like the background, and fluid, dark in T1,
    is bright in T2: what is -1 inside the head must not count as background.

    Parameters
    ----------
    slices : array of float32
        Shape (n, H, W), in [-1, 1]; -1 is background.
    margin_mm : float
    spacing_mm : (float, float)
        In-plane size of a voxel, (H, W).

    Returns
    -------
    array of bool
        Shape (n, H, W).
    """
    filled = np.stack([ndimage.binary_fill_holes(plane > -1) for plane in slices])
    return dilate(filled, margin_mm, (float("inf"), *spacing_mm))


def _score(images: Voxels, truth: Voxels) -> Scores:
    """Score a subject's slices where the target has tissue, raw and after a linear fit.

    The fit matters for MR, whose intensities have no unit: without it a score mostly tells how
    the val scanner's gain differs from the training scanners'.
    """
    unit, reference = ((v + 1) * np.float32(0.5) for v in (images, truth))
    mask = reference > 0
    fitted = linear_fit(unit, reference, mask)
    pairs = zip(unit, reference, strict=True)
    ssim = [similarity(a, b, b > 0).ssim for a, b in pairs if (b > 0).any()]
    return {
        "psnr": psnr(unit, reference, mask),
        "psnr_fit": psnr(fitted, reference, mask),
        "ssim": float(np.mean(ssim)),
    }


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    """Pick `count` of the indices, evenly spaced and away from the ends."""
    if len(indices) <= count:
        return list(indices)
    step = len(indices) / count
    return [indices[int((i + 0.5) * step)] for i in range(count)]


def _picture_row(result: _Result) -> list[Voxels]:
    batch, images = result
    first = [] if batch.source is None else [batch.lead[0].cpu().numpy()]
    tiles = [*first, *(image[0] for image in images.values()), batch.target[0, 0].cpu().numpy()]
    return [np.flip((tile.T + 1) / 2, (0, 1)) for tile in tiles]


def _captions(result: _Result) -> list[str]:
    batch, images = result
    return ([] if batch.source is None else ["source"]) + [*images, "target"]
