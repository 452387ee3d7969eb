"""What a noise network predicts, and how the estimate of x0 follows from it.

At x = x0 + level eps (Eq. 2) the network may be asked for eps (the paper's choice, Eq. 10), for x0,
or for v, the direction between the two that Karras et al. (EDM, arXiv 2206.00364) scale to unit
variance. Shapes: images (B, C, H, W) in [-1, 1]; levels (B,), standard deviations on that scale.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["eps", "x0", "v"]
DATA_STD = 0.5  # of images in [-1, 1], as EDM assumes; only the scale of v and of SNR rests on it


def prediction_target(kind: Prediction, x0: Tensor, eps: Tensor, level: Tensor) -> Tensor:
    """Return what the network should answer at x0 + level eps (Eq. 10 for eps).

    v is EDM's training target (its Eq. 8): (level x0 / s - s eps) / sqrt(s^2 + level^2), with
    s = `DATA_STD`.

    Parameters
    ----------
    kind : "eps", "x0" or "v"
    x0, eps : Tensor
        Shape (B, C, H, W).
    level : Tensor
        Shape (B,).

    Returns
    -------
    Tensor
        Shape (B, C, H, W).
    """
    if kind == "eps":
        return eps
    if kind == "x0":
        return x0
    b = per_image(level, x0)
    return (b * x0 / DATA_STD - DATA_STD * eps) / (DATA_STD**2 + b**2).sqrt()


def estimate_x0(kind: Prediction, answer: Tensor, x: Tensor, level: Tensor) -> Tensor:
    """Turn the network's answer at x into an estimate of x0; the inverse of `prediction_target`.

    For eps this is x - beta_bar eps_theta, the x0 of Eq. 7.

    Parameters
    ----------
    kind : "eps", "x0" or "v"
    answer, x : Tensor
        Shape (B, C, H, W).
    level : Tensor
        Shape (B,).

    Returns
    -------
    Tensor
        Shape (B, C, H, W).
    """
    b = per_image(level, x)
    if kind == "eps":
        return x - b * answer
    if kind == "x0":
        return answer
    return preconditioned(answer, x, b, DATA_STD)


def preconditioned(answer: Tensor, x: Tensor, level: Tensor, data_std: float) -> Tensor:
    """Return EDM's estimate of x0, c_skip x + c_out answer (arXiv 2206.00364, Eq. 7, Table 1).

    Parameters
    ----------
    answer, x : Tensor
        Shape (B, C, H, W).
    level : Tensor
        Of a shape that broadcasts against x.
    data_std : float
        Standard deviation of the images that the network was trained on.

    Returns
    -------
    Tensor
        Shape (B, C, H, W).
    """
    total = data_std**2 + level**2
    return data_std**2 / total * x + level * data_std / total.sqrt() * answer


def min_snr_weight(kind: Prediction, level: Tensor, limit: float) -> Tensor:
    """Weight each image's loss: a squared error of x0 / DATA_STD then costs min(SNR, limit).

    Hang et al., arXiv 2303.09556; the paper weighs all images alike (Eq. 10).

    Parameters
    ----------
    kind : "eps", "x0" or "v"
    level : Tensor
        Shape (B,), above 0.
    limit : float
        Of the signal-to-noise ratio DATA_STD^2 / level^2.

    Returns
    -------
    Tensor
        Shape (B,).
    """
    snr = DATA_STD**2 / level**2
    scale = {"x0": torch.full_like(snr, DATA_STD**2), "eps": snr, "v": snr + 1}[kind]
    return snr.clamp(max=limit) / scale


def per_image(value: Tensor, like: Tensor) -> Tensor:
    """Shape (B,) -> (B, 1, …), with the type and on the device of `like`."""
    return value.to(like).view(-1, *[1] * (like.ndim - 1))
