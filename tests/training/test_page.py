"""The page of a run: how it goes while it trains, how it ended, at next to no cost."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medtrans.config.schema import Pipeline
from medtrans.data.manifest import Manifest
from medtrans.errors import Interrupted, TrainingError
from medtrans.report.document import Document, save_document
from medtrans.report.pictures import save_grid
from medtrans.system.atomic import make_folder
from medtrans.training import page as page_module
from medtrans.training.page import RunPage, run_page
from medtrans.training.parallel import ALONE, Group
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train
from medtrans.training.setup import TrainingSetup, set_up

TRAINING = "step,loss,gradient_norm,learning_rate\n10,0.9,1,0.001\n20,0.25,1,0.0005\n"
VALIDATION = "step,fidelity_psnr,fidelity_psnr_fit,realistic_psnr_fit\n20,9.5,21.5,19.25\n"


@pytest.fixture
def setup(cohort: Path, pipeline: Pipeline, tmp_path: Path) -> TrainingSetup:
    plan = TrainingPlan(pipeline, Manifest.read(cohort), make_folder(tmp_path / "run"))
    return set_up(plan, ALONE)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(page_module, "time", clock)
    return clock


def text(setup: TrainingSetup) -> str:
    return setup.plan.page.read_text(encoding="utf-8")


def lead(setup: TrainingSetup) -> str:
    [found] = re.findall(r"<strong>([^<]*)</strong></p>", text(setup).partition("<main>")[2])
    return found


def refreshes(setup: TrainingSetup) -> bool:
    return 'http-equiv="refresh"' in text(setup)


def fill(stage: Path) -> None:
    make_folder(stage)
    (stage / "training.csv").write_text(TRAINING)
    (stage / "validation.csv").write_text(VALIDATION)
    tile = np.zeros((9, 9), dtype=np.float32)
    for step in (10, 20):
        save_grid(make_folder(stage / "pictures") / f"{step:07d}.png", [[tile]], [""])
    (stage / "pictures" / "notes.png").write_bytes(b"somebody's")


def test_a_run_in_training(setup: TrainingSetup, clock: Clock) -> None:
    page = RunPage(setup)
    fill(setup.plan.stage_folder("residual"))
    on_row = page.begin("residual", "fidelity_psnr_fit", 2)
    assert lead(setup) == "The residual stage is being trained: step 2 of 4."
    clock.now = 300.0
    on_row(3, validated=True)
    assert lead(setup) == (
        "The residual stage is being trained: step 3 of 4, about 5 min left in this stage."
    )
    html = text(setup)
    assert refreshes(setup)
    assert re.findall("<h2>(.*?)</h2>", html)[:2] == ["Noise stage", "Residual stage: step 3 of 4"]
    assert "Not begun: 4 steps." in html
    assert "Loss; last: loss 0.25" in html
    assert "Best fidelity_psnr_fit: 21.5 dB at step 20." in html
    assert "Validation; last: fidelity_psnr_fit 21.5, realistic_psnr_fit 19.25" in html
    assert "Learning rate; last: learning rate 0.0005" in html
    assert html.count("data:image/png") == 1
    assert "Val subjects at step 20; the patient's right is on the left." in html.replace(
        "&#x27;", "'"
    )
    assert "1 t1-to-t2" in html


def test_it_takes_less_than_a_hundredth_of_the_time(
    setup: TrainingSetup, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where writing takes long, two seconds here, and every other row is a validation's."""
    written = []

    def slow(path: Path, document: Document) -> None:
        clock.now += 2.0
        written.append(clock.now)

    monkeypatch.setattr(page_module, "save_document", slow)
    on_row = RunPage(setup).begin("noise", "denoised_psnr", 0)
    for step in range(2000):
        clock.now += 1.0
        on_row(step, validated=step % 2 == 0)
    assert 8 <= len(written) <= 11
    assert np.diff(written).min() >= 200


def test_at_most_every_ten_seconds_but_for_validations(setup: TrainingSetup, clock: Clock) -> None:
    page = RunPage(setup)
    on_row = page.begin("noise", "denoised_psnr", 0)
    seen = []
    for step in range(1, 31):
        clock.now += 1.0
        on_row(step, validated=step == 13)
        seen.append(re.search(r"Noise stage: step (\d+)", text(setup))[1])
    assert list(dict.fromkeys(map(int, seen))) == [0, 10, 13, 23]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Interrupted("Stopped. Saved at noise step 3."), "Stopped. Saved at noise step 3. 20"),
        (TrainingError("The loss is <odd>."), "Stopped by an error: The loss is &lt;odd&gt;."),
        (ZeroDivisionError("secret"), "Stopped by ZeroDivisionError."),
        (None, "Finished."),
    ],
)
def test_how_it_ended(setup: TrainingSetup, error: Exception | None, said: str) -> None:
    if error is None:
        with run_page(setup):
            assert refreshes(setup)
    else:
        with pytest.raises(type(error)), run_page(setup):
            raise error
    assert lead(setup).startswith(said)
    assert not refreshes(setup)
    assert "may have been killed" not in text(setup)


def test_only_the_first_process_writes(setup: TrainingSetup) -> None:
    other = replace(setup, group=Group(rank=1, world=2))
    with run_page(other) as page:
        assert page is None
    assert not setup.plan.page.exists()


@pytest.mark.parametrize("place", ["somebody's file", "a folder"])
def test_what_cannot_be_written_stops_no_training(
    setup: TrainingSetup, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    if place == "a folder":
        setup.plan.page.mkdir()
    else:
        setup.plan.page.write_text("mine")
    with run_page(setup) as page:
        page.begin("noise", "denoised_psnr", 0)
    assert capsys.readouterr().err.count("The page of the run is not written any more.") == 1
    assert setup.plan.page.is_dir() or setup.plan.page.read_text() == "mine"


def test_a_large_picture_is_made_smaller(setup: TrainingSetup) -> None:
    stage = setup.plan.stage_folder("noise")
    tile = np.random.default_rng(0).random((2000, 2000)).astype(np.float32)
    save_grid(make_folder(stage / "pictures") / "0000010.png", [[tile]], [""])
    assert (stage / "pictures" / "0000010.png").stat().st_size > 3e6
    RunPage(setup).begin("noise", "denoised_psnr", 10)
    assert setup.plan.page.stat().st_size < 2.1e6


def test_a_whole_run(cohort: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    """From the page alone: both stages to their last step, with what was logged, and its end."""
    out = tmp_path / "run"
    plan = TrainingPlan(pipeline, Manifest.read(cohort), out, device="cpu")
    train(plan)
    html = plan.page.read_text(encoding="utf-8")
    assert "<strong>Finished." in html
    for stage in ("Noise", "Residual"):
        assert f"<h2>{stage} stage: step 4 of 4</h2>" in html
    assert html.count("data:image/png") == 2
    assert html.count("Validation; last: ") == 2


def test_a_stopped_run_says_how_to_go_on(
    cohort: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = iter([signal.SIGINT])

    def stopping(path: Path, document: Document) -> None:
        save_document(path, document)
        if "Noise stage: step 2 of 4" in document.body and (number := next(signals, None)):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(page_module, "save_document", stopping)
    monkeypatch.setattr(page_module, "_TIMES_ITS_COST", 0.0)
    plan = TrainingPlan(pipeline, Manifest.read(cohort), tmp_path / "run", device="cpu")
    with pytest.raises(Interrupted):
        train(plan)
    html = plan.page.read_text(encoding="utf-8")
    assert "<strong>Stopped. Saved at noise step 2. Run the same command with --resume" in html
