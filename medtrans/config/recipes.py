"""Reading recipes: TOML files that extend one another, into a checked `Pipeline`.

A wrong file gives one `ConfigError` that lists every problem with its key, the file, and for a
mistyped key the nearest known one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medtrans.config.schema import Pipeline
from medtrans.config.terms import CONTRASTS, MODES, STAGES, nearest
from medtrans.errors import ConfigError
from medtrans.system.resources import shipped

_MODEL = "model"  # what a recipe extends that changes the one of the model that a run starts from

# What shapes a network or its use and was fixed before it became a key: what its absence means.
_FORMERLY = {
    "volume": {"brains": False},
    "noise": {"prediction": "eps", "sees_source": False},
    "network": {"head_features": 0},
    "slices": {"also": []},
    "sampling": {"level_span": 0.0, "order": 1, "noise_correlation": 0.0},
}


def shipped_tasks() -> list[str]:
    """Return the names of the recipes that come with medtrans, sorted."""
    return sorted(path.stem for path in shipped("pipelines").glob("*-to-*.toml"))


def load_pipeline(
    source: str | Path,
    overrides: Mapping[str, object] | None = None,
    model: Pipeline | None = None,
) -> Pipeline:
    """Read a recipe.

    Parameters
    ----------
    source : str or Path
        The name of a shipped recipe (`t1-to-t2`) or the path of a TOML file.
    overrides : mapping, optional
        Nested keys laid over the file's, for example ``{"noise": {"iterations": 300}}``.
    model : Pipeline, optional
        What a recipe that says ``extends = "model"`` stands on.

    Raises
    ------
    ConfigError
        When there is no such recipe, or the file or a key in it is wrong; every problem is
        listed. When the recipe stands on a model and there is none.
    """
    path = _recipe_path(source)
    raw = _merge(_read_with_parents(path, (), model), overrides or {})
    return _validate(raw, path.name)


def pipeline_from_dict(raw: Mapping[str, object], where: str) -> Pipeline:
    """Check a recipe that was stored in a model package.

    Keys of training that came after it was stored are taken from the base recipe, and the others
    get the value that changes nothing, so that an older model still works as it did.

    Parameters
    ----------
    raw : mapping
        As `Pipeline` dumps it.
    where : str
        What to name in errors.

    Raises
    ------
    ConfigError
        When a key in it is wrong; every problem is listed.
    """
    base = _read_with_parents(_recipe_path("base"))
    later = {
        table: base[table]
        for table in ("augmentation", "pseudo", "error", "detail", "look", *STAGES)
    }
    return _validate(_merge(_merge(_merge(later, _FORMERLY), _one_margin(raw)), raw), where)


def _one_margin(raw: Mapping[str, object]) -> dict[str, object]:
    """Before masked sources had a margin of their own they had that of the others."""
    volume = raw.get("volume")
    if isinstance(volume, Mapping) and "dilation_mm" in volume:
        return {"volume": {"masked_dilation_mm": volume["dilation_mm"]}}
    return {}


def _recipe_path(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"The recipe {path} does not exist or is not a file.")
        return path
    named = shipped("pipelines") / f"{source}.toml"
    if not named.is_file():
        known = sorted(path.stem for path in shipped("pipelines").glob("*.toml"))
        raise ConfigError(
            f"There is no shipped recipe '{source}'{nearest(str(source), known)}; "
            f"shipped are {', '.join(known)}. For another task, write a TOML file that "
            'says extends = "base" and tasks = ["…"], and pass it with --pipeline.'
        )
    return named


def _read_with_parents(
    path: Path, children: tuple[Path, ...] = (), model: Pipeline | None = None
) -> dict[str, object]:
    if path in children:
        raise ConfigError(f"{path.name}: 'extends' leads back to the file itself.")
    raw = _read_toml(path)
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    if not isinstance(parent, str):
        raise ConfigError(f"{path.name}: 'extends' must be the name or path of another recipe.")
    if parent == _MODEL:
        return _merge(_recipe_of(model, path), raw)
    is_path = parent.endswith(".toml")
    parent_path = path.parent / parent if is_path else shipped("pipelines") / f"{parent}.toml"
    if not parent_path.is_file():
        raise ConfigError(f"{path.name}: extends = '{parent}', but {parent_path} does not exist.")
    return _merge(_read_with_parents(parent_path, (*children, path), model), raw)


def _recipe_of(model: Pipeline | None, path: Path) -> dict[str, object]:
    if model is None:
        raise ConfigError(
            f"{path.name} changes the recipe of a model: name the model with --from, as in "
            "--from brain_mri."
        )
    return model.model_dump(mode="json")


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe {path} cannot be read: {error}.") from None


def _merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Lay `over` on `base`, table by table.

    A table that changes its `scale` replaces the old one whole, since the keys of the two kinds
    of scale differ.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _rescaled(old, value):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _rescaled(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    return "scale" in new and new["scale"] != old.get("scale")


def _validate(raw: dict[str, object], where: str) -> Pipeline:
    try:
        return Pipeline.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {text}" for text in problems)) from None


def _explain(problem: ErrorDetails) -> str:
    """Turn one pydantic problem into a sentence that names the key as the TOML spells it."""
    scales = ("percentile", "window", "number", "word")  # pydantic adds a union's branch
    location = [str(part) for part in problem["loc"] if part not in scales]
    key = ".".join(location) or "the recipe"
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(location[-1], _known_keys())}."
    if problem["type"] == "missing":
        return f"the key '{key}' is missing; add it, or start the file with extends = \"base\"."
    message = str(problem["msg"]).removeprefix("Value error, ")
    value = problem["input"]
    shown = "" if isinstance(value, Mapping) else f" (found {value!r})"
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}."


def _known_keys() -> list[str]:
    """Every key that a recipe may have, of all its tables."""
    return [*dict.fromkeys(_keys(Pipeline)), "extends", *CONTRASTS, *MODES]


def _keys(annotation: object) -> Iterator[str]:
    """Yield the keys of the models that a field's type names, and of those within them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from annotation.model_fields
        for field in annotation.model_fields.values():
            yield from _keys(field.annotation)
    for part in get_args(annotation):
        yield from _keys(part)
