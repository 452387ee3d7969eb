"""Training: slices a second of the loader alone, and of the step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from medtrans.config.schema import Pipeline
from medtrans.diffusion import generator
from medtrans.preprocessing.intensity import Profile
from medtrans.training.cache import CachedVolume
from medtrans.training.data import (
    RandomSlices,
    StageExamples,
    batches,
    pair_example,
    target_example,
)
from medtrans.training.stages import noise_stage, residual_stage

_SHAPE = (160, 192, 160)
_EYE = tuple(tuple(row) for row in np.eye(4).tolist())


def throughput(pipeline: Pipeline, steps: int = 4) -> dict[str, dict[str, float]]:
    """Slices a second of both stages, and how many times faster the loader alone is."""
    with _volumes() as (source, target):
        pair = StageExamples([pair_example(source, target, 0, pipeline.slices.context)])
        alone = pair if pipeline.noise.sees_source else StageExamples([target_example(target, 0)])
        noise, residual = noise_stage(pipeline, alone, 0), residual_stage(pipeline, pair, 0)
        rates: dict[str, dict[str, float]] = {}
        for stage in (noise, residual):
            size = stage.config.batch_size
            loader = _loader_rate(stage.slices, size)
            loss, network = stage.loss, stage.network.train()
            optimizer = torch.optim.AdamW(network.parameters(), fused=True)
            seconds = []
            for step, batch in enumerate(batches(stage.slices, range(steps + 1), size)):
                start = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16):
                    value = loss(network, batch, generator(0, "step", step))
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
                optimizer.step()
                seconds.append(time.perf_counter() - start)
            rate = size / sorted(seconds[1:])[steps // 2]
            rates[stage.name] = {
                "loader alone, slices/s": loader,
                "training step, slices/s": rate,
                "loader over step": loader / rate,
            }
    return rates


def _loader_rate(slices: RandomSlices, size: int, count: int = 60) -> float:
    """Slices a second of one worker process, its start left out."""
    stream = batches(slices, range(count + 8), size)
    for _ in range(8):  # more than is fetched ahead
        next(stream)
    start = time.perf_counter()
    for _ in stream:
        pass
    return count * size / (time.perf_counter() - start)


@contextmanager
def _volumes() -> Iterator[tuple[CachedVolume, CachedVolume]]:
    """Give two prepared volumes of smooth noise in an ellipsoid, as large as a brain."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in _SHAPE), indexing="ij", sparse=True)
    inside = axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2 < 1
    with tempfile.TemporaryDirectory() as folder:
        volumes = []
        for name in ("source", "target"):
            voxels = rng.uniform(-0.9, 0.9, _SHAPE).astype(np.float32)
            voxels[~inside] = -1
            path = Path(folder) / f"{name}.npy"
            np.save(path, voxels)
            occupied = tuple(int(i) for i in np.flatnonzero(inside.any(axis=(1, 2))))
            spans = [np.flatnonzero(inside.any(axis=others)) for others in ((0, 2), (0, 1))]
            box = tuple((int(span[0]), int(span[-1]) + 1) for span in spans)
            volumes.append(
                CachedVolume(path, _SHAPE, (box[0], box[1]), occupied, Profile(0, 1), _EYE, 2, True)
            )
        yield volumes[0], volumes[1]
