"""What a stopped training needs to go on bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medtrans.errors import TrainingError
from medtrans.system.atomic import replacing

Weights = dict[str, Tensor]
"""A state dict."""
_Tensors = list[Tensor] | tuple[Tensor, ...]
_Average = Callable[[_Tensors, _Tensors, Tensor | int], None]
"""(averages, changed in place; current weights; number of updates so far)"""

LAST, BEST = "last.pt", "best.pt"  # of a stage's folder: the whole state, and the averaged weights
_ema: Callable[[float], _Average] = get_ema_multi_avg_fn  # torch gives no types


@dataclass
class State:
    """Everything that changes while a stage trains; randomness is a function of the step.

    Attributes
    ----------
    network : Module
    average : AveragedModel
        Exponential moving average of the weights: what is validated and shipped.
    optimizer : Optimizer
    step : int
        Training steps done.
    best_score : float
        Highest validation score so far, in dB.
    """

    network: nn.Module
    average: AveragedModel
    optimizer: Optimizer
    step: int = 0
    best_score: float = float("-inf")


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return torch's exponential moving average of a network, with a decay that starts low.

    A constant decay of 0.999 would keep much of the initial weights for thousands of steps.

    Parameters
    ----------
    network : Module
    decay : float
        In [0, 1): what it rises to, as min(decay, (1 + n) / (10 + n)) after n updates.
    """

    def update(averages: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        n = int(count)
        _ema(min(decay, (1 + n) / (10 + n)))(averages, current, count)

    return AveragedModel(network, multi_avg_fn=update)


def save_checkpoint(path: Path, state: State) -> None:
    """Write the whole state; either the new file is there or the old one still is.

    Parameters
    ----------
    path : Path
    state : State

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    content = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "best_score": state.best_score,
    }
    with replacing(path) as partial:
        torch.save(content, partial)


def load_checkpoint(path: Path, state: State) -> None:
    """Read a state in place.

    Parameters
    ----------
    path : Path
        As `save_checkpoint` wrote it.
    state : State
        Of a stage that was just built; changed.

    Raises
    ------
    TrainingError
        When the file is damaged, or of another model.
    """
    content = read_tensors(path)
    try:
        state.network.load_state_dict(content["network"])
        state.average.load_state_dict(content["average"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.step, state.best_score = int(content["step"]), float(content["best_score"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"The checkpoint {path} does not fit this recipe ({str(error).splitlines()[0]}). "
            "Resume with the recipe it was made with, or train into a new folder."
        ) from None


def save_weights(path: Path, weights: Weights) -> None:
    """Write a plain state dict; raises `OutputError` when it cannot be written."""
    with replacing(path) as partial:
        torch.save(weights, partial)


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a .pt file without running code from it.

    Raises
    ------
    TrainingError
        When the file is missing or damaged, or holds no mapping.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(
            f"There is no checkpoint {path}. Train that stage first, or leave --resume out."
        ) from None
    except Exception as error:  # torch raises many kinds for damaged files
        raise TrainingError(
            f"The checkpoint {path} is damaged ({type(error).__name__}). "
            "Delete its folder to start that stage again."
        ) from None
    if not isinstance(content, dict):
        raise TrainingError(f"The checkpoint {path} does not hold weights.")
    return content
