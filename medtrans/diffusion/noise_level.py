"""How much noise the residual stage should work in: the criterion J(sigma) of Eq. 11, 12, 45-51.

J(sigma) = lambda A(sigma) + (1 - lambda) B(sigma), and the lowest is best. A is how far apart the
noisy source and the noisy target still are (noise harmonises domains, so it falls); B is how far
the noisy source has gone from the source itself (noise destroys, so it rises). Both are MMDs.

What is the paper's and what is our reading: A, B, their MMD and the weight are the paper's as
public summaries have them. Ours are: the samples are image patches; the kernel is a Gaussian whose
bandwidth is the median distance between clean patches; the estimate is the unbiased one of the
square, held at 0 (its root makes J almost flat below the bandwidth); and each curve is divided by
its largest value over the grid, so that lambda weighs numbers of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Criterion(NamedTuple):
    """The criterion on a grid of noise levels; each a list as long as the grid.

    Attributes
    ----------
    sigma : list of float
    apart : list of float
        A, in [0, 1]: squared MMD of noisy source and noisy target.
    destroyed : list of float
        B, in [0, 1]: squared MMD of noisy source and source.
    total : list of float
        J.
    """

    sigma: list[float]
    apart: list[float]
    destroyed: list[float]
    total: list[float]

    @property
    def best(self) -> float:
        """The sigma at which J is lowest."""
        return self.sigma[self.total.index(min(self.total))]


def noise_criterion(
    source: Tensor, target: Tensor, grid: Sequence[float], weight: float, rng: Generator
) -> Criterion:
    """Measure A, B and J of two sets of patches that need not be pairs.

    Parameters
    ----------
    source, target : Tensor
        Shape (n, features) and (m, features): patches in [-1, 1], flattened.
    grid : sequence of float
        Noise levels, above 0, on the [-1, 1] scale.
    weight : float
        lambda in [0, 1]: how much harmony counts against destruction.
    rng : Generator
        Every level is given the same draws, so that the curves are smooth.
    """
    source, target = source.double(), target.double()
    bandwidth = median_distance(torch.cat([source, target]))
    eps, other = (torch.randn(x.shape, generator=rng, dtype=x.dtype) for x in (source, target))
    apart = [squared_mmd(source + s * eps, target + s * other, bandwidth) for s in grid]
    destroyed = [squared_mmd(source + s * eps, source, bandwidth, paired=True) for s in grid]
    a, b = _share_of_largest(apart), _share_of_largest(destroyed)
    total = [weight * x + (1 - weight) * y for x, y in zip(a, b, strict=True)]
    return Criterion(list(grid), a, b, total)


def squared_mmd(x: Tensor, y: Tensor, bandwidth: float, paired: bool = False) -> float:
    """Square of the maximum mean discrepancy (Gretton et al., JMLR 13, 2012), Gaussian kernel.

    Parameters
    ----------
    x, y : Tensor
        Shape (n, features) and (m, features).
    bandwidth : float
    paired : bool
        Row i of y is what row i of x came from: such twins are left out, or they would make the
        sets look alike.
    """
    xx, yy, xy = (_kernel(a, b, bandwidth) for a, b in ((x, x), (y, y), (x, y)))
    across = _off_diagonal_mean(xy) if paired else xy.mean()
    squared = _off_diagonal_mean(xx) + _off_diagonal_mean(yy) - 2 * across
    return float(squared.clamp_min(0))


def median_distance(x: Tensor, most: int = 1000) -> float:
    """Median distance between two rows, of at most `most` evenly spread ones."""
    some = x[torch.linspace(0, len(x) - 1, min(len(x), most)).long()]
    return max(float(torch.pdist(some).median()), 1e-6)


def _kernel(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    return (-(torch.cdist(x, y) ** 2) / (2 * bandwidth**2)).exp()


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))


def _share_of_largest(values: list[float]) -> list[float]:
    largest = max(*values, 1e-12)
    return [value / largest for value in values]
