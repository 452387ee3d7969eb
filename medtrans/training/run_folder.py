"""What a run's folder says of how it was started: run.json, which a resumed run agrees with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtrans.config import Pipeline
from medtrans.errors import TrainingError
from medtrans.recipes import pipeline_from_dict
from medtrans.volumes.atomic import replacing

_NAME = "run.json"


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write what a run is started with."""
    with replacing(folder / _NAME) as partial:
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Read what a run was started with; None where the folder does not say."""
    path = folder / _NAME
    if not path.is_file():
        return None
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise TrainingError(
            f"{path} is damaged, so it cannot be told what run this is. Train into a new folder."
        ) from None
    return settings


def recipe_of(settings: Mapping[str, Any], folder: Path) -> Pipeline:
    """Give a run's recipe, with today's values for keys that are newer than the run."""
    return pipeline_from_dict(settings.get("pipeline", {}), str(folder / _NAME))
