"""Pipeline recipes: TOML files checked by pydantic.

Every hyper-parameter has one home, `pipelines/*.toml`; these models hold no defaults. A wrong
file gives one `ConfigError` that lists every problem with its key, the file, and for a mistyped
key the nearest known one.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from medtrans.denoiser_config import DenoiserConfig
from medtrans.errors import ConfigError, UsageError
from medtrans.resources import shipped

Contrast = Literal["t1", "t1c", "t2", "flair", "pd", "mr", "ct"]
CONTRASTS: tuple[str, ...] = get_args(Contrast)
Mode = Literal["fidelity", "balanced", "realistic"]
MODES: tuple[str, ...] = get_args(Mode)
Axis = Literal["sagittal", "coronal", "axial"]
AXIS_NAMES: tuple[str, ...] = get_args(Axis)
StageName = Literal["noise", "residual"]
STAGES: tuple[StageName, ...] = get_args(StageName)

# What shapes a network or its use and was fixed before it became a key: what its absence means.
_FORMERLY: dict[str, dict[str, Any]] = {
    "noise": {"prediction": "eps", "sees_source": False},
    "sampling": {"noise_correlation": 0.0},
}

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


def _kind(value: Any) -> str:
    return "word" if isinstance(value, str) else "number"


# A number, or one word in its place; told apart first, so that a wrong number is one error.
Sigma = Annotated[
    Annotated[float, Field(gt=0.0), Tag("number")] | Annotated[Literal["auto"], Tag("word")],
    Discriminator(_kind),
]
Correlation = Annotated[
    Annotated[float, Field(ge=0.0, allow_inf_nan=False), Tag("number")]
    | Annotated[Literal["shared"], Tag("word")],
    Discriminator(_kind),
]


class Task(NamedTuple):
    """A translation from one contrast to another, spelt `t1-to-t2`."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}-to-{self.target}"

    @classmethod
    def parse(cls, text: str) -> Task:
        """Read `t1-to-t2`; raises `UsageError` that names the nearest contrast."""
        source, separator, target = text.strip().lower().partition("-to-")
        if not separator:
            raise UsageError(
                f"'{text}' is not a task: a task is SOURCE-to-TARGET, for example t1-to-t2, "
                f"with the contrasts {', '.join(CONTRASTS)}."
            )
        for name in (source, target):
            if name not in CONTRASTS:
                raise UsageError(
                    f"The task '{text}' names an unknown contrast '{name}'"
                    f"{_nearest(name, CONTRASTS)}; known are {', '.join(CONTRASTS)}."
                )
        if source == target:
            raise UsageError(f"The task '{text}' has the same source and target contrast.")
        return cls(source, target)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VolumeConfig(_Strict):
    spacing_mm: tuple[float, float, float]
    dilation_mm: Annotated[float, Field(ge=0.0)]
    divisible: Count


class SlicesConfig(_Strict):
    axis: Axis
    context: Annotated[int, Field(ge=0, le=8)]


class PercentileScale(_Strict):
    """MR: the foreground's own percentiles become -1 and 1."""

    scale: Literal["percentile"]
    lower: Annotated[float, Field(ge=0.0, lt=100.0)]
    upper: Annotated[float, Field(gt=0.0, le=100.0)]
    background: float

    @model_validator(mode="after")
    def _ordered(self) -> PercentileScale:
        if self.lower >= self.upper:
            raise ValueError("lower must be below upper")
        return self


class WindowScale(_Strict):
    """CT: a fixed window in HU becomes [-1, 1], linear both ways."""

    scale: Literal["window"]
    window_hu: tuple[float, float]
    background: float

    @field_validator("window_hu")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the window's first value must be below its second")
        return value


Scale = Annotated[PercentileScale | WindowScale, Field(discriminator="scale")]


class DiffusionConfig(_Strict):
    sigma: Sigma
    steps: Count
    first_variance: Positive
    last_variance: Positive

    @property
    def level(self) -> float:
        """The number that sigma is; "auto" becomes one before anything is trained."""
        if self.sigma == "auto":
            raise ConfigError(
                'diffusion.sigma is "auto", which only `medtrans train` can choose; give a number.'
            )
        return self.sigma


