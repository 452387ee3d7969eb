"""The pairs of a manifest, read to be scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monai.data import MetaTensor

from medtrans.config.schema import PercentileScale, Pipeline
from medtrans.config.terms import Task
from medtrans.data.manifest import Entry, Pair
from medtrans.evaluate.regions import regions_of
from medtrans.evaluate.scores import Reference, array_axis
from medtrans.preprocessing.foreground import find_foreground
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import AXES
from medtrans.volumes import read_volume, require_same_grid
from medtrans.volumes.voxels import Mask


@dataclass(frozen=True)
class Case:
    """One subject's pair, read.

    Attributes
    ----------
    pair : Pair
    source, target : MetaTensor
        Shape (X, Y, Z), on one grid.
    mask : array of bool
        Shape (X, Y, Z): the target's foreground.
    """

    pair: Pair
    source: MetaTensor
    target: MetaTensor
    mask: Mask

    def reference(self, pipeline: Pipeline, task: Task, region: Path | None) -> Reference:
        """Make the target what predictions are compared with.

        `region` is that of a pair for which the manifest names none.
        """
        regions = regions_of(self.target, self.mask, self.pair.mask or region)
        axis = array_axis(self.target, AXES[pipeline.slices.axis])
        return Reference(self.target.numpy(), regions, window_of(pipeline, task), axis)


def read_cases(pairs: Iterable[Pair]) -> Iterator[Case]:
    """Read pairs, one after the other.

    Raises
    ------
    FileError
        When a file cannot be read, has another hash than its manifest says, or lies on another
        grid than its counterpart.
    """
    for pair in pairs:
        source, target = _read(pair.source), _read(pair.target)
        require_same_grid(source, target, f"{pair.source.path} and {pair.target.path}")
        yield Case(pair, source, target, find_foreground(target.numpy()))


def window_of(pipeline: Pipeline, task: Task) -> Profile | None:
    """Return the fixed window of the target's intensities; None for MR, which has none."""
    scale = pipeline.contrasts[task.target]
    return None if isinstance(scale, PercentileScale) else Profile(*scale.window_hu)


def _read(entry: Entry) -> MetaTensor:
    entry.verify()
    return read_volume(entry.path, series=entry.series)
