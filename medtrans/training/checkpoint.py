"""What a stopped training needs to go on bit for bit.

Two states are kept, the last one and the one before. Each file carries a checksum of what it holds,
so that one that was damaged on the disk is not trained on: the one before takes its place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medtrans.errors import TrainingError
from medtrans.system.atomic import replacing
from medtrans.system.progress import say

Weights = dict[str, Tensor]
"""A state dict."""
_Tensors = list[Tensor] | tuple[Tensor, ...]
_Average = Callable[[_Tensors, _Tensors, Tensor | int], None]
"""(averages, changed in place; current weights; number of updates so far)"""

# Of a stage's folder: the whole state, the one before it, and the averaged weights.
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
_CHECKSUM = "sha256"  # a file's key; files of older versions have none
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
    validated : int
        The last step whose validation is done.
    skipped : int
        Steps without a finite loss, which changed no weight.
    strikes : int
        Rises with each skipped step and falls with each other one.
    parts : int
        Into how many parts a batch is cut.
    precision : "float32" or "bfloat16"
        What the networks compute in; the weights themselves are float32.
    """

    network: nn.Module
    average: AveragedModel
    optimizer: Optimizer
    step: int = 0
    best_score: float = float("-inf")
    validated: int = 0
    skipped: int = 0
    strikes: int = 0
    parts: int = 1
    precision: str = "float32"

    @property
    def in_bfloat16(self) -> bool:
        """Whether torch's autocast is on."""
        return self.precision == "bfloat16"


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


def save_checkpoint(folder: Path, state: State) -> None:
    """Write the whole state, and keep the one before.

    At every moment a state that was whole can be loaded, also when the process is killed or the
    disk is full.

    Parameters
    ----------
    folder : Path
        The stage's; gets last.pt and previous.pt.
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
        "validated": state.validated,
        "skipped": state.skipped,
        "strikes": state.strikes,
        "parts": state.parts,
        "precision": state.precision,
    }
    last = folder / LAST
    with replacing(last) as partial:
        _save(partial, content)
        if last.is_file():
            _keep(last, folder / PREVIOUS)


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def load_checkpoint(folder: Path, state: State) -> None:
    """Read the last whole state in place.

    Parameters
    ----------
    folder : Path
        As `save_checkpoint` filled it.
    state : State
        Of a stage that was just built; changed.

    Raises
    ------
    TrainingError
        When there is no state, both are damaged, or they are of another model.
    """
    path, content = _newest(folder)
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
    state.validated = int(content.get("validated", state.step))
    state.skipped, state.strikes = (int(content.get(key, 0)) for key in ("skipped", "strikes"))
    state.parts = int(content.get("parts", state.parts))
    before = content.get("precision", state.precision)
    if before != state.precision:
        say(
            f"Warning: the training was computed in {before} until now, and goes on in "
            f"{state.precision}, which suits this machine. The weights will differ from those of a "
            "run on one machine by rounding."
        )


def steps_done(folder: Path) -> int:
    """Say how far a stage has been trained; raises `TrainingError` as `load_checkpoint` does."""
    return int(_newest(folder)[1].get("step", 0))


def save_weights(path: Path, weights: Weights) -> None:
    """Write a plain state dict; raises `OutputError` when it cannot be written."""
    with replacing(path) as partial:
        _save(partial, weights)


def read_tensors(path: Path) -> dict[str, Any]:
    """Read a .pt file without running code from it, and check that it is what was written.

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
        raise _damaged(path, type(error).__name__) from None
    if not isinstance(content, dict):
        raise TrainingError(f"The checkpoint {path} does not hold weights.")
    expected = content.pop(_CHECKSUM, None)
    if expected is not None and expected != _checksum(content):
        raise _damaged(path, "its checksum is another")
    return content


def _newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Read the last state that is whole, and say so when it is not the last one."""
    path = folder / LAST
    try:
        return path, read_tensors(path)
    except TrainingError:
        if not (folder / PREVIOUS).is_file():
            raise
    say(f"Warning: the checkpoint {path} is damaged or gone. Going on from the one before it.")
    return folder / PREVIOUS, read_tensors(folder / PREVIOUS)


def _save(path: Path, content: Mapping[str, object]) -> None:
    with path.open("wb") as file:
        try:
            torch.save({**content, _CHECKSUM: _checksum(content)}, file)
        except RuntimeError as error:  # torch's words for a full disk say nothing of it
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name; where there are no links, copy it."""
    with replacing(previous) as partial:
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)


def _checksum(content: object) -> str:
    """Hash tensors, containers and numbers, whatever the bytes of the file that holds them."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            digest.update(b"{")
            for key, inner in value.items():
                digest.update(repr(key).encode())
                add(inner)
            digest.update(b"}")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            digest.update(b"[")
            for inner in value:
                add(inner)
            digest.update(b"]")
        else:
            digest.update(repr(value).encode())

    add(content)
    return digest.hexdigest()


def _damaged(path: Path, why: str) -> TrainingError:
    return TrainingError(
        f"The checkpoint {path} is damaged ({why}). Delete its folder to start that stage again."
    )
