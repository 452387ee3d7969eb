"""A small 3D U-Net that tells brain from everything else, whatever the contrast.

It sees a volume at 3 mm, folded so that its first layer works at 6 mm. It was trained on random
contrasts of whole heads (benchmarks/brain), after SynthStrip (Hoopes et al., NeuroImage 2022).
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from medtrans.volumes.voxels import Voxels

GRID_MM = 3.0
FRAME = (64, 80, 80)  # voxels that it sees; divisible by 16: a fold by two, and three halvings
BRAIN_AT = (31.5, 37.5, 45.5)  # voxels: about where in the frame brains lay in training
WEIGHTS = Path(__file__).with_name("brain_finder.safetensors")
_WIDTHS = (32, 32, 48, 48)
_RANGE = (0.5, 99.5)  # percentiles of what is not the darkest value, scaled to [0, 1]


class BrainNet(nn.Module):
    """Logits of brain.

    Input and output have the shape (N, 1, X, Y, Z), RAS, sizes divisible by 16.
    """

    def __init__(self) -> None:
        super().__init__()
        first, *deeper = _WIDTHS
        self.enter = nn.Conv3d(8, first, 3, padding=1)
        self.first = _Block(first)
        self.down = nn.ModuleList()
        self.narrow = nn.ModuleList()
        self.up = nn.ModuleList()
        before = first
        for width in deeper:
            self.down.append(nn.Sequential(nn.Conv3d(before, width, 2, stride=2), _Block(width)))
            self.narrow.append(nn.Conv3d(width, before, 1))
            self.up.append(_Block(before))
            before = width
        self.leave = nn.Conv3d(first, 8, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of the image's shape."""
        level: Tensor = self.first(self.enter(_fold(image)))
        passed = []
        for down in self.down:
            passed.append(level)
            level = down(level)
        for narrow, block in zip(reversed(self.narrow), reversed(self.up), strict=True):
            wider = functional.interpolate(narrow(level), scale_factor=2)
            level = block(wider + passed.pop())
        return _unfold(self.leave(level))


class _Block(nn.Module):
    """Two convolutions beside a shortcut.

    Each voxel is normalised by itself: statistics of the volume would change with how much air and
    neck it shows, and the brain's outline with them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.one = nn.Conv3d(width, width, 3, padding=1)
        self.two = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        level = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        inner: Tensor = self.two(functional.leaky_relu(self.one(level), 0.1))
        return x + inner


@cache
def trained_network() -> tuple[BrainNet, str]:
    """Read the shipped network; with the SHA-256 of its file."""
    content = WEIGHTS.read_bytes()
    network = BrainNet()
    network.load_state_dict({name: value.float() for name, value in load(content).items()})
    return network.eval().requires_grad_(False), hashlib.sha256(content).hexdigest()


def scaled(image: Voxels) -> Voxels:
    """Scale a volume (X, Y, Z) to [0, 1] by percentiles of what is not its darkest value."""
    shown = image[image > image.min()]
    low, high = np.percentile(shown, _RANGE) if shown.size else (0.0, 1.0)
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _fold(x: Tensor) -> Tensor:
    """(N, 1, X, Y, Z) to (N, 8, X/2, Y/2, Z/2)."""
    n, _, a, b, c = x.shape
    x = x.reshape(n, a // 2, 2, b // 2, 2, c // 2, 2)
    return x.permute(0, 2, 4, 6, 1, 3, 5).reshape(n, 8, a // 2, b // 2, c // 2)


def _unfold(x: Tensor) -> Tensor:
    n, _, a, b, c = x.shape
    x = x.reshape(n, 2, 2, 2, a, b, c).permute(0, 4, 1, 5, 2, 6, 3)
    return x.reshape(n, 1, 2 * a, 2 * b, 2 * c)
