"""Scores on the val split: the translated result, not only the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Mode
from medtrans.diffusion import Schedule, Stages, Steps, add_noise, slice_noise, translate
from medtrans.evaluate.metrics import linear_fit, psnr, similarity
from medtrans.networks.binding import denoiser, residual_predictor
from medtrans.preprocessing.foreground import dilate
from medtrans.training.cache import CachedVolume
from medtrans.training.data import Example
from medtrans.volumes.voxels import Mask

_BATCH = 4
_SEED = 0  # validation is the same whatever the training's seed, so that runs compare

Scores = dict[str, float]
Rows = list[list[NDArray[np.float32]]]
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


@dataclass
class Outcome:
    """Scores, the mean over subjects, and picture rows: source (if any), predictions, target."""

    scores: Scores
    rows: Rows = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def validate(
    network: nn.Module,
    predict: Predict,
    examples: Sequence[Example],
    pipeline: Pipeline,
    slices_each: int,
    device: torch.device,
) -> Outcome:
    """Score what `predict` makes of every val subject's slices.

    Parameters
    ----------
    network : Module
        The averaged network.
    predict : callable
        (network, batch) -> {mode: images (B, 1, H, W) in [-1, 1]}.
    examples : sequence of Example
    pipeline : Pipeline
    slices_each : int
        Slices per subject, evenly spaced over those with foreground.
    device : device
    """
    outcome = Outcome({})
    totals: dict[str, list[float]] = {}
    for example in examples:
        chosen = _evenly(example.lead.occupied, slices_each)
        gathered = [
            _predict_batch(network, predict, example, chosen[i : i + _BATCH], pipeline, device)
            for i in range(0, len(chosen), _BATCH)
        ]
        for name in gathered[0][1]:
            images = np.concatenate([images[name] for _, images in gathered])
            truth = np.concatenate([batch.target.cpu().numpy()[:, 0] for batch, _ in gathered])
            for key, value in _score(images, truth).items():
                totals.setdefault(f"{name}_{key}", []).append(value)
        outcome.rows.append(_picture_row(*gathered[len(gathered) // 2]))
        outcome.captions = _captions(*gathered[0])
    outcome.scores = {key: float(np.mean(values)) for key, values in totals.items()}
    return outcome


def denoised(schedule: Schedule, pipeline: Pipeline) -> Predict:
    """Noise stage: D(x0 + sigma eps, sigma), one call from the strongest noise."""

    def predict(network: nn.Module, batch: ValidationBatch) -> dict[str, Tensor]:
        level = torch.full((len(batch.target),), schedule.sigma, device=batch.target.device)
        denoise = denoiser(network, pipeline, schedule, batch.label, batch.source)
        return {"denoised": denoise(add_noise(batch.target, batch.eps, level), level)}

    return predict


def translated(schedule: Schedule, noise: nn.Module | None, pipeline: Pipeline) -> Predict:
    """Residual stage: the whole translation in fidelity and, with a noise stage, realistic mode."""
    modes: list[Mode] = ["fidelity"] if noise is None else ["fidelity", "realistic"]
    targets = torch.tensor(pipeline.target_labels)

    def predict(network: nn.Module, batch: ValidationBatch) -> dict[str, Tensor]:
        assert batch.source is not None
        residual = residual_predictor(network, batch.label)
        contrast = targets.to(batch.label.device)[batch.label]
        denoise = noise and denoiser(noise, pipeline, schedule, contrast, batch.source)
        stages = Stages(residual, denoise, schedule)
        steps = {mode: Steps(*pipeline.sampling.modes[mode]) for mode in modes}
        return {mode: translate(stages, batch.source, batch.eps, steps[mode]) for mode in modes}

    return predict


def _predict_batch(
    network: nn.Module,
    predict: Predict,
    example: Example,
    indices: Sequence[int],
    pipeline: Pipeline,
    device: torch.device,
) -> tuple[ValidationBatch, dict[str, NDArray[np.float32]]]:
    batch = _read(example, indices, pipeline, device)
    with torch.inference_mode():
        images = predict(network, batch)
    lead = batch.target if batch.source is None else batch.source
    support = _support(lead[:, lead.shape[1] // 2].cpu().numpy(), example.lead, pipeline)
    shown = {
        name: np.where(support, image[:, 0].float().clamp(-1, 1).cpu().numpy(), np.float32(-1))
        for name, image in images.items()
    }
    return batch, shown


def _support(centre: NDArray[np.float32], lead: CachedVolume, pipeline: Pipeline) -> Mask:
    """Where a translation may show anything, as `Translator` has it: the foreground, dilated.

    The foreground's darkest voxels are clipped to -1 like the background, and fluid, dark in T1,
    is bright in T2: what is -1 inside the head must not count as background.
    """
    spacing = np.linalg.norm(np.array(lead.affine)[:3, :3], axis=0)
    in_plane = (float("inf"), *np.delete(spacing, lead.axis).tolist())
    filled = np.stack([ndimage.binary_fill_holes(plane > -1) for plane in centre])
    return dilate(filled, pipeline.volume.dilation_mm, in_plane)


def _read(
    example: Example, indices: Sequence[int], pipeline: Pipeline, device: torch.device
) -> ValidationBatch:
    corner = (example.lead.box[0][0], example.lead.box[1][0])
    divisor = pipeline.volume.divisible
    height, width = (-(-(end - start) // divisor) * divisor for start, end in example.lead.box)

    def stack(key: str, volume: CachedVolume) -> Tensor:
        context = example.contexts[key]
        patches = [volume.patch(i, corner, (height, width), context) for i in indices]
        return torch.from_numpy(np.stack(patches)).to(device)

    stacked = {key: stack(key, volume) for key, volume in example.volumes.items()}
    eps = slice_noise(_SEED, indices, (height, width)).to(device)
    label = torch.full((len(indices),), example.label, device=device)
    return ValidationBatch(stacked["target"], stacked.get("source"), eps, label)


def _score(images: NDArray[np.float32], truth: NDArray[np.float32]) -> Scores:
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


def _picture_row(
    batch: ValidationBatch, images: dict[str, NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    first = [] if batch.source is None else [batch.source[0, batch.source.shape[1] // 2]]
    tiles = [tile.cpu().numpy() for tile in first] + [v[0] for v in images.values()]
    tiles.append(batch.target[0, 0].cpu().numpy())
    return [np.flip((tile.T + 1) / 2, (0, 1)) for tile in tiles]


def _captions(batch: ValidationBatch, images: dict[str, NDArray[np.float32]]) -> list[str]:
    return ([] if batch.source is None else ["source"]) + [*images, "target"]
