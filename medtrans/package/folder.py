"""The folder of a model package: where its files lie, finding one, and what it says of itself.

Nothing here loads weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from medtrans.config.recipes import pipeline_from_dict
from medtrans.config.schema import Pipeline
from medtrans.config.terms import Task
from medtrans.errors import ConfigError, PackageError
from medtrans.system.resources import shipped
from medtrans.volumes.sidecar import read_sidecar, sidecar_of

METADATA = Path("configs") / "metadata.json"
INFERENCE = Path("configs") / "inference.json"
TRAIN = Path("configs") / "train.json"
MULTI_GPU = Path("configs") / "multi_gpu_train.json"
LOGGING = Path("configs") / "logging.conf"
WEIGHTS = Path("models") / "model.safetensors"
LOOK = Path("models") / "look.safetensors"
ERROR = Path("models") / "error.safetensors"
STATE_DICT = Path("models") / "model.pt"
CARD = Path("docs") / "README.md"
DATA_LICENSE = Path("docs") / "data_license.txt"
LICENSE = Path("LICENSE")

DEFAULT_MODEL = "brain_mri"
RUN_MODEL = "model"  # the folder of a run that holds its model
# What is read of a package at most, checked before anything is allocated.
MAX_METADATA_BYTES, MAX_WEIGHTS_BYTES = 1 << 24, 1 << 33
_WIDTHS = "IntervalHalfWidths"
FORMAT = 1  # of the packages that this medtrans reads and writes


class LookRecord(TypedDict):
    """What metadata.json keeps of the training volumes, to compare an input with.

    Attributes
    ----------
    sha256 : str
        Of models/look.safetensors.
    contrasts : list of str
        In the order of the network's answers.
    usual : dict
        The fields of `medtrans.package.look.Usual`, each as least and most.
    """

    sha256: str
    contrasts: list[str]
    usual: dict[str, list[list[float]]]


class ErrorRecord(TypedDict):
    """What metadata.json keeps of a model's errors.

    Attributes
    ----------
    sha256 : str
        Of models/error.safetensors.
    answered, seen, within, subjects
        The fields of `medtrans.package.error.Calibration`.
    """

    sha256: str
    answered: list[float]
    seen: list[float]
    within: dict[str, float]
    subjects: int


class ModelRecord(TypedDict):
    """What metadata.json keeps for medtrans itself.

    Attributes
    ----------
    format : int
        `FORMAT`.
    weights_sha256 : str
        Of models/model.safetensors.
    pipeline : dict
        The recipe, as `Pipeline` dumps it.
    profiles : dict
        Target contrast -> lowest and highest intensity of its profile.
    masked_background : bool
        As in `ModelPackage`.
    training : dict
        What the model was trained on and how well it did.
    look : dict or None
        What an input is compared with; older packages have no such key.
    error : dict or None
        What is known of the model's errors; older packages have no such key.
    detail : dict
        Task -> gains, as in `ModelPackage`; packages that know none have no such key.
    """

    format: int
    weights_sha256: str
    pipeline: dict[str, object]
    profiles: dict[str, list[float]]
    masked_background: bool
    training: dict[str, object]
    look: NotRequired[LookRecord | None]
    error: NotRequired[ErrorRecord | None]
    detail: NotRequired[dict[str, list[float]]]


class Metadata(TypedDict):
    """The keys of metadata.json that medtrans reads; MONAI's specification asks for more."""

    version: str
    changelog: dict[str, str]
    medtrans: ModelRecord


def find_package(model: str | Path) -> Path:
    """Return the folder of a shipped model's name or of a path.

    Raises
    ------
    PackageError
        When there is no such model, or the folder holds none.
    """
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


def error_entries(folder: Path) -> dict[str, object] | None:
    """Say in a sidecar what a package knows of its model's error; None where it knows nothing.

    Raises
    ------
    PackageError
        When the metadata cannot be read.
    """
    record = read_metadata(folder)["medtrans"].get("error")
    return None if record is None else described_error(record)


def described_error(record: ErrorRecord) -> dict[str, object]:
    """Spell a record of a model's error as entries of a sidecar.

    Intervals are multiples of the expected error, to each side, that hold a share of the voxels.
    """
    return {
        "ErrorModelSHA256": record["sha256"],
        _WIDTHS: record["within"],
        "CalibrationSubjects": record["subjects"],
    }


def stated_widths(map_: Path) -> dict[float, float] | None:
    """Read the half-widths of intervals from the sidecar of an uncertainty map, if it states any.

    Returns
    -------
    dict or None
        Share of voxels -> width in multiples of the map.
    """
    stated = (read_sidecar(sidecar_of(map_, "nifti")) or {}).get(_WIDTHS)
    if not isinstance(stated, Mapping):
        return None
    try:
        return {float(level): float(width) for level, width in stated.items()} or None
    except (TypeError, ValueError):
        return None


def package_name(folder: Path) -> str:
    """Name a package: its folder, and for RUN/model the run, which tells one from another."""
    place = folder.resolve()
    return f"{place.parent.name}/{place.name}" if place.name == RUN_MODEL else place.name


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


def shipped_models() -> list[str]:
    """Names of the model packages that come with medtrans, sorted."""
    return sorted(path.parent.parent.name for path in shipped("bundles").glob(f"*/{METADATA}"))


def read_metadata(folder: Path) -> Metadata:
    """Read a package's metadata.json, of which only the format is checked.

    Raises
    ------
    PackageError
        When it is missing, damaged, not one of ours, or of another format.
    """
    path = folder / METADATA
    try:
        if path.stat().st_size > MAX_METADATA_BYTES:
            raise PackageError(f"{path} is too large to be the metadata of a medtrans model.")
        metadata = json.loads(path.read_text(encoding="utf-8"))
        package_format = metadata["medtrans"]["format"]
        if package_format != FORMAT:
            raise PackageError(
                f"{path} has package format {package_format}; this medtrans reads {FORMAT}. "
                "Install the medtrans that wrote it, or train the model again."
            )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackageError(
            f"{path} is not the metadata of a medtrans model ({type(error).__name__}: {error}). "
            "Copy the package again."
        ) from None
    return cast(Metadata, dict(metadata))


def read_recipe(folder: Path) -> Pipeline:
    """Read the recipe that a package's model was trained with.

    Raises
    ------
    PackageError
        As for `read_metadata`, and when there is no recipe in it or a wrong one.
    """
    record = read_metadata(folder)["medtrans"]
    try:
        return pipeline_from_dict(record["pipeline"], str(folder / METADATA))
    except (AttributeError, KeyError, TypeError, ValueError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise PackageError(
            f"The model package {folder} does not fit together: {reason} Copy or export it again."
        ) from None
