"""The training loop, one for both stages."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medtrans.config.schema import StageConfig
from medtrans.diffusion import generator
from medtrans.errors import TrainingError
from medtrans.system.progress import track
from medtrans.system.signals import StopSignal
from medtrans.training.checkpoint import (
    BEST,
    LAST,
    State,
    Weights,
    averaged,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    save_weights,
)
from medtrans.training.data import ROW, Batch, batches
from medtrans.training.log import TrainingLog
from medtrans.training.parallel import ALONE, Group
from medtrans.training.stages import Stage
from medtrans.training.validation import validate

_LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class Execution:
    """How stages are trained: from which seed, where, by whom, and until when.

    Attributes
    ----------
    seed : int
        With the step, decides all randomness.
    device : device
    stop : StopSignal
        Checked after every step; when set, the state is saved and `stop.raise_if_set` raises.
    resume : bool
        Go on from last.pt where there is one.
    group : Group
        The processes that train together; only the first writes and validates.
    """

    seed: int
    device: torch.device
    stop: StopSignal
    resume: bool = False
    group: Group = ALONE


def fit(stage: Stage, folder: Path, execution: Execution) -> Weights:
    """Train a stage to its last iteration.

    Parameters
    ----------
    stage : Stage
    folder : Path
        Gets last.pt (the whole state), best.pt (averaged weights), logs and pictures.
    execution : Execution

    Returns
    -------
    dict of Tensor
        The averaged weights of the best validation score, or the last ones without validation.

    Raises
    ------
    TrainingError
        When the loss is not finite, or last.pt is damaged or of another recipe.
    Interrupted
        When a signal came; the state is saved.
    """
    config, group, stop = stage.config, execution.group, execution.stop
    state = _fresh_state(stage, execution.device)
    if execution.resume and (folder / LAST).is_file():
        load_checkpoint(folder / LAST, state)
    group.wait()  # all have read last.pt before the first writes it anew
    writer = _Writer(stage, state, folder) if group.leads else None
    with track(f"{stage.name} stage") as update:
        for batch in _stream(stage, state.step, execution):
            loss, norm = _step(stage, state, batch, execution)
            stopped = group.agree(stop.received)
            if writer is not None:
                note = writer.step(loss, norm, last=stopped is not None)
                update(state.step, config.iterations, f"loss {loss:.4f} {note}")
            if stopped is not None:
                group.wait()  # torchrun ends all processes when the first of them leaves
                stop.received = stopped
                stop.raise_if_set(f"Saved at {stage.name} step {state.step}.")
    if writer is not None:
        writer.log.close()
    with group.leader_first():
        return _result(folder, state)


def _fresh_state(stage: Stage, device: torch.device) -> State:
    network = stage.network.to(device).train()
    config = stage.config
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    return State(network, averaged(network, config.ema_decay), optimizer)


def _stream(stage: Stage, first: int, execution: Execution) -> Iterator[Batch]:
    config, device, group = stage.config, execution.device, execution.group
    rows = group.rows(config.batch_size, config.accumulate)
    steps = range(first, config.iterations)
    pin = device.type == "cuda"
    for batch in batches(stage.slices, steps, config.batch_size, group=group, pin=pin):
        moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        yield {**moved, ROW: rows}


def _step(stage: Stage, state: State, batch: Batch, execution: Execution) -> tuple[float, float]:
    """One optimiser step; returns the loss and the gradient's norm before clipping."""
    config = stage.config
    for settings in state.optimizer.param_groups:
        settings["lr"] = _learning_rate(config, state.step)
    state.optimizer.zero_grad(set_to_none=True)
    parts = _parts(batch, config.accumulate)
    losses = [_backward(stage, state, part, execution.seed) for part in parts]
    loss = execution.group.average(state.network, torch.stack(losses).sum())
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    value = float(loss)
    if not math.isfinite(value):
        raise TrainingError(
            f"The loss of the {stage.name} stage became {value} at step {state.step}. Lower "
            f"{stage.name}.learning_rate in the recipe (it is {config.learning_rate:g}), or set "
            f'{stage.name}.precision = "fp32".'
        )
    state.optimizer.step()
    state.average.update_parameters(state.network)
    state.step += 1
    return value, float(norm)


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into equal parts."""
    for values in zip(*(value.chunk(count) for value in batch.values()), strict=True):
        yield dict(zip(batch, values, strict=True))


def _backward(stage: Stage, state: State, part: Batch, seed: int) -> Tensor:
    """Add a part's share to the gradients; returns its share of the loss."""
    config = stage.config
    rng = generator(seed, stage.name, "step", state.step)
    device_type = part["target"].device.type
    with torch.autocast(device_type, torch.bfloat16, enabled=config.precision == "bf16"):
        loss: Tensor = stage.loss(state.network, part, rng) / config.accumulate
    torch.autograd.backward(loss)
    return loss.detach()


def _learning_rate(config: StageConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate` of the peak."""
    warm = min(1.0, (step + 1) / max(config.warmup_iterations, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / config.iterations, 1.0)))
    floor = config.final_learning_rate
    return config.learning_rate * warm * (floor + (1 - floor) * cosine)


def _validate(stage: Stage, state: State, folder: Path, log: TrainingLog) -> str:
    """Score the averaged network on the val split; keep it when it is the best so far."""
    network = state.average.module.eval()
    device = next(network.parameters()).device
    bf16 = stage.config.precision == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        outcome = validate(network, stage.validation, device)
    network.train()
    log.validation(state.step, outcome)
    score = outcome.scores[stage.monitored]
    if score > state.best_score:
        state.best_score = score
        save_weights(folder / BEST, network.state_dict())
    return f"val {stage.monitored} {score:.2f} dB (best {state.best_score:.2f})"


def _result(folder: Path, state: State) -> Weights:
    best = folder / BEST
    if not best.is_file():
        save_weights(best, state.average.module.state_dict())
    return read_tensors(best)


def _due(step: int, every: int, total: int) -> bool:
    return step % every == 0 or step == total


class _Writer:
    """What one process does after each step: log, validation, checkpoint."""

    def __init__(self, stage: Stage, state: State, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stage, self.state, self.folder = stage, state, folder
        self.log = TrainingLog(folder, state.step)
        self.meter = _Meter(stage.config.batch_size)
        self.note = ""

    def step(self, loss: float, norm: float, *, last: bool) -> str:
        """Write what is due, and the checkpoint if this step is the last; returns a note."""
        config, done = self.stage.config, self.state.step
        self.meter.add(loss, norm)
        if done % _LOG_EVERY == 0:
            self.log.training(done, self.meter.read(_learning_rate(config, done)))
        validated = bool(self.stage.validation.examples)
        if validated and _due(done, config.validate_every, config.iterations):
            self.note = _validate(self.stage, self.state, self.folder, self.log)
        if _due(done, config.checkpoint_every, config.iterations) or last:
            save_checkpoint(self.folder / LAST, self.state)
        return self.note


class _Meter:
    """Means of what happened since it was last read."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._clear()

    def add(self, loss: float, norm: float) -> None:
        self.losses.append(loss)
        self.norms.append(norm)

    def read(self, learning_rate: float) -> dict[str, float]:
        seconds = time.monotonic() - self.start
        count = len(self.losses)
        values = {
            "loss": sum(self.losses) / count,
            "gradient_norm": sum(self.norms) / count,
            "learning_rate": learning_rate,
            "slices_per_second": count * self.batch_size / seconds,
        }
        self._clear()
        return values

    def _clear(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.start = time.monotonic()
