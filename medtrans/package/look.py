"""What a model package knows of its training volumes, to look at an input with.

A package has it as models/look.safetensors and a few numbers in its metadata; an older one has
neither, and works without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from medtrans.config.terms import Contrast
from medtrans.errors import PackageError
from medtrans.networks.look import LookNetwork
from medtrans.package.folder import LOOK, LookRecord
from medtrans.preprocessing.coarse import CHANNELS, ORIENTATIONS
from medtrans.volumes.voxels import Voxels

_MAX_BYTES = 1 << 26
Span = tuple[float, float]


@dataclass(frozen=True)
class Extent:
    """What is measured of a volume in the space of the networks.

    Attributes
    ----------
    spacing_mm : tuple of float
        Along each RAS axis.
    size_mm : tuple of float
        Of the box around the foreground, along each RAS axis.
    litres : float
        Volume of the foreground.
    at_top : float
        Share of the foreground that is as bright as the networks see anything.
    """

    spacing_mm: tuple[float, ...]
    size_mm: tuple[float, ...]
    litres: float
    at_top: float

    @classmethod
    def of(cls, image: Voxels, spacing_mm: Sequence[float]) -> Extent:
        """Measure a volume.

        Parameters
        ----------
        image : array of float32
            Shape (X, Y, Z), RAS, in [-1, 1]; -1 outside the foreground.
        spacing_mm : sequence of float
            Along each axis.
        """
        inside = image > -1
        lines = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        size = [
            float((line[-1] - line[0] + 1) * mm) for line, mm in zip(lines, spacing_mm, strict=True)
        ]
        count = int(inside.sum())
        litres = count * float(np.prod(spacing_mm)) / 1e6
        at_top = int((image == 1).sum()) / count
        return cls(tuple(map(float, spacing_mm)), tuple(size), litres, at_top)


@dataclass(frozen=True)
class Usual:
    """The least and the most of the training volumes' extents.

    Attributes
    ----------
    spacing_mm, size_mm : tuple of (least, most)
        Along each RAS axis.
    litres, at_top : (least, most)
    """

    spacing_mm: tuple[Span, ...]
    size_mm: tuple[Span, ...]
    litres: Span
    at_top: Span

    @classmethod
    def of(cls, extents: Iterable[Extent]) -> Usual:
        """Take the range of some volumes', at least one."""
        every = list(extents)
        return cls(
            tuple(_span(e.spacing_mm[axis] for e in every) for axis in range(3)),
            tuple(_span(e.size_mm[axis] for e in every) for axis in range(3)),
            _span(e.litres for e in every),
            _span(e.at_top for e in every),
        )


@dataclass(frozen=True)
class Known:
    """What a model knows of the volumes it was trained on.

    Attributes
    ----------
    contrasts : tuple of Contrast
        In the order of the network's answers; after them it has one for "none of them".
    usual : Usual
    network : LookNetwork
        On the CPU, for evaluation.
    """

    contrasts: tuple[Contrast, ...]
    usual: Usual
    network: LookNetwork


def new_network(contrasts: int, seed: int) -> LookNetwork:
    """Build a network whose initial weights depend on `seed` alone; global state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LookNetwork(CHANNELS, contrasts, len(ORIENTATIONS))


def stored(known: Known) -> tuple[LookRecord, bytes]:
    """Give what a package keeps: the entry of its metadata, and the file of weights."""
    weights = save_safetensors({
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in known.network.state_dict().items()
    })  # fmt: skip
    usual = known.usual
    return {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "contrasts": list(known.contrasts),
        "usual": {
            "spacing_mm": _lists(usual.spacing_mm),
            "size_mm": _lists(usual.size_mm),
            "litres": _lists([usual.litres]),
            "at_top": _lists([usual.at_top]),
        },
    }, weights


def load_known(folder: Path, record: LookRecord | None) -> Known | None:
    """Read what a package knows of its training volumes; None where it keeps nothing of it.

    Parameters
    ----------
    folder : Path
        Of the package.
    record : LookRecord or None
        The entry of its metadata.

    Raises
    ------
    PackageError
        When the file is missing, or does not fit the entry.
    """
    if record is None:
        return None
    path = folder / LOOK
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PackageError(f"{path} is larger than the {_MAX_BYTES} bytes that it may have.")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise PackageError(f"{path} was changed or damaged. Copy the package again.")
        contrasts = tuple(record["contrasts"])
        network = new_network(len(contrasts), 0)
        network.load_state_dict(load_safetensors(data))
        usual = _usual(record)
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror}).") from None
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError):
        raise PackageError(
            f"{path} and the package's metadata do not fit together. Copy the package again."
        ) from None
    return Known(contrasts, usual, network.eval().requires_grad_(False))  # type: ignore[arg-type]


def _usual(record: LookRecord) -> Usual:
    spans = {
        name: tuple((float(low), float(high)) for low, high in record["usual"][name])
        for name in ("spacing_mm", "size_mm", "litres", "at_top")
    }
    if [len(of_name) for of_name in spans.values()] != [3, 3, 1, 1]:
        raise ValueError("a span for each axis is expected")
    return Usual(spans["spacing_mm"], spans["size_mm"], spans["litres"][0], spans["at_top"][0])


def _lists(spans: Iterable[Span]) -> list[list[float]]:
    return [list(span) for span in spans]


def _span(values: Iterable[float]) -> Span:
    every = list(values)
    return min(every), max(every)
