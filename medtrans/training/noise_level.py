"""Which sigma a recipe should have: the MMD criterion on a manifest's images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Contrast, Task
from medtrans.data.manifest import Manifest
from medtrans.diffusion import Criterion, noise_criterion
from medtrans.diffusion.randomness import generator, seed_of
from medtrans.system.progress import say
from medtrans.training.cache import CachedVolume, VolumeCache
from medtrans.training.examples import prepared
from medtrans.training.recipe import with_sigma
from medtrans.volumes.voxels import Voxels

GRID = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
WEIGHT = 0.5  # lambda of Eq. 12
_PATCH = 8  # pixels; larger ones lie so far apart that no kernel tells more of them
_COUNT = 1000  # patches of each set
_TRIES = 50  # random places looked at for a patch that is mostly foreground
_MOSTLY = 0.5  # share of foreground


def measure_noise_level(
    tasks: Sequence[Task],
    manifest: Manifest,
    cache: VolumeCache,
    seed: int = 0,
    weight: float = WEIGHT,
    grid: Sequence[float] = GRID,
) -> Criterion:
    """Compute J(sigma) (Eq. 12) from the train split's volumes; no pair is needed.

    Several tasks are pooled, since one sigma serves all of them.

    Parameters
    ----------
    tasks : sequence of Task
    manifest : Manifest
    cache : VolumeCache
        Where the volumes are prepared.
    seed : int
        Decides which patches are drawn, and their noise.
    weight : float
        lambda in [0, 1]: the weight of A, source and target apart, against B, source destroyed.
    grid : sequence of float
        Sigmas, above 0, on the [-1, 1] scale.

    Raises
    ------
    ManifestError
        When the train split has no volume of a contrast.
    FileError
        When a volume cannot be prepared.
    """
    contrasts = {
        "source": [task.source for task in tasks],
        "target": [task.target for task in tasks],
    }
    sets = {
        side: _patches(_volumes(manifest, names, cache), seed_of(seed, "noise level", side))
        for side, names in contrasts.items()
    }
    rng = generator(seed, "noise level")
    return noise_criterion(sets["source"], sets["target"], grid, weight, rng)


def resolve_noise_level(
    pipeline: Pipeline, manifest: Manifest, cache: VolumeCache, seed: int
) -> Pipeline:
    """Replace `sigma = "auto"` by the number that the criterion chooses (Eq. 51).

    Parameters and errors are those of `measure_noise_level`; a recipe whose sigma is a number
    stays as it is.
    """
    if pipeline.diffusion.sigma != "auto":
        return pipeline
    chosen = measure_noise_level(pipeline.parsed_tasks, manifest, cache, seed).best
    say(f'sigma = "auto": the criterion chose {chosen:g}.')
    return with_sigma(pipeline, chosen)


def _volumes(
    manifest: Manifest, contrasts: Sequence[Contrast], cache: VolumeCache
) -> list[CachedVolume]:
    entries = [e for name in dict.fromkeys(contrasts) for e in manifest.require_targets(name)]
    return prepared(entries, cache)


def _patches(volumes: list[CachedVolume], seed: int) -> Tensor:
    """Draw patches that are mostly foreground, equally many of every volume; (n, pixels)."""
    rng = np.random.default_rng(seed)
    per_volume = -(-_COUNT // len(volumes))
    rows = [_patch(volume, rng) for volume in volumes for _ in range(per_volume)]
    return torch.from_numpy(np.stack(rows)[:_COUNT]).flatten(1)


def _patch(volume: CachedVolume, rng: np.random.Generator) -> Voxels:
    """Draw a patch; the fullest of those looked at where none is mostly foreground."""
    fullest, largest_share = None, -1.0
    for _ in range(_TRIES):
        index = int(rng.choice(volume.occupied))
        corner = [int(rng.integers(low, max(high - _PATCH, low) + 1)) for low, high in volume.box]
        patch = volume.patch(index, (corner[0], corner[1]), (_PATCH, _PATCH), 0)[0]
        share = float(np.mean(patch > -1))
        if share > largest_share:
            fullest, largest_share = patch, share
        if share >= _MOSTLY:
            break
    return np.asarray(fullest)
