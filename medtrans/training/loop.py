"""The training loop, one for both stages."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from medtrans.system.atomic import make_folder
from medtrans.system.devices import memory_errors
from medtrans.system.progress import say, track
from medtrans.system.signals import StopSignal
from medtrans.training.checkpoint import (
    BEST,
    State,
    Weights,
    averaged,
    has_checkpoint,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    save_weights,
)
from medtrans.training.data import ROW, Batch, batches, readers_errors
from medtrans.training.log import TrainingLog
from medtrans.training.page import RunPage
from medtrans.training.parallel import ALONE, Group
from medtrans.training.stages import Stage
from medtrans.training.step import learning_rate, precision_of, train_step
from medtrans.training.validation import validate

_LOG_EVERY = 10  # steps
_LESS_MEMORY = (
    "It translates slices whole. Crop the val volumes, or train where there is more memory."
)


@dataclass(frozen=True)
class Execution:
    """How stages are trained: from which seed, where, by whom, and until when.

    Attributes
    ----------
    seed : int
        With the step, decides all randomness.
    device : device
    stop : StopSignal
        Active during a stage, and checked after every step; when set, the state is saved and
        `stop.raise_if_set` raises.
    resume : bool
        Go on from the last checkpoint where there is one.
    group : Group
        The processes that train together; only the first writes and validates.
    page : RunPage or None
        Told how the stages go, in the process that writes.
    """

    seed: int
    device: torch.device
    stop: StopSignal
    resume: bool = False
    group: Group = ALONE
    page: RunPage | None = None


def fit(stage: Stage, folder: Path, execution: Execution) -> Weights:
    """Train a stage to its last iteration.

    Parameters
    ----------
    stage : Stage
    folder : Path
        Gets last.pt (the whole state) and previous.pt, best.pt (averaged weights), logs and
        pictures.
    execution : Execution

    Returns
    -------
    dict of Tensor
        The averaged weights of the best validation score, or the last ones without validation.

    Raises
    ------
    TrainingError
        When the loss is again and again not finite, a step needs more memory than there is, or the
        checkpoints are damaged or of another recipe.
    Interrupted
        When a signal came; the state is saved.
    """
    with execution.stop, readers_errors():
        state = _trained(stage, folder, execution)
        with execution.group.leader_first():
            weights = _result(folder, state)
    if execution.group.world == 1:
        execution.stop.raise_if_set(f"The {stage.name} stage is finished.")
    return weights


def timed_steps(stage: Stage, execution: Execution, count: int) -> list[float]:
    """Train so many steps from the start, and keep nothing of it.

    Returns
    -------
    list of float
        Seconds of each step, waiting for its batch included.
    """
    state, seconds = _fresh_state(stage, execution.device), []
    short = replace(stage, config=stage.config.model_copy(update={"iterations": count}))
    with readers_errors():
        start = time.monotonic()
        for batch in _stream(short, 0, execution):
            train_step(stage, state, batch, execution.seed, execution.group)
            seconds.append(time.monotonic() - start)
            start = time.monotonic()
    return seconds


def _trained(stage: Stage, folder: Path, execution: Execution) -> State:
    config, group, stop = stage.config, execution.group, execution.stop
    state = _fresh_state(stage, execution.device)
    if execution.resume and has_checkpoint(folder):
        load_checkpoint(folder, state)
    group.wait()  # all have read the checkpoint before the first writes it anew
    alone = group.world == 1
    writer = _Writer(stage, state, folder, execution) if group.leads else None
    if writer is not None and writer.validate():  # which a signal had prevented
        writer.save(last=True)
    if alone:
        stop.raise_if_set(f"Saved at {stage.name} step {state.step}.")
    with track(f"{stage.name} stage") as update:
        for batch in _stream(stage, state.step, execution):
            loss, norm = train_step(stage, state, batch, execution.seed, group)
            stopped = group.agree(stop.received)
            if writer is not None:
                writer.log_step(loss, norm)
                if stopped is None:
                    writer.validate()
                    stopped = stop.received if alone else None
                writer.save(last=stopped is not None)
                update(state.step, config.iterations, f"loss {loss:.4f} {writer.note}")
            if stopped is not None:
                group.wait()  # torchrun ends all processes when the first of them leaves
                stop.received = stopped
                stop.raise_if_set(f"Saved at {stage.name} step {state.step}.")
    if writer is not None:
        writer.log.close()
    return state


def _fresh_state(stage: Stage, device: torch.device) -> State:
    network = stage.network.to(device).train()
    config = stage.config
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    average, precision = averaged(network, config.ema_decay), precision_of(config, device)
    if config.precision == "bf16" and precision == "float32":
        say(
            f"The {stage.name} stage is computed in float32: this processor has no bf16, which the "
            "recipe asks for, and would take many times as long to emulate it."
        )
    return State(network, average, optimizer, parts=config.accumulate, precision=precision)


def _stream(stage: Stage, first: int, execution: Execution) -> Iterator[Batch]:
    config, device, group = stage.config, execution.device, execution.group
    rows = group.rows(config.batch_size, config.accumulate)
    steps = range(first, config.iterations)
    pin = device.type == "cuda"
    for batch in batches(stage.slices, steps, config.batch_size, group=group, pin=pin):
        moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        yield {**moved, ROW: rows}


def _result(folder: Path, state: State) -> Weights:
    best = folder / BEST
    if not best.is_file():
        save_weights(best, state.average.module.state_dict())
    return read_tensors(best)


def _due(step: int, every: int, total: int) -> bool:
    return step % every == 0 or step == total


class _Writer:
    """What one process does after each step: log, validation, checkpoint.

    Parameters
    ----------
    stage : Stage
    state : State
    folder : Path
    execution : Execution
        Alone, its signal cuts a validation short; the step is validated when the stage is resumed.
    """

    def __init__(self, stage: Stage, state: State, folder: Path, execution: Execution) -> None:
        make_folder(folder)
        self.stage, self.state, self.folder = stage, state, folder
        self.stop = execution.stop if execution.group.world == 1 else None
        self.log = TrainingLog(folder, state.step)
        if execution.page is not None:
            self.log.on_row = execution.page.begin(stage.name, stage.monitored, state.step)
        self.meter = _Meter(stage.config.batch_size)
        self.note = ""

    def log_step(self, loss: float, norm: float) -> None:
        """Write a row of training.csv, when it is due."""
        done = self.state.step
        self.meter.add(loss, norm)
        if done % _LOG_EVERY == 0:
            self.log.training(done, self.meter.read(learning_rate(self.stage.config, done)))

    def validate(self) -> bool:
        """Score the averaged network on the val split, when it is due; keep the best so far.

        Returns
        -------
        bool
            Whether it was due, and is done.
        """
        stage, state = self.stage, self.state
        due = _due(state.step, stage.config.validate_every, stage.config.iterations)
        if not (due and stage.validation.examples) or state.validated == state.step:
            return False
        network = state.average.module.eval()
        device = next(network.parameters()).device
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=state.in_bfloat16),
            memory_errors(f"Validation of the {stage.name} stage", _LESS_MEMORY),
        ):
            outcome = validate(network, stage.validation, device, self.stop)
        network.train()
        if outcome is None:
            return False
        state.validated = state.step
        self.log.validation(state.step, outcome)
        score = outcome.scores[stage.monitored]
        if score > state.best_score:
            state.best_score = score
            save_weights(self.folder / BEST, network.state_dict())
        best = f"(best {state.best_score:.2f})"
        self.note = f"val {stage.monitored} {score:.2f} dB {best}"
        return True

    def save(self, *, last: bool) -> None:
        """Write the checkpoint, when it is due or this step is the last."""
        config, done = self.stage.config, self.state.step
        if _due(done, config.checkpoint_every, config.iterations) or last:
            save_checkpoint(self.folder, self.state)


class _Meter:
    """Means of what happened since it was last read."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._clear()

    def add(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            self.losses.append(loss)
            self.norms.append(norm)
        else:
            self.skipped += 1

    def read(self, learning_rate: float) -> dict[str, float]:
        seconds = time.monotonic() - self.start
        count = len(self.losses)
        values = {
            "loss": sum(self.losses) / count if count else math.nan,
            "gradient_norm": sum(self.norms) / count if count else math.nan,
            "learning_rate": learning_rate,
            "slices_per_second": (count + self.skipped) * self.batch_size / seconds,
            "skipped": float(self.skipped),
        }
        self._clear()
        return values

    def _clear(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.skipped = 0
        self.start = time.monotonic()
