"""Finding model packages and reading what they say of themselves, without loading weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medtrans.config.terms import Task
from medtrans.errors import PackageError, UsageError
from medtrans.package.bundle_files import METADATA
from medtrans.system.resources import shipped

DEFAULT_MODEL = "brain_mri"
FORMAT = 1  # of the packages that this medtrans reads and writes


def find_package(model: str | Path) -> Path:
    """Return the folder of a shipped model's name or of a path; raises `PackageError`."""
    named = shipped("bundles") / str(model)
    for folder in (Path(model), named):
        if (folder / METADATA).is_file():
            return folder
    if Path(model).exists():
        raise PackageError(
            f"{model} is not a model package: it has no {METADATA}. After training, the package "
            "is the folder RUN/model."
        )
    known = ", ".join(shipped_models()) or "none"
    raise PackageError(f"There is no model '{model}'; shipped are: {known}. Or give a folder.")


def choose_task(requested: str | None, tasks: Sequence[Task], model: str) -> Task:
    """Return the requested task of a model's, or its default one.

    Raises
    ------
    UsageError
        When the text is no task.
    PackageError
        When the model was not trained for it.
    """
    default = Task("t1", "t2")
    if requested is None:
        return default if default in tasks else tasks[0]
    task = Task.parse(requested)
    if task not in tasks:
        raise PackageError(
            f"The model '{model}' was not trained for {task}; it does "
            f"{', '.join(map(str, tasks))}. Pick one of these with --task, or another model."
        )
    return task


def tasks_of(model: str | Path) -> tuple[Task, ...]:
    """Read which tasks a model was trained for, without loading it; raises `PackageError`."""
    folder = find_package(model)
    try:
        return tuple(map(Task.parse, read_metadata(folder)["medtrans"]["pipeline"]["tasks"]))
    except (AttributeError, KeyError, TypeError, UsageError):
        raise PackageError(
            f"{folder / METADATA} does not say which tasks the model does. Copy it again."
        ) from None


def shipped_models() -> list[str]:
    """Names of the model packages that come with medtrans."""
    return sorted(path.parent.parent.name for path in shipped("bundles").glob(f"*/{METADATA}"))


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read a package's metadata.json; raises `PackageError` when it is not one of ours."""
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        ours = metadata["medtrans"]
        if ours["format"] != FORMAT:
            raise PackageError(
                f"{path} has package format {ours['format']}; this medtrans reads {FORMAT}. "
                "Install the medtrans that wrote it, or train the model again."
            )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackageError(
            f"{path} is not the metadata of a medtrans model ({type(error).__name__}: {error}). "
            "Copy the package again."
        ) from None
    return dict(metadata)
