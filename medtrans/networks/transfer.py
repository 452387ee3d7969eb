"""The weights of a sister network: which of them fit, and whose labels they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from medtrans.networks.head import FEATURES, HEAD

_ROWS = "unet.class_embedding.weight"  # one for each label, a task or contrast; none for one alone
_TIME_BIAS = "unet.time_embed.2.bias"  # what a label's row is added to


def relabelled(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    before: Sequence[str],
    after: Sequence[str],
) -> dict[str, Tensor]:
    """Give a sister network's weights this network's labels, in this network's order.

    A label that the sister did not have keeps this network's own row. For one label alone, which
    has no row, the sister's row goes into the bias that it is added to: the answers are the same.

    Parameters
    ----------
    network : Module
    weights : mapping
        The sister's state dict.
    before, after : sequence of str
        The sister's labels and this network's.

    Returns
    -------
    dict of str to Tensor
        The sister's state dict, but for the labels.
    """
    state, changed = network.state_dict(), dict(weights)
    zeros = torch.zeros(len(before), len(state[_TIME_BIAS]))
    rows = dict(zip(before, changed.pop(_ROWS, zeros), strict=True))
    if len(after) > 1:
        initial = zip(after, state[_ROWS], strict=True)
        changed[_ROWS] = torch.stack([rows.get(label, row) for label, row in initial])
    elif after[0] in rows:
        changed[_TIME_BIAS] = changed[_TIME_BIAS] + rows[after[0]]
    return changed


def copy_matching(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network the weights of a sister network, wherever they fit.

    Inputs that the sister did not have start at zero. The weights have the network's own labels.
    """
    for name, parameter in network.state_dict().items():
        value = weights.get(name)
        if value is None:
            continue
        if parameter.shape == value.shape:
            parameter.copy_(value)
        elif _sees_more(parameter, value):
            parameter.zero_()[:, : value.shape[1]] = value


def misfitting(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Names of what `copy_matching` could not copy although it matters, sorted."""
    own = network.state_dict()
    shared = [name for name in own.keys() & weights.keys() if _fits(own[name], weights[name])]
    fresh = {name for name in own if name.startswith((HEAD, FEATURES))}
    names = {*own, *weights} - set(shared) - (fresh - weights.keys())
    return sorted(names - {_ROWS})


def _fits(parameter: Tensor, value: Tensor) -> bool:
    return parameter.shape == value.shape or _sees_more(parameter, value)


def _sees_more(parameter: Tensor, value: Tensor) -> bool:
    """Whether the layer is the same convolution with more input channels."""
    rest = [(v.shape[0], *v.shape[2:]) for v in (parameter, value)]
    return (
        parameter.ndim == value.ndim == 4
        and rest[0] == rest[1]
        and parameter.shape[1] > value.shape[1]
    )
