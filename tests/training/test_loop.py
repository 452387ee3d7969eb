"""The loop of both stages: schedule of the learning rate, averages, checkpoints, stopping."""

from __future__ import annotations

import copy
import csv
import math
import os
import pickle
import resource
import signal
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtrans.errors import Interrupted, MedtransError, OutputError, Terminated, TrainingError
from medtrans.system.atomic import remove_leftovers
from medtrans.system.signals import StopSignal
from medtrans.training import loop
from medtrans.training.cache import CachedVolume
from medtrans.training.checkpoint import (
    State,
    averaged,
    has_checkpoint,
    load_checkpoint,
    read_tensors,
    save_checkpoint,
    steps_done,
)
from medtrans.training.data import StageExamples, batches, pair_example, target_example
from medtrans.training.log import TrainingLog
from medtrans.training.loop import Execution, fit
from medtrans.training.stages import Stage, noise_stage, residual_stage
from medtrans.training.step import learning_rate
from medtrans.training.validation import Outcome
from tests import helpers
from tests.faults.kills import kills

Cached = dict[str, dict[str, CachedVolume]]
CPU = torch.device("cpu")


@pytest.fixture
def make_stage(cached: Cached) -> Callable[..., Stage]:
    def make(validated: bool = True, **config: Any) -> Stage:
        recipe = helpers.tiny_pipeline(noise=config)
        val = [target_example(cached["val"]["t2"], 0)] if validated else []
        train = [target_example(cached["train"]["t2"], 0)]
        return noise_stage(recipe, StageExamples(train, val), 0)

    return make


def run(stage: Stage, folder: Path, **options: Any) -> dict[str, Tensor]:
    settings = {"seed": 0, "device": CPU, "resume": False, "stop": StopSignal(), **options}
    return fit(stage, folder, Execution(**settings))


