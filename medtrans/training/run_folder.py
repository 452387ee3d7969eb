"""What a run's folder says of itself, and whose it is.

run.json holds what the run was started with, which a resumed run agrees with; noise/recipe.json
holds what the noise stage was trained by, which whoever takes it over has to know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medtrans.config.recipes import pipeline_from_dict
from medtrans.config.schema import Pipeline
from medtrans.errors import OutputError, PackageError, TrainingError
from medtrans.package.folder import read_metadata
from medtrans.system.atomic import make_folder, remove_leftovers, replacing
from medtrans.system.locks import only_one_in
from medtrans.system.progress import say
from medtrans.training.checkpoint import has_checkpoint
from medtrans.training.plan import TrainingPlan

_RUN = "run.json"
_RECIPE = "recipe.json"

Settings = Mapping[str, object]
"""What a run is started with, as run.json has it."""


@contextmanager
def claimed(plan: TrainingPlan, settings: Settings) -> Iterator[None]:
    """Make the run's folder, unless it is this very run that goes on, and keep others out of it.

    Parameters
    ----------
    plan : TrainingPlan
    settings : mapping
        What the run is started with; goes into run.json.

    Raises
    ------
    TrainingError
        When the folder's run was started with other settings, or does not say with which.
    OutputError
        When the folder holds a run that is not resumed, or a model of another run, another process
        trains in it, or it cannot be made.
    """
    goes_on(plan, settings)  # refuses before a folder is made
    with only_one_in(make_folder(plan.out), "training"):
        stages = [plan.stage_folder(stage) for stage in plan.trained]
        pictures = [folder / "pictures" for folder in stages]
        for folder in (plan.out, plan.out / "cache", *stages, *pictures):
            remove_leftovers(folder)
        if not goes_on(plan, settings):
            if plan.resume:
                say(f"There is no run in {plan.out} to go on with: one starts there.")
            _write(plan.out / _RUN, settings)
        yield


def goes_on(plan: TrainingPlan, settings: Settings) -> bool:
    """Whether the run was begun in its folder and is resumed.

    Parameters
    ----------
    plan : TrainingPlan
    settings : mapping
        What the run is started with; run.json has to say the same.

    Raises
    ------
    TrainingError
        When the folder's run was started with other settings, or does not say with which.
    OutputError
        When the folder holds a run that is not resumed, or a model that the run did not write.
    """
    before = _settings_in(plan.out) if plan.resume else None
    if before is not None:
        changed = sorted(key for key in settings if before.get(key) != settings[key])
        if changed:
            raise TrainingError(
                f"{plan.out} was started with another {', '.join(changed)}. Resume with what it "
                "was started with, or train into a new folder."
            )
        _require_model_place(plan, resumed=True)
        return True
    if any(has_checkpoint(plan.stage_folder(stage)) for stage in plan.trained):
        raise OutputError(
            f"{plan.out} already holds a run. Add --resume to go on with it, or name a new folder."
        )
    _require_model_place(plan, resumed=False)
    return False


def write_recipe(stage: Path, pipeline: Pipeline) -> None:
    """Write what the stage in a folder is trained by; sigma is a number by then."""
    _write(make_folder(stage) / _RECIPE, pipeline.model_dump(mode="json"))


def read_recipe(stage: Path) -> Pipeline:
    """Read what the stage in a folder was trained by.

    Raises
    ------
    TrainingError
        When the folder does not say.
    """
    path = stage / _RECIPE
    if not path.is_file():
        raise TrainingError(
            f"{path} is missing, so it cannot be told what the weights beside it were trained "
            "for. Train that stage again."
        )
    return pipeline_from_dict(_read(path), str(path))


def _require_model_place(plan: TrainingPlan, *, resumed: bool) -> None:
    """Refuse a run whose model would take the place of what the run did not write."""
    place = plan.model_folder
    empty = not place.exists() or (place.is_dir() and not any(place.iterdir()))
    if plan.stages == "noise" or empty or (resumed and _is_package(place)):
        return
    raise OutputError(
        f"{place} exists, and this run did not write it; the run's model would take its place. "
        "Train into a new folder, or move it away."
    )


def _is_package(folder: Path) -> bool:
    try:
        read_metadata(folder)
    except PackageError:
        return False
    return True


def _settings_in(folder: Path) -> Settings | None:
    """Read what a run was started with; None where the folder does not say.

    Keys of the recipe that are newer than the run get the values that change nothing.
    """
    path = folder / _RUN
    if not path.is_file():
        return None
    settings = _read(path)
    recipe = pipeline_from_dict(settings.get("pipeline", {}), str(path))
    return {**settings, "pipeline": recipe.model_dump(mode="json")}


def _write(path: Path, content: Mapping[str, object]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise TrainingError(
            f"{path} is damaged, so it cannot be told what run this is. Train into a new folder."
        ) from None
    return content
