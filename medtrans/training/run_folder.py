"""What a run's folder says of itself.

run.json holds what the run was started with, which a resumed run agrees with; noise/recipe.json
holds what the noise stage was trained by, which whoever takes it over has to know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtrans.config.recipes import pipeline_from_dict
from medtrans.config.schema import Pipeline
from medtrans.errors import TrainingError
from medtrans.system.atomic import replacing

_RUN = "run.json"
_RECIPE = "recipe.json"


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write what a run is started with."""
    _write(folder / _RUN, settings)


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Read what a run was started with; None where the folder does not say."""
    return _read(folder / _RUN) if (folder / _RUN).is_file() else None


def recipe_of(settings: Mapping[str, Any], folder: Path) -> Pipeline:
    """Give a run's recipe, with today's values for keys that are newer than the run."""
    return pipeline_from_dict(settings.get("pipeline", {}), str(folder / _RUN))


def write_recipe(stage: Path, pipeline: Pipeline) -> None:
    """Write what the stage in a folder is trained by; sigma is a number by then."""
    stage.mkdir(parents=True, exist_ok=True)
    _write(stage / _RECIPE, pipeline.model_dump(mode="json"))


def read_recipe(stage: Path) -> Pipeline:
    """Read what the stage in a folder was trained by."""
    path = stage / _RECIPE
    if not path.is_file():
        raise TrainingError(
            f"{path} is missing, so it cannot be told what the weights beside it were trained "
            "for. Train that stage again."
        )
    return pipeline_from_dict(_read(path), str(path))


def _write(path: Path, content: Mapping[str, Any]) -> None:
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
