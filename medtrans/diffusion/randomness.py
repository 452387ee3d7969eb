"""Random numbers as a function of what they are for, never of the order they are drawn in.

Batch size, resuming, workers and the device therefore change nothing: noise is drawn on the CPU
in float32 from a generator seeded by its key. The paper asks for eps ~ N(0, I), no more (Eq. 2).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def seed_of(*key: int | str) -> int:
    """Mix a key such as (seed, "slice", 17) into 63 well-spread bits, by BLAKE2 (RFC 7693)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> Generator:
    """Return a CPU generator for this key, seeded by `seed_of`."""
    return Generator().manual_seed(seed_of(*key))


def slice_noise(
    seed: int, indices: Sequence[int], size: tuple[int, int], purpose: str = "start"
) -> Tensor:
    """Draw N(0, 1) noise for slices of a volume: the eps of Alg. 2.

    Parameters
    ----------
    seed : int
        The user's seed.
    indices : sequence of int
        The slices' positions in their volume; each slice's noise depends on nothing else.
    size : (height, width)
    purpose : str
        Tells independent draws for the same slice apart.

    Returns
    -------
    Tensor
        Shape (len(indices), 1, height, width), float32, on the CPU.
    """
    rows = [torch.randn(1, *size, generator=generator(seed, purpose, i)) for i in indices]
    return torch.stack(rows)


def correlated_slice_noise(
    seed: int,
    indices: Sequence[int],
    size: tuple[int, int],
    purpose: str,
    length: float,
) -> Tensor:
    """Draw N(0, 1) noise that resembles the noise of neighbouring slices.

    Each slice's noise is a weighted sum of the independent noises around it, with Gaussian weights
    whose squares add up to 1: two slices d apart correlate as exp(-(d / length)^2 / 2), or less
    where the length is below one slice. It still depends on the slice's position alone. The paper
    translates single images and knows no such noise; each slice's eps is that of Alg. 2.

    Parameters
    ----------
    seed, indices, size, purpose
        As for `slice_noise`.
    length : float
        In slices; 0 gives independent noise and infinity the same noise for every slice.

    Returns
    -------
    Tensor
        Shape (len(indices), 1, height, width), float32, on the CPU.
    """
    if length == 0:
        return slice_noise(seed, indices, size, purpose)
    if math.isinf(length):
        return slice_noise(seed, [0], size, purpose).expand(len(indices), -1, -1, -1).clone()
    # The correlation of a sum is the weights' with themselves, which is sqrt(2) times as wide.
    reach = math.ceil(3 * length / 2**0.5)
    offsets = range(-reach, reach + 1)
    weights = torch.tensor([math.exp(-((d / length) ** 2)) for d in offsets])
    weights /= weights.norm()
    near = sorted({i + d for i in indices for d in offsets})
    white = dict(zip(near, slice_noise(seed, near, size, purpose), strict=True))
    return torch.stack(
        [
            sum((w * white[i + d] for w, d in zip(weights, offsets, strict=True)), torch.zeros(()))
            for i in indices
        ]
    )


class SliceNoise:
    """The noise of one batch of slices: a function of (seed, draw, purpose, slice).

    Parameters
    ----------
    seed : int
    draw : int or str
        Which sample of several; every pass through a volume that is averaged has its own, too.
    indices : sequence of int
    size : (height, width)
    device : device
    correlation : float
        Over how many slices the noise resembles itself; 0 is independent, infinity shared.
    """

    def __init__(
        self,
        seed: int,
        draw: int | str,
        indices: Sequence[int],
        size: tuple[int, int],
        device: torch.device,
        correlation: float = 0.0,
    ) -> None:
        self.seed, self.draw, self.indices = seed, draw, indices
        self.size, self.device, self.correlation = size, device, correlation

    def start(self) -> Tensor:
        """Return eps of the start y + sigma * eps (Alg. 2); shape (batch, 1, height, width)."""
        return self._draw("start")

    def fresh(self, step: int) -> Tensor:
        """Return eps' of a stochastic noise step (Eq. 8); shape (batch, 1, height, width)."""
        return self._draw(f"step {step}")

    def _draw(self, purpose: str) -> Tensor:
        tag = f"{purpose} {self.draw}"
        noise = correlated_slice_noise(self.seed, self.indices, self.size, tag, self.correlation)
        return noise.to(self.device)
