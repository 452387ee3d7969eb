"""How far a set of images is from a set of real ones, whatever they show: a distance of textures.

The kernel distance of KID (Bińkowski et al., arXiv 1801.01401), the unbiased squared MMD with a
cubic polynomial kernel, but on the features of a fixed random network in place of Inception's:
nothing is downloaded, and nothing was learnt from photographs. Random convolutions with ReLU keep
enough of an image's statistics to tell blur, noise and wrong texture (Ustyuzhaninov et al., arXiv
1606.00021, made textures with them); they do not know anatomy. Voxels compare only with values of
this module, on the same kind of images and at the same pixel size.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medtrans.volumes.voxels import Voxels

_PATCH = 32  # pixels: what one feature vector describes
_SCALES = (1, 2, 4)  # each is looked at after averaging over so many pixels
_WIDTHS = (24, 32)  # channels after each 3 x 3 convolution
_MOST = 1000  # patches of a set, drawn at random; more cost time and change little
_INSIDE = 0.5  # share of a patch that must not be background
_BATCH = 128


def realism_distance(predicted: Voxels, reference: Voxels, seed: int = 0) -> float:
    """Squared kernel distance between two sets of images; about 0 when nothing tells them apart.

    Parameters
    ----------
    predicted, reference : array of float32
        Shape (n, height, width), in [0, 1] with exactly 0 as background; n, the sizes and the
        subjects may differ between the sets. Patches of 32 x 32 pixels that are at least half
        foreground are compared.
    seed : int
        Of the network and of the choice of patches.

    Returns
    -------
    float
        Unbiased, so that it can be a little below 0.

    Raises
    ------
    ValueError
        When a set has fewer than two patches with foreground.
    """
    return distance_between(features(predicted, seed), features(reference, seed))


def distance_between(synthetic: Tensor, truth: Tensor) -> float:
    """Do as `realism_distance`, of what `features` gave for the two sets."""
    if min(len(truth), len(synthetic)) < 2:
        raise ValueError("a set needs at least two 32 x 32 patches that are half foreground.")
    centre, spread = truth.mean(dim=0), truth.std(dim=0).clamp_min(1e-6)
    return _squared_mmd((synthetic - centre) / spread, (truth - centre) / spread)


def features(images: Voxels, seed: int = 0) -> Tensor:
    """Describe the images' foreground patches; shape (patches, features), float64."""
    patches = _patches(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)))
    if len(patches) > _MOST:
        order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))
        patches = patches[order[:_MOST]]
    if not len(patches):
        return torch.zeros(0, 1, dtype=torch.float64)
    starts = range(0, len(patches), _BATCH)
    return torch.cat([_describe(patches[i : i + _BATCH], seed) for i in starts]).double()


def _patches(images: Tensor) -> Tensor:
    """Cut (n, H, W) into the tiles (patches, 1, 32, 32) that are mostly foreground."""
    height, width = (size // _PATCH for size in images.shape[1:])
    whole = images[:, : height * _PATCH, : width * _PATCH]
    tiles = whole.reshape(len(images), height, _PATCH, width, _PATCH).transpose(2, 3)
    tiles = tiles.reshape(-1, _PATCH, _PATCH)
    return tiles[(tiles > 0).float().mean(dim=(1, 2)) >= _INSIDE][:, None]


def _describe(patches: Tensor, seed: int) -> Tensor:
    """Mean and standard deviation of every random feature in every patch."""
    parts: list[Tensor] = []
    for scale in _SCALES:
        y = functional.avg_pool2d(patches, scale)
        for weight in _filters(seed):
            padded = functional.pad(y, (1, 1, 1, 1), "replicate")
            y = functional.relu(functional.conv2d(padded, weight))
            deviation, mean = torch.std_mean(y, dim=(2, 3))
            parts += [mean, deviation]
    return torch.cat(parts, dim=1)


@cache
def _filters(seed: int) -> tuple[Tensor, ...]:
    """Draw the network's weights; all but one filter of the first layer ignore brightness."""
    rng = torch.Generator().manual_seed(seed)
    weights, channels = [], 1
    for width in _WIDTHS:
        weight = torch.randn(width, channels, 3, 3, generator=rng)
        weights.append(weight * (2 / (9 * channels)) ** 0.5)
        channels = width
    first = weights[0]
    first[1:] -= first[1:].mean(dim=(2, 3), keepdim=True)
    return tuple(weights)


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    """Estimate MMD^2 without bias, with the kernel (x.y / d + 1)^3."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def apart(a: Tensor) -> Tensor:
        same = kernel(a, a)
        return (same.sum() - same.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(apart(x) + apart(y) - 2 * kernel(x, y).mean())
