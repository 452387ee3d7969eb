"""What is known of one case once it has been scored; pages are made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from monai.data import MetaTensor

from medtrans.evaluate.scores import Reference
from medtrans.evaluate.table import Row
from medtrans.evaluate.uncertainty import Uncertainty
from medtrans.volumes.voxels import Voxels


class Compared(NamedTuple):
    """A case, what was predicted of it, and its scores.

    Attributes
    ----------
    name : str
        Of the subject, and of the session where it has one.
    source : MetaTensor or None
        What was translated, (X, Y, Z); None where only files are known.
    target : MetaTensor
        The real image, on the same grid.
    truth : Reference
        The real image as what predictions were compared with.
    predicted : mapping of str to array of float32
        By method, without the baselines; each (X, Y, Z).
    rows : sequence of Row
        Of the table of scores: all methods, baselines too, and regions.
    uncertain : mapping of str to Uncertainty
        By method, of those that say how far off they are.
    """

    name: str
    source: MetaTensor | None
    target: MetaTensor
    truth: Reference
    predicted: Mapping[str, Voxels]
    rows: Sequence[Row]
    uncertain: Mapping[str, Uncertainty] = MappingProxyType({})


OnCompared = Callable[[Compared], None]
