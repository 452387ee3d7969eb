"""How much noise the residual stage should work in: the criterion J(sigma) of Eq. 11, 12, 45-51.

J(sigma) = lambda A(sigma) + (1 - lambda) B(sigma) (Eq. 12, 50), and the lowest is best (Eq. 51). A
is how far apart the noisy source and the noisy target still are: it falls, since noise makes two
distributions alike. B is how far the noisy source has gone from the source itself: it rises, since
noise destroys. Both are squared MMDs with a Gaussian kernel (Eq. 46).

Each curve is the mean over several draws of the noise (Eq. 47) and is scaled from its least to its
largest value (Eq. 48, 49), here over the grid, so that lambda weighs numbers of one size.

Where the paper gives no value the choice is ours: the samples are image patches; the kernel's width
is the median distance between clean patches; the estimate is the unbiased one, held at 0; there are
four draws. The kernel's width decides the answer: widths from a quarter of that distance to four
times it move the best sigma from 0.2 to 3.0 on brain MRI. So the criterion tells an order of
magnitude, and only trained models (`medtrans noise-level --sweep`) tell which sigma is best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

_DRAWS = 4


class Criterion(NamedTuple):
    """The criterion on a grid of noise levels (Eq. 45-50); each a list as long as the grid.

    Attributes
    ----------
    sigma : list of float
        Noise levels, on the [-1, 1] scale.
    apart : list of float
        A, scaled to [0, 1]: squared MMD of noisy source and noisy target.
    destroyed : list of float
        B, scaled to [0, 1]: squared MMD of noisy source and source.
    total : list of float
        J.
    """

    sigma: list[float]
    apart: list[float]
    destroyed: list[float]
    total: list[float]

    @property
    def best(self) -> float:
        """The sigma at which J is lowest (Eq. 51)."""
        return self.sigma[self.total.index(min(self.total))]


def noise_criterion(
    source: Tensor, target: Tensor, grid: Sequence[float], weight: float, rng: Generator
) -> Criterion:
    """Measure A, B and J (Eq. 11, 12, 45-50) of two sets of patches that need not be pairs.

    Parameters
    ----------
    source, target : Tensor
        Shape (n, features) and (m, features): patches in [-1, 1], flattened.
    grid : sequence of float
        Noise levels, above 0, on the [-1, 1] scale.
    weight : float
        lambda in [0, 1]: the weight of A against B.
    rng : Generator
        Every level is given the same draws, so that the curves are smooth.
    """
    source, target = source.double(), target.double()
    bandwidth = median_distance(torch.cat([source, target]))
    apart, destroyed = torch.zeros(2, len(grid), dtype=torch.float64)
    for _ in range(_DRAWS):
        eps, other = (torch.randn(x.shape, generator=rng, dtype=x.dtype) for x in (source, target))
        for i, s in enumerate(grid):
            noisy = source + s * eps
            apart[i] += squared_mmd(noisy, target + s * other, bandwidth) / _DRAWS
            destroyed[i] += squared_mmd(noisy, source, bandwidth, paired=True) / _DRAWS
    a, b = _scaled(apart), _scaled(destroyed)
    return Criterion(list(grid), a.tolist(), b.tolist(), (weight * a + (1 - weight) * b).tolist())


def squared_mmd(x: Tensor, y: Tensor, bandwidth: float, paired: bool = False) -> float:
    """Square of the maximum mean discrepancy with a Gaussian kernel (Eq. 46), estimated unbiased.

    Gretton et al., JMLR 13, 2012, Lemma 6.

    Parameters
    ----------
    x, y : Tensor
        Shape (n, features) and (m, features).
    bandwidth : float
        The kernel's width w: k(a, b) = exp(-|a - b|^2 / (2 w^2)).
    paired : bool
        Row i of y is what row i of x came from: such twins are left out, or they would make the
        sets look alike.

    Returns
    -------
    float
        At least 0: an estimate below 0 becomes 0.
    """
    xx, yy, xy = (_kernel(a, b, bandwidth) for a, b in ((x, x), (y, y), (x, y)))
    across = _off_diagonal_mean(xy) if paired else xy.mean()
    squared = _off_diagonal_mean(xx) + _off_diagonal_mean(yy) - 2 * across
    return float(squared.clamp_min(0))


def median_distance(x: Tensor, most: int = 1000) -> float:
    """Median Euclidean distance between two rows: a width for the kernel of Eq. 46.

    Parameters
    ----------
    x : Tensor
        Shape (n, features), n at least 2.
    most : int
        How many evenly spread rows are compared at most.

    Returns
    -------
    float
        Above 0.
    """
    sample = x[torch.linspace(0, len(x) - 1, min(len(x), most)).long()]
    return max(float(torch.pdist(sample).median()), 1e-6)


def _kernel(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    return (-(torch.cdist(x, y) ** 2) / (2 * bandwidth**2)).exp()


def _off_diagonal_mean(kernel: Tensor) -> Tensor:
    count = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))


def _scaled(values: Tensor) -> Tensor:
    """From the least to the largest value (Eq. 48, 49); a single value is 0."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread.clamp_min(1e-12)