class SamplingConfig(_Strict):
    eta: Fraction
    noise_correlation: Correlation
    modes: dict[Mode, tuple[Count, Annotated[int, Field(ge=0)]]]

    @property
    def correlation_length(self) -> float:
        """Slices over which the noise resembles itself; infinite when it is shared."""
        return math.inf if self.noise_correlation == "shared" else self.noise_correlation

    @field_validator("modes")
    @classmethod
    def _complete(cls, value: dict[Mode, tuple[int, int]]) -> dict[Mode, tuple[int, int]]:
        missing = [mode for mode in MODES if mode not in value]
        if missing:
            raise ValueError(f"steps for the mode {', '.join(missing)} are missing")
        return value


class NetworkConfig(_Strict):
    unshuffle: Annotated[int, Field(ge=1, le=8)]
    channels: Annotated[tuple[Count, ...], Field(min_length=1)]
    blocks: Count
    attention: tuple[bool, ...]
    norm_groups: Count

    @model_validator(mode="after")
    def _consistent(self) -> NetworkConfig:
        if len(self.attention) != len(self.channels):
            raise ValueError("attention needs one true or false for each entry of channels")
        if any(width % self.norm_groups for width in self.channels):
            raise ValueError("every entry of channels must be a multiple of norm_groups")
        return self

    @property
    def stride(self) -> int:
        """What in-plane sizes must be a multiple of, in pixels."""
        return int(self.unshuffle * 2 ** (len(self.channels) - 1))


class AugmentationConfig(_Strict):
    flip: Fraction
    affine: Fraction
    rotation_deg: Annotated[float, Field(ge=0.0, le=180.0)]
    scaling: Annotated[float, Field(ge=0.0, lt=1.0)]
    shift_px: Annotated[int, Field(ge=0)]
    tone_curve: Fraction
    tone_control_points: tuple[Count, Count]
    gamma: Fraction
    gamma_range: tuple[Positive, Positive]
    cut: Fraction
    cut_share: Fraction
    bias_field: Fraction
    bias_coefficient: Annotated[float, Field(ge=0.0)]
    noise: Fraction
    noise_std: Annotated[float, Field(ge=0.0)]


class PseudoConfig(_Strict):
    """Pseudo-sources: a target volume under a random tone curve stands in for its source."""

    knots: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]]
    smoothing: Annotated[float, Field(ge=0.0)]


class StageConfig(_Strict):
    iterations: Count
    batch_size: Count
    patch: tuple[Count, Count]
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0.0)]
    warmup_iterations: Annotated[int, Field(ge=0)]
    final_learning_rate: Fraction
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)]
    clip_norm: Positive
    loss: Literal["l1", "l2", "charbonnier"]
    terminal_share: Fraction
    pseudo_until: Fraction
    precision: Literal["fp32", "bf16"]
    validate_every: Count
    validation_slices: Count
    checkpoint_every: Count


class NoiseConfig(StageConfig):
    prediction: Literal["eps", "x0", "v"]
    min_snr: Annotated[float, Field(ge=0.0)]
    sees_source: bool
    source_dropout: Fraction


class ResidualConfig(StageConfig):
    from_noise: bool


class Pipeline(_Strict):
    """The whole recipe of one task, or of several trained together."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    volume: VolumeConfig
    slices: SlicesConfig
    contrasts: dict[Contrast, Scale]
    diffusion: DiffusionConfig
    sampling: SamplingConfig
    network: NetworkConfig
    augmentation: AugmentationConfig
    pseudo: PseudoConfig
    noise: NoiseConfig
    residual: ResidualConfig
    # Written by training with a noise stage from elsewhere; a recipe has none.
    denoiser: DenoiserConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Pipeline:
        for task in self.parsed_tasks:
            for contrast in task:
                if contrast not in self.contrasts:
                    raise ValueError(f"[contrasts.{contrast}] is missing, which {task} needs")
        if self.volume.divisible % self.network.stride:
            raise ValueError(
                f"volume.divisible is {self.volume.divisible}; it must be a multiple of the "
                f"network's stride, {self.network.stride}"
            )
        if self.denoiser and self.volume.divisible % self.denoiser.network.stride:
            raise ValueError(
                f"volume.divisible is {self.volume.divisible}; it must be a multiple of the "
                f"noise stage's stride, {self.denoiser.network.stride}"
            )
        for name in STAGES:
            patch = self.stage(name).patch
            if any(size % self.network.stride for size in patch):
                raise ValueError(
                    f"{name}.patch is {list(patch)}; both must be multiples of the network's "
                    f"stride, {self.network.stride}"
                )
        return self

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(Task.parse(text)) for text in value)
        except UsageError as error:
            raise ValueError(str(error)) from None

    @property
    def parsed_tasks(self) -> tuple[Task, ...]:
        return tuple(Task.parse(text) for text in self.tasks)

    @property
    def target_labels(self) -> tuple[int, ...]:
        """The label of each task's target contrast, in the order of the tasks."""
        return tuple(self.targets.index(task.target) for task in self.parsed_tasks)

    @property
    def targets(self) -> tuple[str, ...]:
        """The target contrasts, each once, in the order of the tasks."""
        return tuple(dict.fromkeys(task.target for task in self.parsed_tasks))

    def stage(self, name: StageName) -> StageConfig:
        return self.noise if name == "noise" else self.residual


