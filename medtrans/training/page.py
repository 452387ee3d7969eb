"""RUN/index.html: how a training goes, to look at while it runs."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from html import escape
from pathlib import Path

from medtrans.config.schema import Pipeline
from medtrans.config.terms import StageName
from medtrans.errors import Interrupted, MedtransError, OutputError
from medtrans.report.chart import Chart, Points, draw_chart
from medtrans.report.document import Document, Section, data_url, save_document, sections
from medtrans.report.made import versions
from medtrans.report.pictures import at_most
from medtrans.system.progress import say
from medtrans.training.log import OnRow
from medtrans.training.setup import TrainingSetup
from medtrans.volumes import marks

_REFRESH_S = 15
_AT_LEAST_S = 10.0
_TIMES_ITS_COST = 100.0  # between two writings, so that they take less than 1 % of the time
_PICTURE_BYTES = 1_500_000


@dataclass
class _Progress:
    """Where a stage stands, and since when it has been trained by this process."""

    monitored: str
    first: int
    step: int
    start: float

    def left_s(self, total: int) -> float | None:
        """Tell the time left; None before the first step."""
        done = self.step - self.first
        return (time.monotonic() - self.start) / done * (total - self.step) if done else None


class RunPage:
    """The page of a run. What cannot be written of it is told once, and does not stop a training.

    Parameters
    ----------
    setup : TrainingSetup
    """

    def __init__(self, setup: TrainingSetup) -> None:
        self.setup, self.plan = setup, setup.plan
        self.path = setup.plan.page
        self.stages: dict[StageName, _Progress] = {}
        self.lead = "Volumes are being prepared."
        self.running = True
        self._cost_s, self._written = 0.0, -math.inf
        self._works = True

    def begin(self, stage: StageName, monitored: str, step: int) -> OnRow:
        """Tell that a stage goes on from a step; returns what is to be told of its log's rows.

        Parameters
        ----------
        stage : "noise" or "residual"
        monitored : str
            The score that picks its best checkpoint.
        step : int
        """
        self.stages[stage] = _Progress(monitored, step, step, time.monotonic())
        self._tell(stage)
        self.write()
        return partial(self.update, stage)

    def update(self, stage: StageName, step: int, *, validated: bool) -> None:
        """Tell how far a stage is; the page is written if that takes less than 1 % of the time."""
        self.stages[stage].step = step
        self._tell(stage)
        pause = _TIMES_ITS_COST * self._cost_s
        if time.monotonic() - self._written >= (pause if validated else max(pause, _AT_LEAST_S)):
            self.write()

    def end(self, lead: str) -> None:
        """Write the page for the last time."""
        self.lead, self.running = f"{lead} {_now()}", False
        self.write()

    def write(self) -> None:
        """Write the page."""
        start = time.monotonic()
        try:
            if self._works:
                marks.require_marked([self.path], marks.HTML)
                save_document(self.path, self._document())
        except OutputError as error:
            self._works = False
            with suppress(OSError):  # the disk may be full that this is written to, too
                say(f"The page of the run is not written any more. {error}")
        self._written = time.monotonic()
        self._cost_s = self._written - start

    def _tell(self, stage: StageName) -> None:
        progress, total = self.stages[stage], self.setup.pipeline.stage(stage).iterations
        left = progress.left_s(total)
        self.lead = f"The {stage} stage is being trained: step {progress.step} of {total}" + (
            "." if left is None else f", about {_duration(left)} left in this stage."
        )

    def _document(self) -> Document:
        note = (
            f"Written {_now()}. While the training runs, the page is written again and again, at "
            f"most every {_AT_LEAST_S:g} s, and reads itself anew. If its time stands still, the "
            "process may have been killed."
        )
        lead = f'<p class="lead" role="status"><strong>{escape(self.lead)}</strong></p>' + (
            f'<p class="small">{escape(note)}</p>' if self.running else ""
        )
        body = "\n".join((lead, *map(self._stage, self.plan.trained), sections(self._what())))
        title = f"Training: {', '.join(self.setup.pipeline.tasks)}"
        return Document(title, body, refresh_s=_REFRESH_S if self.running else None)

    def _stage(self, stage: StageName) -> str:
        total, progress = self.setup.pipeline.stage(stage).iterations, self.stages.get(stage)
        title = f"{stage.capitalize()} stage"
        if progress is None:
            return f"<h2>{title}</h2><p>Not begun: {total} steps.</p>"
        folder = self.plan.stage_folder(stage)
        charts = "".join(map(draw_chart, _charts(folder, progress.monitored)))
        return (
            f"<h2>{title}: step {progress.step} of {total}</h2>{_best(folder, progress.monitored)}"
            f'<div class="charts">{charts}</div>{_picture(folder, self.setup.pipeline)}'
        )

    def _what(self) -> Mapping[str, Section]:
        data, plan, pipeline = self.setup.data, self.plan, self.setup.pipeline
        stages = ", ".join(f"{stage}/" for stage in plan.trained)
        return {
            "What is trained": {
                "Tasks": ", ".join(pipeline.tasks),
                "Unpaired targets": _counted({str(c): found for c, found in data.targets.items()}),
                "Pairs": _counted({str(task): pairs for task, pairs in data.pairs.items()}),
                "Device": str(self.setup.device),
                "Seed": plan.seed,
                "Versions": versions(),
            },
            "What is written where": {
                str(plan.out): "this page, run.json (what the run was started with)",
                stages: "training.csv, validation.csv, pictures/, last.pt, previous.pt "
                "(checkpoints), best.pt (averaged weights of the best validation)",
                "model/": "the model package, once all is trained",
            },
        }


@contextmanager
def run_page(setup: TrainingSetup) -> Iterator[RunPage | None]:
    """Give the page of a run to the process that writes, and tell it how the run ends."""
    if not setup.group.leads:
        yield None
        return
    page = RunPage(setup)
    page.write()
    try:
        yield page
    except Interrupted as stop:
        page.end(str(stop))
        raise
    except MedtransError as error:
        page.end(f"Stopped by an error: {error}")
        raise
    except BaseException as error:
        page.end(f"Stopped by {type(error).__name__}.")
        raise
    page.end("Finished.")


def _charts(folder: Path, monitored: str) -> Iterator[Chart]:
    training, scores = _columns(folder / "training.csv"), _columns(folder / "validation.csv")
    yield Chart("Loss", {"loss": training.get("loss", [])}, logarithmic=True)
    _, _, measure = monitored.partition("_")
    alike = {name: points for name, points in scores.items() if name.partition("_")[2] == measure}
    first = {monitored: alike.pop(monitored)} if monitored in alike else {}
    yield Chart("Validation", {**first, **alike}, unit="dB")
    yield Chart("Learning rate", {"learning rate": training.get("learning_rate", [])})


def _best(folder: Path, monitored: str) -> str:
    """Say which validation's weights the stage will end with."""
    scores = _columns(folder / "validation.csv").get(monitored)
    if not scores:
        return ""
    step, score = max(scores, key=lambda point: point[1])
    return f"<p>Best {escape(monitored)}: {score:.4g} dB at step {step:.0f}.</p>"


def _columns(path: Path) -> dict[str, Points]:
    """Read a log's columns over its steps."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name and name != "step"] if rows else []
    return {
        name: [(float(row["step"]), float(row[name])) for row in rows if row[name]]
        for name in names
    }


def _picture(folder: Path, pipeline: Pipeline) -> str:
    """Show the newest picture of what is predicted of val subjects."""
    pictures = (folder / "pictures").glob("*.png")
    found = sorted(path for path in pictures if path.stem.isdigit())
    if not found:
        return ""
    step = int(found[-1].stem)
    image = data_url(at_most(found[-1].read_bytes(), _PICTURE_BYTES))
    left = "front" if pipeline.slices.axis == "sagittal" else "right"
    text = f"Val subjects at step {step}; the patient's {left} is on the left."
    where = f"Earlier ones are in {folder.name}/pictures."
    return (
        f'<figure class="sample"><img alt="{escape(text)}" src="{image}">'
        f'<figcaption class="small">{escape(text)} {escape(where)}</figcaption></figure>'
    )


def _counted(found: Mapping[str, Sized]) -> str:
    return ", ".join(f"{len(items)} {name}" for name, items in found.items()) or "none"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
