"""How much more detail real targets have than what a residual stage makes of their sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medtrans.config.terms import Task
from medtrans.inference.estimate import estimated
from medtrans.inference.sampling import SliceSampler
from medtrans.package.detail import Gains
from medtrans.preprocessing.detail import amplitudes, least, missing
from medtrans.system.progress import track
from medtrans.training.cache import CachedVolume
from medtrans.volumes.geometry import spacing_mm

Volumes = tuple[CachedVolume, CachedVolume]
"""Source and target of a pair, as the networks see them."""


def measured(sampler: SliceSampler, pairs: Mapping[Task, Sequence[Volumes]]) -> Gains:
    """Return the gains of each task that has a pair: in each band what every pair lacks at least.

    More would make what is too sharp already worse, which is seen more than what stays blurred.
    """
    gains: dict[str, list[float]] = {}
    with track("pairs whose detail is compared") as update:
        done, total = 0, sum(map(len, pairs.values()))
        for task, of_task in pairs.items():
            for pair in of_task:
                lacked = missing(*_amplitudes(sampler, task, pair))
                gains[str(task)] = least(lacked, gains.get(str(task), lacked))
                done += 1
                update(done, total)
    return gains


def _amplitudes(
    sampler: SliceSampler, task: Task, pair: Volumes
) -> tuple[list[float], list[float]]:
    """Return the amplitudes of the estimate and of the real target."""
    source, target = (volume.image for volume in pair)
    mask = (source > -1) & (target > -1)
    made = estimated(sampler, task, source, spacing_mm(pair[0].grid.affine).tolist())
    return amplitudes(made, mask), amplitudes(target, mask)