def shipped_tasks() -> list[str]:
    """Return the names of the recipes that come with medtrans, sorted."""
    return sorted(path.stem for path in shipped("pipelines").glob("*-to-*.toml"))


def load_pipeline(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Pipeline:
    """Read a recipe.

    Parameters
    ----------
    source : str or Path
        The name of a shipped recipe (`t1-to-t2`) or the path of a TOML file.
    overrides : mapping, optional
        Nested keys laid over the file's, for example ``{"noise": {"iterations": 300}}``.

    Raises
    ------
    ConfigError
        When the file or a key in it is wrong; every problem is listed.
    """
    path = _recipe_path(source)
    raw = _merge(_read_with_parents(path, ()), overrides or {})
    return _validate(raw, path.name)


def pipeline_from_dict(raw: Mapping[str, Any], where: str) -> Pipeline:
    """Check a recipe that was stored in a model package; `where` names it in errors.

    Keys of training that came after it was stored are taken from the base recipe, and the others
    get the value that changes nothing, so that an older model still works as it did.
    """
    base = _read_with_parents(_recipe_path("base"), ())
    later = {table: base[table] for table in ("augmentation", "pseudo", *STAGES)}
    return _validate(_merge(_merge(later, _FORMERLY), raw), where)


def _recipe_path(source: str | Path) -> Path:
    given = Path(source)
    if given.suffix == ".toml":
        if not given.is_file():
            raise ConfigError(f"The recipe {given} does not exist or is not a file.")
        return given
    named = shipped("pipelines") / f"{source}.toml"
    if not named.is_file():
        raise ConfigError(
            f"There is no shipped recipe '{source}'{_nearest(str(source), shipped_tasks())}; "
            f"shipped are {', '.join(shipped_tasks())}. For another task, write a TOML file that "
            'says extends = "base" and tasks = ["…"], and pass it with --pipeline.'
        )
    return named


def _read_with_parents(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise ConfigError(f"{path.name}: 'extends' leads back to the file itself.")
    raw = _read_toml(path)
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    if not isinstance(parent, str):
        raise ConfigError(f"{path.name}: 'extends' must be the name or path of another recipe.")
    is_path = parent.endswith(".toml")
    parent_path = path.parent / parent if is_path else shipped("pipelines") / f"{parent}.toml"
    if not parent_path.is_file():
        raise ConfigError(f"{path.name}: extends = '{parent}', but {parent_path} does not exist.")
    return _merge(_read_with_parents(parent_path, (*seen, path)), raw)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe {path} cannot be read: {error}.") from None


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
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


def _rescaled(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "scale" in new and new["scale"] != old.get("scale")


def _validate(raw: dict[str, Any], where: str) -> Pipeline:
    try:
        return Pipeline.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {text}" for text in problems)) from None


def _explain(problem: Mapping[str, Any]) -> str:
    """Turn one pydantic problem into a sentence that names the key as the TOML spells it."""
    scales = ("percentile", "window", "number", "word")  # pydantic adds a union's branch
    location = [str(part) for part in problem["loc"] if part not in scales]
    key = ".".join(location) or "the recipe"
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(location[-1], _known_keys())}."
    if problem["type"] == "missing":
        return f"the key '{key}' is missing; add it, or start the file with extends = \"base\"."
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem["input"]
    found = "" if isinstance(given, Mapping) else f" (found {given!r})"
    return f"{key}: {message[:1].lower()}{message[1:]}{found}."


def _known_keys() -> list[str]:
    models: tuple[type[BaseModel], ...] = (
        Pipeline,
        VolumeConfig,
        SlicesConfig,
        PercentileScale,
        WindowScale,
        DiffusionConfig,
        SamplingConfig,
        NetworkConfig,
        AugmentationConfig,
        PseudoConfig,
        NoiseConfig,
        ResidualConfig,
    )

    def names() -> Iterator[str]:
        for model in models:
            yield from model.model_fields

    return [*dict.fromkeys(names()), "extends", *CONTRASTS, *MODES]


def _nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
