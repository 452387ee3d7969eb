"""The commands that answer without a network: what there is, and what a file is.

They import no torch, so that they answer at once.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from medtrans.config.recipes import shipped_tasks
from medtrans.config.terms import Task
from medtrans.package.folder import (
    DEFAULT_MODEL,
    find_package,
    read_metadata,
    read_recipe,
    shipped_models,
)
from medtrans.system.progress import track
from medtrans.volumes.describe import Facts, describe


def list_tasks() -> dict[str, object]:
    """List the tasks that have a shipped recipe or model."""
    tasks_of = {model: read_recipe(find_package(model)).tasks for model in shipped_models()}
    recipes = shipped_tasks()
    rows = []
    for task in sorted({*recipes, *chain.from_iterable(tasks_of.values())}):
        models = ", ".join(model for model, tasks in tasks_of.items() if task in tasks)
        recipe = f"{task}.toml" if task in recipes else "base.toml"
        rows.append({"task": task, "recipe": recipe, "models": models or "-"})
    return {"tasks": rows}


def list_models() -> dict[str, object]:
    """List the shipped models and what they were trained on."""
    return {"models": [_model_row(model) for model in shipped_models()]}


def _model_row(model: str) -> dict[str, object]:
    folder = find_package(model)
    metadata, recipe = read_metadata(folder), read_recipe(folder)
    return {
        "model": model,
        "version": metadata["version"],
        "tasks": ", ".join(recipe.tasks),
        "sigma": recipe.diffusion.sigma,
        "weights": metadata["medtrans"]["weights_sha256"][:12],
        "folder": str(folder),
    }


def describe_file(path: Path, series: str | None, volume: int | None = None) -> dict[str, object]:
    """Say what a file is, and what the default model would make of it.

    Parameters
    ----------
    path, series, volume
        As for `describe`.

    Raises
    ------
    UnreadableFileError
        If there is no such file or folder.
    """
    facts = describe(path, series=series, volume=volume)
    return {**facts, "translate": _what_translate_does(facts)}


def _what_translate_does(facts: Facts) -> str:
    if not facts["readable"] or facts["value_range"][0] == facts["value_range"][1]:
        return "would refuse it, for the problems above"
    tasks, contrast = read_recipe(find_package(DEFAULT_MODEL)).tasks, facts.get("contrast")
    fitting = [task for task in tasks if Task.parse(task).source == contrast]
    if fitting or contrast is None:
        return f"would do {', '.join(fitting or tasks)} with {DEFAULT_MODEL}"
    return f"{DEFAULT_MODEL} has no task for {contrast}; train one with medtrans train"


def make_phantoms(
    out: Path,
    subjects: int,
    contrasts: str,
    seed: int,
    skull_stripped: bool,
    overwrite: bool = False,
) -> dict[str, object]:
    """Write phantoms and their manifest.

    Parameters
    ----------
    out : Path
        A folder; made if it is missing.
    subjects : int
    contrasts : str
        With commas between them.
    seed : int
    skull_stripped : bool
    overwrite : bool
        Replace files that are no phantoms of medtrans.

    Raises
    ------
    UsageError
        An unknown contrast, or a number that cannot be.
    OutputError
        The folder or a file cannot be written, or is somebody else's.
    """
    from medtrans.phantom.heads import ScanProtocol, write_subjects

    names = tuple(name.strip().lower() for name in contrasts.split(",") if name.strip())
    protocol = ScanProtocol(contrasts=names, skull_stripped=skull_stripped)
    with track("phantoms") as update:
        manifest = write_subjects(
            out, subjects, protocol, seed=seed, overwrite=overwrite, on_subject=update
        )
    return {"manifest": str(manifest), "subjects": subjects, "contrasts": list(names)}