def stopping(stage: Stage, stop: StopSignal, step: int, number: int = signal.SIGINT) -> Stage:
    """The same stage, during whose given step (from 1) a signal comes."""
    calls = 0

    def loss(network: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == step:
            stop.received = number
        return stage.loss(network, batch, rng)

    return replace(stage, loss=loss)


def stopping_in_validation(stage: Stage, stop: StopSignal, call: int) -> Stage:
    """The same stage, in whose given call of the predictor (from 1) a signal comes."""
    predict, calls = stage.validation.predict, 0

    def interrupted(network: nn.Module, batch: Any) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls == call:
            stop.received = signal.SIGINT
        return predict(network, batch)

    return replace(stage, validation=replace(stage.validation, predict=interrupted, slices_each=9))


class Seen(NamedTuple):
    stage: Stage
    sizes: list[int]


def seen_sizes(stage: Stage) -> Seen:
    """The same stage, and the sizes of the batches that its loss is given."""
    sizes: list[int] = []

    def loss(network: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        sizes.append(len(batch["target"]))
        return stage.loss(network, batch, rng)

    return Seen(replace(stage, loss=loss), sizes)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rows_if_any(path: Path) -> list[dict[str, str]]:
    return rows(path) if path.exists() else []


class TestLearningRate:
    config = helpers.tiny_pipeline(
        noise={
            "iterations": 100,
            "warmup_iterations": 10,
            "learning_rate": 1e-3,
            "final_learning_rate": 0.1,
        }
    ).noise

    def test_warms_up_linearly(self) -> None:
        assert learning_rate(self.config, 0) == pytest.approx(1e-4)
        assert learning_rate(self.config, 4) == pytest.approx(5e-4, rel=0.01)
        assert learning_rate(self.config, 9) == pytest.approx(1e-3, rel=0.03)

    def test_falls_to_its_floor(self) -> None:
        rates = [learning_rate(self.config, step) for step in range(10, 101)]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(1e-4)
        assert learning_rate(self.config, 50) == pytest.approx(1e-3 * 0.55)

    def test_no_warm_up(self) -> None:
        config = self.config.model_copy(update={"warmup_iterations": 0})
        assert learning_rate(config, 0) == 1e-3


class TestAverage:
    def test_decay_starts_low_and_ends_at_the_recipes(self) -> None:
        network = nn.Linear(1, 1, bias=False)
        average = averaged(network, 0.6)
        expected = None
        for n, value in enumerate(torch.linspace(1, 3, 30).tolist()):
            with torch.no_grad():
                network.weight.fill_(value)
            average.update_parameters(network)
            decay = min(0.6, (1 + n) / (10 + n))
            expected = value if n == 0 else decay * expected + (1 - decay) * value
            assert float(average.module.weight.detach()) == pytest.approx(expected, rel=1e-5)

    def test_zero_decay_is_the_last_weights(self) -> None:
        network = nn.Linear(2, 2)
        average = averaged(network, 0.0)
        for seed in range(3):
            helpers.randomise(network, seed)
            average.update_parameters(network)
        assert equal(average.module.state_dict(), network.state_dict())


class TestFit:
    def test_learns(self, make_stage: Any, tmp_path: Path) -> None:
        """A network that answers 0 has a loss of 1; thirty steps take it lower."""
        stage = make_stage(False, iterations=40, learning_rate=3e-2, batch_size=4)
        run(stage, tmp_path)
        losses = [float(row["loss"]) for row in rows(tmp_path / "training.csv")]
        assert len(losses) == 4
        assert losses[-1] < 0.9 * losses[0]

    def test_returns_and_keeps_the_best_average(self, make_stage: Any, tmp_path: Path) -> None:
        stage = make_stage(iterations=4, validate_every=1, learning_rate=0.05)
        weights = run(stage, tmp_path)
        scores = [float(r["denoised_psnr"]) for r in rows(tmp_path / "validation.csv")]
        assert len(scores) == 4
        assert equal(weights, read_tensors(tmp_path / "best.pt"))
        last = read_tensors(tmp_path / "last.pt")
        assert last["step"] == 4
        assert last["best_score"] == pytest.approx(max(scores), rel=1e-4)
        assert len(list((tmp_path / "pictures").glob("*.png"))) == 4

    def test_best_is_of_the_best_step(self, make_stage: Any, tmp_path: Path) -> None:
        """After the second step the weights are spoilt: the second step's average is kept."""
        kept = []
        for iterations in (2, 3):
            stage = make_stage(iterations=3, validate_every=1, ema_decay=0.0)
            stop = StopSignal()
            if iterations == 2:
                stage = stopping(stage, stop, 3)
                with pytest.raises(Interrupted):
                    run(stage, tmp_path / "two", stop=stop)
                kept.append(read_tensors(tmp_path / "two" / "best.pt"))
                continue
            original = stage.loss
            count = 0

            def spoilt(network: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
                nonlocal count
                count += 1
                if count == 3:
                    with torch.no_grad():
                        for weight in network.parameters():
                            weight.mul_(0).add_(5)
                return original(network, batch, rng)  # noqa: B023

            kept.append(run(replace(stage, loss=spoilt), tmp_path / "three"))
        assert equal(*kept)

    def test_without_a_val_split_the_last_average_is_kept(
        self, make_stage: Any, tmp_path: Path
    ) -> None:
        stage = make_stage(validated=False)
        weights = run(stage, tmp_path)
        last = read_tensors(tmp_path / "last.pt")["average"]
        assert equal(
            weights, {k.removeprefix("module."): v for k, v in last.items() if "module." in k}
        )
        assert not (tmp_path / "validation.csv").exists()

    def test_low_precision_trains_too(self, make_stage: Any, tmp_path: Path) -> None:
        stage = make_stage(precision="bf16", iterations=2)
        weights = run(stage, tmp_path)
        assert all(torch.isfinite(w).all() for w in weights.values())
        assert all(w.dtype == torch.float32 for w in weights.values())

    @pytest.mark.parametrize("native", [True, False])
    def test_bf16_is_float32_where_it_would_be_emulated(
        self,
        make_stage: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        *,
        native: bool,
    ) -> None:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
        low = run(make_stage(precision="bf16"), tmp_path / "low")
        assert ("is computed in float32" in capsys.readouterr().err) is not native
        full = run(make_stage(precision="fp32"), tmp_path / "full")
        assert "is computed in float32" not in capsys.readouterr().err
        assert equal(low, full) is not native
        kept = read_tensors(tmp_path / "low" / "last.pt")["precision"]
        assert kept == ("bfloat16" if native else "float32")

    def test_gradients_are_clipped(self, make_stage: Any, tmp_path: Path) -> None:
        """With a clip of almost 0 Adam still moves, so only the logged norm tells: it is raw."""
        stage = make_stage(False, iterations=10, clip_norm=1e-12, weight_decay=0.0)
        huge = replace(stage, loss=lambda n, b, r: stage.loss(n, b, r) * 1e4)
        run(huge, tmp_path)
        [row] = rows(tmp_path / "training.csv")
        assert float(row["gradient_norm"]) > 1
        before = make_stage(False).network.state_dict()
        after = read_tensors(tmp_path / "last.pt")["network"]
        moved = max(float((after[k] - before[k]).abs().max()) for k in before)
        # Adam divides by the gradient's size plus 1e-8: a gradient of 1e-12 moves nothing.
        assert moved < 1e-5

    @pytest.mark.parametrize("name", ["noise", "residual"])
    def test_parts_of_a_batch_change_nothing(
        self, cached: Cached, tmp_path: Path, name: Any
    ) -> None:
        """Adam divides by the gradients' size, so that it would show any difference in them."""
        ends = []
        for accumulate in (1, 2, 4):
            changed = {"batch_size": 4, "accumulate": accumulate, "terminal_share": 0.5}
            recipe = helpers.tiny_pipeline(
                noise={**changed, "sees_source": True, "source_dropout": 0.5}, residual=changed
            )
            pairs = [pair_example(cached["train"]["t1"], cached["train"]["t2"], 0, 1)]
            build = {"noise": noise_stage, "residual": residual_stage}[name]
            stage = build(recipe, StageExamples(pairs), seed=0)
            seen = seen_sizes(stage)
            ends.append(run(seen.stage, tmp_path / str(accumulate)))
            assert set(seen.sizes) == {4 // accumulate}
        for end in ends[1:]:
            assert all(torch.allclose(end[k], ends[0][k], rtol=0, atol=1e-5) for k in end)


def spoiling(stage: Stage, steps: set[int], value: float) -> Stage:
    """The same stage, whose loss is multiplied by `value` in some steps (from 0)."""
    calls = 0

    def loss(network: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        return stage.loss(network, batch, rng) * (value if calls - 1 in steps else 1.0)

    return replace(stage, loss=loss)


class TestNotFinite:
    @pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
    def test_a_step_without_a_finite_loss_or_gradient_is_left_out_and_counted(
        self, make_stage: Any, tmp_path: Path, value: float
    ) -> None:
        """With 1e38 the loss is finite, and the gradient's norm is not."""
        ends = []
        for spoilt in ({2}, {2, 3}):
            stage = make_stage(False, iterations=10, ema_decay=0.0)
            folder = tmp_path / str(len(spoilt))
            run(spoiling(stage, spoilt, value), folder)
            ends.append(read_tensors(folder / "last.pt"))
            assert (ends[-1]["skipped"], ends[-1]["step"]) == (len(spoilt), 10)
            [row] = rows(folder / "training.csv")
            assert float(row["skipped"]) == len(spoilt)
            assert all(math.isfinite(float(number)) for number in row.values())
        for end in ends:
            assert all(w.isfinite().all() for w in end["average"].values())
        assert not equal(ends[0]["network"], ends[1]["network"])

    def test_no_weight_changes(self, make_stage: Any, tmp_path: Path) -> None:
        stage = make_stage(False, iterations=2)
        before = copy.deepcopy(stage.network.state_dict())
        run(spoiling(stage, {0, 1}, math.nan), tmp_path)
        assert equal(before, read_tensors(tmp_path / "last.pt")["network"])

    def test_one_after_the_other_stops_with_advice(self, make_stage: Any, tmp_path: Path) -> None:
        stage = make_stage(False, iterations=30, checkpoint_every=1)
        with pytest.raises(TrainingError, match=r"step 12.*10 in all.*noise.learning_rate.*fp32"):
            run(spoiling(stage, set(range(3, 30)), math.nan), tmp_path)
        assert read_tensors(tmp_path / "last.pt")["step"] == 12

    def test_resuming_goes_on_counting(self, make_stage: Any, tmp_path: Path) -> None:
        stop = StopSignal()
        stage = spoiling(make_stage(False, iterations=30), set(range(30)), math.nan)
        with pytest.raises(Interrupted):
            run(stopping(stage, stop, 5), tmp_path, stop=stop)
        stage = spoiling(make_stage(False, iterations=30), set(range(30)), math.nan)
        with pytest.raises(TrainingError, match=r"step 9.*10 in all"):
            run(stage, tmp_path, resume=True)

    def test_one_in_twenty_is_borne(self, make_stage: Any, tmp_path: Path) -> None:
        config = make_stage(False, iterations=60, batch_size=1, patch=[8, 8])
        run(spoiling(config, set(range(0, 60, 20)), math.nan), tmp_path)
        assert read_tensors(tmp_path / "last.pt")["skipped"] == 3


def needing(stage: Stage, most: int, error: Exception) -> Stage:
    """The same stage, whose loss has memory for so many rows at a time."""

    def loss(network: nn.Module, batch: Any, rng: torch.Generator) -> Tensor:
        if len(batch["target"]) > most:
            raise error
        return stage.loss(network, batch, rng)

    return replace(stage, loss=loss)


NO_MEMORY = [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()]


class TestNoMemory:
    @pytest.mark.parametrize("error", NO_MEMORY)
    def test_batches_are_cut_smaller_from_then_on(
        self, make_stage: Any, tmp_path: Path, error: Exception, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seen = seen_sizes(make_stage(False, iterations=2, batch_size=6))
        run(needing(seen.stage, 2, error), tmp_path)
        assert seen.sizes == [2] * 6
        assert "2 of its 6 patches" in capsys.readouterr().err
        whole = run(make_stage(False, iterations=2, batch_size=6), tmp_path / "whole")
        parts = read_tensors(tmp_path / "best.pt")
        assert all(torch.allclose(parts[k], whole[k], rtol=0, atol=1e-5) for k in whole)

    def test_a_resumed_stage_knows(self, make_stage: Any, tmp_path: Path) -> None:
        stop, config = StopSignal(), {"iterations": 2, "batch_size": 4}
        with pytest.raises(Interrupted):
            stage = stopping(needing(make_stage(False, **config), 1, NO_MEMORY[0]), stop, 3)
            run(stage, tmp_path, stop=stop)
        seen = seen_sizes(make_stage(False, **config))
        run(seen.stage, tmp_path, resume=True)
        assert seen.sizes == [1] * 4

    def test_one_patch_that_is_too_large_says_what_to_change(
        self, make_stage: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(TrainingError, match=r"one patch of 16 x 16.*noise\.patch"):
            run(needing(make_stage(False), 0, NO_MEMORY[0]), tmp_path)

    def test_validation_says_so(
        self, make_stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lacking(*_: object) -> None:
            raise NO_MEMORY[0]

        monkeypatch.setattr(loop, "validate", lacking)
        with pytest.raises(MedtransError, match="Validation of the noise stage needs more memory"):
            run(make_stage(validate_every=1), tmp_path)

    def test_another_error_is_not_taken_for_it(self, make_stage: Any, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="shapes"):
            run(needing(make_stage(False), 0, RuntimeError("shapes do not fit")), tmp_path)


class TestStopping:
    @pytest.mark.parametrize("at", [1, 2, 3])
    def test_resumed_ends_bit_equal(self, make_stage: Any, tmp_path: Path, at: int) -> None:
        stage = make_stage(iterations=4, validate_every=2)
        untouched = run(stage, tmp_path / "whole")
        stop = StopSignal()
        stage = make_stage(iterations=4, validate_every=2)
        with pytest.raises(Interrupted, match=rf"Saved at noise step {at}\..*--resume"):
            run(stopping(stage, stop, at), tmp_path / "parts", stop=stop)
        stage = make_stage(iterations=4, validate_every=2)
        resumed = run(stage, tmp_path / "parts", resume=True)
        assert equal(untouched, resumed)
        whole, parts = (read_tensors(tmp_path / n / "last.pt") for n in ("whole", "parts"))
        assert equal(whole["network"], parts["network"])
        assert equal(whole["average"], parts["average"])
        assert whole["best_score"] == parts["best_score"]
        validation = [rows(tmp_path / n / "validation.csv") for n in ("whole", "parts")]
        assert validation[0] == validation[1]

    @pytest.mark.parametrize("moment", ["in the step", "in validation"])
    def test_a_validation_that_a_signal_prevents_is_made_when_resumed(
        self, make_stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        """Validation may take minutes; a job that is to stop has seconds."""
        config = {"iterations": 3, "validate_every": 1, "learning_rate": 0.05}
        untouched = run(make_stage(**config), tmp_path / "whole")
        stop, stage = StopSignal(), make_stage(**config)
        if moment == "in the step":
            stage = stopping(stage, stop, 2)
        else:
            stage = stopping_in_validation(stage, stop, 2)
        with pytest.raises(Interrupted):
            run(stage, tmp_path / "parts", stop=stop)
        assert read_tensors(tmp_path / "parts" / "last.pt")["validated"] < 2
        resumed = run(make_stage(**config), tmp_path / "parts", resume=True)
        assert equal(untouched, resumed)
        one, two = (rows(tmp_path / n / "validation.csv") for n in ("whole", "parts"))
        assert one == two

    def test_the_validation_of_a_resumed_stage_may_be_interrupted_too(
        self, make_stage: Any, tmp_path: Path
    ) -> None:
        """Of the last step; and it is made once, however often the stage is resumed."""
        config = {"iterations": 2, "validate_every": 2, "validation_slices": 9}
        untouched = run(make_stage(**config), tmp_path / "whole")
        folder = tmp_path / "parts"
        for wrapped in (stopping, stopping_in_validation):
            stop = StopSignal()
            with pytest.raises(Interrupted, match="step 2"):
                stage = wrapped(make_stage(**config), stop, 2 if wrapped is stopping else 1)
                run(stage, folder, stop=stop, resume=True)
            assert not rows_if_any(folder / "validation.csv")
        for _ in range(2):
            assert equal(untouched, run(make_stage(**config), folder, resume=True))
        assert rows(folder / "validation.csv") == rows(tmp_path / "whole" / "validation.csv")

    @pytest.mark.parametrize("counts", [(0, 2), (2, 1)])
    @pytest.mark.parametrize("name", ["noise", "residual"])
    def test_any_number_of_loader_workers_and_a_change_of_it_end_bit_equal(
        self, cached: Cached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any,
        counts: tuple[int, int],
    ) -> None:  # fmt: skip
        recipe = helpers.tiny_pipeline(**{name: {"iterations": 4}})
        pairs = [pair_example(cached["train"]["t1"], cached["train"]["t2"], 0, 1)]
        targets = [target_example(cached["train"]["t2"], 0)]
        build, examples = (noise_stage, targets) if name == "noise" else (residual_stage, pairs)

        def new() -> Stage:
            return build(recipe, StageExamples(examples), 0)

        untouched = run(new(), tmp_path / "whole")
        stop = StopSignal()
        for workers, resume in zip(counts, (False, True), strict=True):
            monkeypatch.setattr(loop, "batches", partial(batches, workers=workers))
            if not resume:
                with pytest.raises(Interrupted):
                    run(stopping(new(), stop, 2), tmp_path / "parts", stop=stop)
                continue
            assert equal(untouched, run(new(), tmp_path / "parts", resume=True))
        ends = (read_tensors(tmp_path / n / "last.pt") for n in ("whole", "parts"))
        assert equal(*(end["network"] for end in ends))

    def test_resuming_a_finished_stage_trains_no_more(
        self, make_stage: Any, tmp_path: Path
    ) -> None:
        stage = make_stage()
        first = run(stage, tmp_path)
        stamp = helpers.digest(tmp_path / "last.pt")
        stage = make_stage()
        assert equal(first, run(stage, tmp_path, resume=True))
        assert helpers.digest(tmp_path / "last.pt") == stamp

    def test_termination_has_its_own_exit_code(self, make_stage: Any, tmp_path: Path) -> None:
        stage = make_stage()
        stop = StopSignal()
        with pytest.raises(Terminated) as caught:
            run(stopping(stage, stop, 1, signal.SIGTERM), tmp_path, stop=stop)
        assert caught.value.exit_code == 143


class TestStopSignal:
    @pytest.fixture(autouse=True)
    def python_handles_interrupts(self) -> Iterator[None]:
        """A shell that starts the tests in the background leaves SIGINT ignored."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_first_signal_is_noted_and_the_second_acts(self) -> None:
        with StopSignal() as stop:
            assert not stop.is_set
            stop.raise_if_set("nothing")
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted, match="kept"):
            stop.raise_if_set("kept")

    def test_a_patient_one_lets_the_second_wait_too(self) -> None:
        with StopSignal(patient=True) as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert stop.is_set

    def test_handlers_are_given_back(self) -> None:
        before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
        with StopSignal():
            assert signal.getsignal(signal.SIGINT) != before[0]
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


class TestCheckpoint:
    def state(self, width: int = 3, seed: int = 0) -> State:
        network = helpers.randomise(nn.Linear(width, 2), seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        state = State(network, averaged(network, 0.9), optimizer, 5, 12.5)
        for _ in range(3):
            network(torch.ones(1, width)).square().sum().backward()  # unlike for unlike weights
            optimizer.step()
            state.average.update_parameters(network)
        return state

    def test_round_trip(self, tmp_path: Path) -> None:
        state, other = self.state(), self.state(seed=9)
        state.validated, state.skipped, state.strikes, state.parts = 4, 3, 21, 2
        save_checkpoint(tmp_path, state)
        other.step, other.best_score = 0, -1.0
        first = [s.optimizer.state_dict()["state"][0] for s in (state, other)]
        assert not equal(*first)
        load_checkpoint(tmp_path, other)
        for name in ("step", "best_score", "validated", "skipped", "strikes", "parts"):
            assert getattr(other, name) == getattr(state, name)
        assert equal(state.network.state_dict(), other.network.state_dict())
        assert equal(state.average.state_dict(), other.average.state_dict())
        moments = [s.optimizer.state_dict()["state"] for s in (state, other)]
        for index in moments[0]:
            assert equal(moments[0][index], moments[1][index])

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_going_on_in_another_precision_is_said(
        self, tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        state, here = self.state(), self.state()
        state.precision, here.precision = "bfloat16", precision
        save_checkpoint(tmp_path, state)
        load_checkpoint(tmp_path, here)
        assert here.precision == precision
        said = "in bfloat16 until now, and goes on in float32" in capsys.readouterr().err
        assert said is (precision == "float32")

    def test_a_full_disk_is_told_as_such(self, tmp_path: Path) -> None:
        state, limits = self.state(width=30_000), resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OutputError, match=r"last\.pt: cannot be written \(File too large"):
                save_checkpoint(tmp_path, state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == []

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, self.state(width=3))
        with pytest.raises(TrainingError, match="does not fit this recipe"):
            load_checkpoint(tmp_path, self.state(width=4))

    @pytest.mark.parametrize("damage", ["truncated", "text", "empty", "list", "flipped"])
    def test_damaged_is_refused(self, tmp_path: Path, damage: str) -> None:
        save_checkpoint(tmp_path, self.state())
        spoil(tmp_path / "last.pt", damage)
        with pytest.raises(TrainingError, match=r"last\.pt (is damaged|does not hold)"):
            load_checkpoint(tmp_path, self.state())

    @pytest.mark.parametrize("damage", ["truncated", "list", "flipped", "gone"])
    def test_the_one_before_takes_the_place_of_a_damaged_one(
        self, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before, state = self.state(), self.state(seed=9)
        for step in (1, 2, 3):
            before.step = step
            save_checkpoint(tmp_path, before)
        state.step = 4
        save_checkpoint(tmp_path, state)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]
        spoil(tmp_path / "last.pt", damage)
        assert has_checkpoint(tmp_path)
        assert steps_done(tmp_path) == 3
        load_checkpoint(tmp_path, state)
        assert state.step == 3
        assert equal(state.network.state_dict(), before.network.state_dict())
        assert "last.pt is damaged or gone" in capsys.readouterr().err

    def test_every_flipped_byte_of_the_weights_is_noticed(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path, self.state())
        path = tmp_path / "last.pt"
        whole = path.read_bytes()
        weights = self.state().network.state_dict()["weight"].numpy().tobytes()
        start = whole.index(weights)
        for place in range(start, start + len(weights)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(TrainingError, match="checksum"):
                load_checkpoint(tmp_path, self.state())

    def test_a_kill_leaves_a_state_that_loads(self, tmp_path: Path) -> None:
        """The one before stays until the new one is whole, and no more than two are kept."""
        states = [self.state(), self.state(seed=9)]
        states[1].step = 6
        save_checkpoint(tmp_path, states[0])
        seen = set()
        for _ in kills(lambda: save_checkpoint(tmp_path, states[1])):
            loaded = self.state()
            load_checkpoint(tmp_path, loaded)
            seen.add(loaded.step)
            assert read_tensors(tmp_path / "last.pt")["step"] == loaded.step
            remove_leftovers(tmp_path)
            assert {p.name for p in tmp_path.iterdir()} <= {"last.pt", "previous.pt"}
            save_checkpoint(tmp_path, states[0])
        assert seen == {5, 6}

    def test_a_file_system_without_links(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_links(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
        state = self.state()
        for step in (1, 2):
            state.step = step
            save_checkpoint(tmp_path, state)
        steps = [read_tensors(tmp_path / name)["step"] for name in ("previous.pt", "last.pt")]
        assert steps == [1, 2]

    def test_one_of_an_older_version_loads(self, tmp_path: Path) -> None:
        """It has no checksum, and no more than these parts."""
        state = self.state()
        save_checkpoint(tmp_path, state)
        content = read_tensors(tmp_path / "last.pt")
        parts = ("network", "average", "optimizer", "step", "best_score")
        torch.save({name: content[name] for name in parts}, tmp_path / "last.pt")
        load_checkpoint(tmp_path, state)
        assert (state.step, state.validated, state.skipped) == (5, 5, 0)

    def test_missing_parts_are_refused(self, tmp_path: Path) -> None:
        torch.save({"network": self.state().network.state_dict()}, tmp_path / "last.pt")
        with pytest.raises(TrainingError, match="does not fit"):
            load_checkpoint(tmp_path, self.state())

    def test_missing_file_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r"There is no checkpoint .*Train that stage first"):
            read_tensors(tmp_path / "best.pt")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_in_it_is_not_run(self, tmp_path: Path, zipped: bool) -> None:
        mark = tmp_path / "mark"
        path = tmp_path / "best.pt"
        if zipped:
            torch.save({"weights": Touch(mark)}, path)
        else:
            path.write_bytes(pickle.dumps(Touch(mark), protocol=2))  # as torch.save writes
        with pytest.raises(TrainingError, match="damaged"):
            read_tensors(path)
        assert not mark.exists()

    def test_failed_write_keeps_the_old_one(self, tmp_path: Path) -> None:
        state = self.state()
        save_checkpoint(tmp_path, state)
        before = (tmp_path / "last.pt").read_bytes()
        broken = copy.copy(state)
        broken.step = lambda: None  # type: ignore[assignment] # cannot be pickled
        with pytest.raises(Exception, match="pickle"):
            save_checkpoint(tmp_path, broken)
        assert (tmp_path / "last.pt").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def spoil(path: Path, damage: str) -> None:
    """Damage a checkpoint as disks and people do."""
    data = path.read_bytes()
    content = {"truncated": data[: len(data) // 2], "text": b"hello", "empty": b""}
    if damage == "flipped":
        with zipfile.ZipFile(path) as archive:  # anywhere else a bit may be between the entries
            tensor = next(name for name in archive.namelist() if "/data/" in name)
            at = data.index(archive.read(tensor))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    elif damage == "list":
        torch.save([1, 2], path)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[damage])


class Touch:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestLog:
    def test_rows_after_the_checkpoint_are_dropped(self, tmp_path: Path) -> None:
        log = TrainingLog(tmp_path, 0)
        for step in (10, 20, 30):
            log.training(step, {"loss": step / 7})
            log.validation(step, Outcome({"psnr": float(step)}))
        log.close()
        log = TrainingLog(tmp_path, 20)
        log.training(30, {"loss": 0.5})
        log.close()
        assert [r["step"] for r in rows(tmp_path / "training.csv")] == ["10", "20", "30"]
        assert rows(tmp_path / "training.csv")[-1]["loss"] == "0.5"
        assert [r["step"] for r in rows(tmp_path / "validation.csv")] == ["10", "20"]

    @pytest.mark.parametrize("torn", ["step,lo", "step,loss\r\n10,0.", "", "step,loss\r\n"])
    def test_a_half_written_row_is_dropped(self, tmp_path: Path, torn: str) -> None:
        (tmp_path / "training.csv").write_bytes(torn.encode())
        log = TrainingLog(tmp_path, 20)
        log.training(30, {"loss": 0.5})
        log.close()
        assert rows(tmp_path / "training.csv") == [{"step": "30", "loss": "0.5"}]

    def test_the_columns_of_an_older_log_stay(self, tmp_path: Path) -> None:
        (tmp_path / "training.csv").write_text("step,loss\n10,0.25\n")
        log = TrainingLog(tmp_path, 10)
        log.training(20, {"loss": 0.5, "skipped": 1.0})
        log.close()
        assert [list(row.values()) for row in rows(tmp_path / "training.csv")] == [
            ["10", "0.25"],
            ["20", "0.5"],
        ]

    def test_pictures(self, tmp_path: Path) -> None:
        tile = np.zeros((5, 6), dtype=np.float32)
        TrainingLog(tmp_path, 0).validation(7, Outcome({"psnr": 1.0}, [[tile, tile]], ["a", "b"]))
        assert (tmp_path / "pictures" / "0000007.png").is_file()
