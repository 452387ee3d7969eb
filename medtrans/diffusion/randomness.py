"""Random numbers as a function of what they are for, never of the order they are drawn in.

Batch size, resuming, workers and the device therefore change nothing: noise is drawn on the CPU
in float32 from a generator seeded by its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def seed_of(*key: int | str) -> int:
    """Mix a key such as (seed, "slice", 17) into 63 well-spread bits."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> Generator:
    """Return a CPU generator for this key."""
    return Generator().manual_seed(seed_of(*key))


def slice_noise(
    seed: int, indices: Sequence[int], size: tuple[int, int], purpose: str = "start"
) -> Tensor:
    """Draw N(0, 1) noise for slices of a volume.

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


class SliceNoise:
    """The noise of one batch of slices: a function of (seed, draw, purpose, slice).

    Parameters
    ----------
    seed : int
    draw : int
        Which sample of several, from 0.
    indices : sequence of int
    size : (height, width)
    device : device
    """

    def __init__(
        self,
        seed: int,
        draw: int,
        indices: Sequence[int],
        size: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.seed, self.draw, self.indices = seed, draw, indices
        self.size, self.device = size, device

    def start(self) -> Tensor:
        """Return eps of the start y + sigma * eps; shape (batch, 1, height, width)."""
        return self._draw("start")

    def fresh(self, step: int) -> Tensor:
        """Return eps' of a stochastic noise step (Eq. 8)."""
        return self._draw(f"step {step}")

    def _draw(self, purpose: str) -> Tensor:
        tag = f"{purpose} {self.draw}"
        return slice_noise(self.seed, self.indices, self.size, tag).to(self.device)
