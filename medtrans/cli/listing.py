"""The commands that answer without a network: what there is, and what a file is.

They import no torch, so that they answer at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrans.config.recipes import shipped_tasks
from medtrans.config.terms import CONTRASTS, Task
from medtrans.errors import OutputError
from medtrans.package.folder import (
    DEFAULT_MODEL,
    find_package,
    read_metadata,
    read_recipe,
    shipped_models,
)
from medtrans.system.atomic import require_writable
from medtrans.system.progress import track
from medtrans.volumes.describe import Facts, describe

if TYPE_CHECKING:
    from medtrans.data.cohort import Cohort


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


@dataclass(frozen=True)
class ManifestRequest:
    """What to list, and how.

    Attributes
    ----------
    folder, out : Path
        The images, and the CSV to write.
    layout : str or None
        A shipped layout's name, or a TOML file.
    val, test : float
        Share of the subjects in each.
    keep_ids, overwrite : bool
    """

    folder: Path
    out: Path
    layout: str | None
    val: float
    test: float
    keep_ids: bool
    overwrite: bool


def list_folder(request: ManifestRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the manifest of a folder.

    Returns
    -------
    dict
        Everything, for a program.
    dict
        What a person reads.

    Raises
    ------
    OutputError
        If the CSV is there already, or cannot be written.
    UsageError, ConfigError
        If there is nothing to list, or no such layout.
    """
    from medtrans.data.cohort import Options, find_cohort
    from medtrans.data.layouts import read_layout
    from medtrans.data.manifest import write_manifest

    if request.out.exists() and not request.overwrite:
        raise OutputError(
            f"{request.out} exists, and may have been edited. Name another with --out, or replace "
            "it with --overwrite."
        )
    require_writable(request.out)
    layout = None if request.layout is None else read_layout(request.layout)
    options = Options(layout, request.val, request.test, request.keep_ids)
    with track("files") as update:
        cohort = find_cohort(request.folder, options, update)
    folder = request.out.absolute().parent
    write_manifest(request.out, [volume.row(folder) for volume in cohort.volumes])
    result: dict[str, Any] = {
        "manifest": str(request.out),
        "volumes": len(cohort.volumes),
        "splits": _counts(cohort),
    }
    if layout is not None and layout.expected:
        result["expected"] = layout.expected
    left = [{"path": str(x.path), "why": x.why, "detail": x.detail} for x in cohort.left_out]
    plain = {**result, "left out": _summary(cohort) or None}
    return {**result, "left_out": left, "other_files": cohort.others}, plain


def _counts(cohort: Cohort) -> list[dict[str, object]]:
    """Subjects and volumes of each contrast in each split, and in all."""
    rows: list[dict[str, object]] = []
    present = {volume.contrast for volume in cohort.volumes}
    for split in ("train", "val", "test", "all"):
        members = [volume for volume in cohort.volumes if split in (volume.split, "all")]
        by_contrast = Counter(volume.contrast for volume in members)
        subjects = len({volume.subject for volume in members})
        counts = {str(name): by_contrast[name] for name in CONTRASTS if name in present}
        rows.append({"split": split, "subjects": subjects, **counts})
    return rows


def _summary(cohort: Cohort) -> list[dict[str, object]]:
    """One line for each reason: how many, and the first of them."""
    reasons = Counter(item.why for item in cohort.left_out)
    rows: list[dict[str, object]] = [
        {"files": count, "why": why, "first": _first(cohort, why)}
        for why, count in reasons.most_common()
    ]
    if cohort.others:
        rows.append({"files": cohort.others, "why": "no image", "first": ""})
    return rows


def _first(cohort: Cohort, why: str) -> str:
    item = next(item for item in cohort.left_out if item.why == why)
    return item.detail or str(item.path)
