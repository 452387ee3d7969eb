"""What a model package knows of its own errors: a network, and what its answers were worth.

A package has it as models/error.safetensors and a few numbers in its metadata; an older one has
neither, and works without.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from scipy.optimize import isotonic_regression
from torch import nn

from medtrans.config.schema import Pipeline
from medtrans.errors import PackageError
from medtrans.networks.unet import error_network
from medtrans.package.folder import ERROR, ErrorRecord, described_error
from medtrans.volumes.voxels import Voxels

LEVELS = (0.5, 0.9)  # shares of voxels that an interval is to hold
_KNOTS = 24  # of the curve
_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Calibration:
    """From what the network answers to what was seen on subjects that did not teach it.

    Errors are on the scale of the networks, where an image has a range of 2.

    Attributes
    ----------
    answered, seen : tuple of float
        A rising curve: the network's answer, and the mean absolute error beside it.
    within : mapping of float to float
        Share of voxels -> how many expected errors wide an interval to each side has to be.
    subjects : int
        How many it was seen on; 0: none, and the curve changes nothing.
    """

    answered: tuple[float, ...]
    seen: tuple[float, ...]
    within: Mapping[float, float]
    subjects: int

    def __call__(self, answers: NDArray[np.floating]) -> Voxels:
        """Return the expected absolute error, of the same shape; beyond the curve its ends."""
        expected: Voxels = np.interp(answers, self.answered, self.seen).astype(np.float32)
        return expected

    @classmethod
    def unseen(cls) -> Calibration:
        """Take the network's answers as they are, and errors for Laplace's."""
        within = {level: -math.log1p(-level) for level in LEVELS}
        return cls((0.0, 2.0), (0.0, 2.0), within, 0)

    @classmethod
    def fit(cls, pairs: Sequence[tuple[Voxels, Voxels]], subjects: int) -> Calibration:
        """Learn from pairs, each of which counts alike.

        Parameters
        ----------
        pairs : sequence of (answers, errors)
            At least one; of each the network's answers and the absolute errors, shape (n,).
        subjects : int
            How many the pairs are of.
        """
        weights = np.concatenate([np.full(len(errors), 1 / len(errors)) for _, errors in pairs])
        answers, errors = (
            np.concatenate([pair[k] for pair in pairs]).astype(np.float64) for k in (0, 1)
        )
        order = np.argsort(answers)
        parts = np.searchsorted(
            np.cumsum(weights[order]), np.linspace(0, len(pairs), _KNOTS + 1)[1:-1]
        )
        groups = [group for group in np.split(order, parts) if len(group)]

        def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.array([np.average(values[g], weights=weights[g]) for g in groups])

        shares = np.array([weights[g].sum() for g in groups])
        seen = isotonic_regression(means(errors), weights=shares).x
        curve = cls(_tuple(means(answers)), _tuple(seen), {}, subjects)
        ratios = errors / np.maximum(curve(answers), 1e-6)
        within = {level: _quantile(ratios, weights, level) for level in LEVELS}
        return cls(curve.answered, curve.seen, within, subjects)


@dataclass(frozen=True)
class KnownError:
    """What a model knows of its errors.

    Attributes
    ----------
    network : Module
        As `error_network` builds it; on the CPU, for evaluation.
    calibration : Calibration
    entries : mapping
        Of a sidecar; none before it is stored.
    """

    network: nn.Module
    calibration: Calibration
    entries: Mapping[str, object] = field(default_factory=dict)


def stored_error(known: KnownError) -> tuple[ErrorRecord, bytes]:
    """Give what a package keeps: the entry of its metadata, and the file of weights."""
    weights = save_safetensors({
        name: tensor.detach().half().contiguous()
        for name, tensor in known.network.state_dict().items()
    })  # fmt: skip
    calibration = known.calibration
    return {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "answered": list(calibration.answered),
        "seen": list(calibration.seen),
        "within": {str(level): width for level, width in calibration.within.items()},
        "subjects": calibration.subjects,
    }, weights


def load_error(folder: Path, record: ErrorRecord | None, pipeline: Pipeline) -> KnownError | None:
    """Read what a package knows of its errors; None where it keeps nothing of it.

    Parameters
    ----------
    folder : Path
        Of the package.
    record : ErrorRecord or None
        The entry of its metadata.
    pipeline : Pipeline
        Its recipe.

    Raises
    ------
    PackageError
        When the file is missing, or does not fit the entry.
    """
    if record is None:
        return None
    path = folder / ERROR
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PackageError(f"{path} is larger than the {_MAX_BYTES} bytes that it may have.")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise PackageError(f"{path} was changed or damaged. Copy the package again.")
        network = error_network(pipeline, 0)
        tensors = load_safetensors(data)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise PackageError(f"{path}: a weight is not finite. Export the model again.")
        network.load_state_dict(tensors)
        calibration = _calibration(record)
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror}).") from None
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError):
        raise PackageError(
            f"{path} and the package's metadata do not fit together. Copy the package again."
        ) from None
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    return KnownError(network, calibration, described_error(record))


def _calibration(record: ErrorRecord) -> Calibration:
    answered, seen = (tuple(map(float, record[key])) for key in ("answered", "seen"))
    within = {float(level): float(width) for level, width in record["within"].items()}
    numbers = (*answered, *seen, *within.values())
    rising = all(list(curve) == sorted(curve) for curve in (answered, seen))
    if not (answered and len(answered) == len(seen) and rising and set(within) == set(LEVELS)):
        raise ValueError("a rising curve and its intervals are expected")
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError("errors are finite and not negative")
    return Calibration(answered, seen, within, int(record["subjects"]))


def _quantile(values: NDArray[np.float64], weights: NDArray[np.float64], level: float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, level * total[-1])])


def _tuple(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())
