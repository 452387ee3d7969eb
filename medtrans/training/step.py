"""One training step: gradients in as many parts as fit, and weights that stay finite."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from medtrans.config.schema import StageConfig
from medtrans.diffusion import generator
from medtrans.errors import TrainingError
from medtrans.system.devices import choose_precision, lacks_memory
from medtrans.system.progress import say
from medtrans.training.checkpoint import State
from medtrans.training.data import ROW, Batch
from medtrans.training.parallel import Group
from medtrans.training.stages import Stage

# Ten steps in succession without a finite loss end a training, or more than one in ten for long.
_STRIKES, _MOST_STRIKES = 10, 100


def precision_of(config: StageConfig, device: torch.device) -> str:
    """Return what a stage is computed in: "float32", or "bfloat16" where the hardware has it.

    Elsewhere bfloat16 is emulated, and a step takes many times as long as in float32.
    """
    bf16 = config.precision == "bf16" and choose_precision(device) is torch.bfloat16
    return "bfloat16" if bf16 else "float32"


def train_step(
    stage: Stage, state: State, batch: Batch, seed: int, group: Group
) -> tuple[float, float]:
    """Make one optimiser step, unless its loss is not finite.

    Parameters
    ----------
    stage : Stage
    state : State
        Changed; one step on in any case.
    batch : dict of Tensor
        This process's rows, and in `ROW` which of the whole batch they are.
    seed : int
        With the step, decides all randomness.
    group : Group

    Returns
    -------
    (float, float)
        The loss, and the gradient's norm before clipping.

    Raises
    ------
    TrainingError
        When step after step has no finite loss, or one needs more memory than there is.
    """
    config = stage.config
    for settings in state.optimizer.param_groups:
        settings["lr"] = learning_rate(config, state.step)
    while (own_loss := _gradients(stage, state, batch, seed)) is None:
        _cut_smaller(stage, state, len(batch[ROW]))
    loss = group.average(state.network, own_loss)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    values = float(loss), float(norm)
    if all(map(math.isfinite, values)):
        state.optimizer.step()
        state.average.update_parameters(state.network)
        state.strikes = max(0, state.strikes - 1)
    else:
        _skip(stage, state, values[0])
    state.step += 1
    return values


def _skip(stage: Stage, state: State, loss: float) -> None:
    """Leave a step without a finite loss out; raises `TrainingError` when it is one of many."""
    state.skipped += 1
    state.strikes += _STRIKES
    where = f"The loss or its gradient of the {stage.name} stage is not finite at step {state.step}"
    if state.strikes < _MOST_STRIKES:
        say(f"Warning: {where} (loss {loss}): the step is left out.")
        return
    raise TrainingError(
        f"{where}, as at many steps before it ({state.skipped} in all). Lower {stage.name}."
        f"learning_rate in the recipe (it is {stage.config.learning_rate:g}), or set "
        f'{stage.name}.precision = "fp32". The last checkpoint is from before.'
    )


def _gradients(stage: Stage, state: State, batch: Batch, seed: int) -> Tensor | None:
    """Compute the gradients of a batch, part by part; returns the loss, or None without memory."""
    state.optimizer.zero_grad(set_to_none=True)
    try:
        losses = [_backward(stage, state, part, seed) for part in _parts(batch, state.parts)]
        return torch.stack(losses).sum()
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        return None


def _cut_smaller(stage: Stage, state: State, rows: int) -> None:
    """Cut batches into more parts from now on, which changes rounding only."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    finer = [parts for parts in range(state.parts + 1, rows + 1) if rows % parts == 0]
    if not finer:
        height, width = stage.config.patch
        raise TrainingError(
            f"A step of the {stage.name} stage needs more memory than there is, even for one patch "
            f"of {height} x {width} at a time. Set a smaller {stage.name}.patch or narrower "
            "network.channels in the recipe, or train where there is more memory."
        )
    state.parts = finer[0]
    say(
        f"Warning: a batch needs more memory than there is; from now on {rows // finer[0]} of its "
        f"{rows} patches are worked on at a time. {stage.name}.accumulate in the recipe does so "
        "from the first step."
    )


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into equal parts."""
    for values in zip(*(value.chunk(count) for value in batch.values()), strict=True):
        yield dict(zip(batch, values, strict=True))


def _backward(stage: Stage, state: State, part: Batch, seed: int) -> Tensor:
    """Add a part's share to the gradients; returns its share of the loss."""
    rng = generator(seed, stage.name, "step", state.step)
    device_type = part["target"].device.type
    with torch.autocast(device_type, torch.bfloat16, enabled=state.in_bfloat16):
        loss: Tensor = stage.loss(state.network, part, rng) / state.parts
    torch.autograd.backward(loss)
    return loss.detach()


def learning_rate(config: StageConfig, step: int) -> float:
    """Return a step's rate: a linear warm-up, then a cosine down to a share of the peak."""
    warm = min(1.0, (step + 1) / max(config.warmup_iterations, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / config.iterations, 1.0)))
    floor = config.final_learning_rate
    return config.learning_rate * warm * (floor + (1 - floor) * cosine)
