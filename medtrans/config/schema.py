"""What a recipe says, checked by pydantic.

Every hyper-parameter has one home, `pipelines/*.toml`; these models hold no defaults. `recipes`
reads the files.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Tag,
    field_validator,
    model_validator,
)

from medtrans.config.denoiser import DenoiserConfig
from medtrans.config.fields import Count, Fraction, StrictModel
from medtrans.config.terms import MODES, STAGES, Axis, Contrast, Mode, StageName, Task
from medtrans.errors import ConfigError, UsageError


def _kind(value: object) -> str:
    return "word" if isinstance(value, str) else "number"


# A number, or one word in its place; told apart first, so that a wrong number is one error.
Sigma = Annotated[
    Annotated[PositiveFloat, Tag("number")] | Annotated[Literal["auto"], Tag("word")],
    Discriminator(_kind),
]
Correlation = Annotated[
    Annotated[float, Field(ge=0.0, allow_inf_nan=False), Tag("number")]
    | Annotated[Literal["shared"], Tag("word")],
    Discriminator(_kind),
]


def _a_span(value: float) -> float:
    if 0 < value <= 1:
        raise ValueError("must be 0, or above 1: the largest noise level over the lowest")
    return value


Span = Annotated[float, Field(ge=0.0, allow_inf_nan=False), AfterValidator(_a_span)]


class VolumeConfig(StrictModel):
    """What is in a volume, and the space of the networks: RAS spacing (0: the input's), margins.

    A result reaches beyond the source's foreground by `dilation_mm`, or by `masked_dilation_mm`
    where software has masked the source's background out. Where `brains` and the training volumes
    are skull-stripped, the brain of a whole head is found before it is translated.
    """

    brains: bool
    spacing_mm: tuple[float, float, float]
    dilation_mm: NonNegativeFloat
    masked_dilation_mm: NonNegativeFloat
    divisible: Count

    def reach_mm(self, *, masked: bool) -> float:
        """Return how far beyond its source's foreground a result may show anything, in mm."""
        return self.masked_dilation_mm if masked else self.dilation_mm


class SlicesConfig(StrictModel):
    """How a volume is cut: along which axis, and with how many neighbours on each side.

    Both stages are trained on slices along the axes of `also`, too. What the residual stage makes
    is the mean over all axes, and the noise stage's steps go along them in turn.
    """

    axis: Axis
    also: tuple[Axis, ...]
    context: Annotated[int, Field(ge=0, le=8)]

    @model_validator(mode="after")
    def _different(self) -> SlicesConfig:
        if len(set(self.axes)) < len(self.axes):
            raise ValueError("axis and also name the same axis twice")
        return self

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All axes, the leading one first."""
        return (self.axis, *self.also)

    @property
    def stack(self) -> int:
        """Source slices for one target slice: itself and its neighbours on both sides."""
        return 2 * self.context + 1


class PercentileScale(StrictModel):
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


class WindowScale(StrictModel):
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


class DiffusionConfig(StrictModel):
    """The schedules of both forward processes (Eq. 2 and 3): variances rise linearly."""

    sigma: Sigma
    steps: Count
    first_variance: PositiveFloat
    last_variance: PositiveFloat

    @property
    def level(self) -> float:
        """The number that sigma is; "auto" becomes one before anything is trained.

        Raises
        ------
        ConfigError
            When it still is "auto".
        """
        if self.sigma == "auto":
            raise ConfigError(
                'diffusion.sigma is "auto", which only `medtrans train` can choose; give a number.'
            )
        return self.sigma


class SamplingConfig(StrictModel):
    """The reverse processes: how the noise falls, noise along the volume, steps of each mode."""

    eta: Fraction
    level_span: Span
    order: Literal[1, 2]
    noise_correlation: Correlation
    modes: dict[Mode, tuple[Count, NonNegativeInt]]

    def steps(self, mode: Mode) -> tuple[int, int, float, float, Literal[1, 2]]:
        """Return a mode's `medtrans.diffusion.Steps`, field by field."""
        return *self.modes[mode], self.eta, self.level_span, self.order

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


class NetworkConfig(StrictModel):
    """The U-Net of either stage."""

    unshuffle: Annotated[int, Field(ge=1, le=8)]
    channels: Annotated[tuple[Count, ...], Field(min_length=1)]
    blocks: Count
    attention: tuple[bool, ...]
    norm_groups: Count
    head_features: NonNegativeInt

    @model_validator(mode="after")
    def _consistent(self) -> NetworkConfig:
        if len(self.attention) != len(self.channels):
            raise ValueError("attention needs one true or false for each entry of channels")
        if any(width % self.norm_groups for width in self.channels):
            raise ValueError("every entry of channels must be a multiple of norm_groups")
        return self

    def narrowed(self, width: float) -> NetworkConfig:
        """Return the network with this share of its channels, at least a group, and no attention.

        Its stride is the same.
        """
        group = self.norm_groups
        channels = tuple(max(1, round(c * width / group)) * group for c in self.channels)
        attention = (False,) * len(channels)
        return self.model_copy(update={"channels": channels, "attention": attention})

    @property
    def stride(self) -> int:
        """What in-plane sizes must be a multiple of, in pixels."""
        return int(self.unshuffle * 2 ** (len(self.channels) - 1))


class AugmentationConfig(StrictModel):
    """Random changes of training examples: probabilities, and how far each change goes."""

    flip: Fraction
    affine: Fraction
    rotation_deg: Annotated[float, Field(ge=0.0, le=180.0)]
    scaling: Annotated[float, Field(ge=0.0, lt=1.0)]
    shift_px: NonNegativeInt
    tone_curve: Fraction
    tone_control_points: tuple[Count, Count]
    gamma: Fraction
    gamma_range: tuple[PositiveFloat, PositiveFloat]
    lift: Fraction
    lift_max: Annotated[float, Field(ge=0.0, lt=1.0)]
    cut: Fraction
    cut_share: Fraction
    bias_field: Fraction
    bias_coefficient: NonNegativeFloat
    noise: Fraction
    noise_std: NonNegativeFloat


class PseudoConfig(StrictModel):
    """Pseudo-sources: a target volume under a random tone curve stands in for its source."""

    knots: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]]
    smoothing: NonNegativeFloat


class StageConfig(StrictModel):
    """How one stage is trained; what both stages have."""

    iterations: Count
    batch_size: Count
    accumulate: Count
    patch: tuple[Count, Count]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup_iterations: NonNegativeInt
    final_learning_rate: Fraction
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)]
    clip_norm: PositiveFloat
    loss: Literal["l1", "l2", "charbonnier"]
    terminal_share: Fraction
    pseudo_until: Fraction
    precision: Literal["fp32", "bf16"]
    validate_every: Count
    validation_slices: Count
    checkpoint_every: Count

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size}; it must be a multiple of accumulate, "
                f"{self.accumulate}"
            )
        return self


class NoiseConfig(StageConfig):
    """The noise stage: what its network predicts and sees, and the weight of its loss (Eq. 10)."""

    prediction: Literal["eps", "x0", "v"]
    min_snr: NonNegativeFloat
    level_span: Span
    sees_source: bool
    source_dropout: Fraction


class ResidualConfig(StageConfig):
    """The residual stage (Eq. 9), and whether it starts from the noise network's weights."""

    from_noise: bool


class LookConfig(StrictModel):
    """How a model learns to look at an input; without examples it does not."""

    examples: NonNegativeInt
    volumes: Count
    contrast_epochs: Count
    orientation_epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    none_share: Fraction


class ErrorConfig(StrictModel):
    """How a model learns how far off it is, by a narrower U-Net; without iterations it does not.

    Its batches are those of the residual stage.
    """

    iterations: NonNegativeInt
    width: Annotated[float, Field(gt=0.0, le=1.0)]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat


class DetailConfig(StrictModel):
    """On how many val pairs of a task a model's detail is compared with real ones; 0: on none."""

    pairs: NonNegativeInt


class Pipeline(StrictModel):
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
    error: ErrorConfig
    detail: DetailConfig
    look: LookConfig
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
        """The tasks; a task's place here is its label for the residual network."""
        return tuple(Task.parse(text) for text in self.tasks)

    @property
    def target_labels(self) -> tuple[int, ...]:
        """The label of each task's target contrast, in the order of the tasks."""
        return tuple(self.targets.index(task.target) for task in self.parsed_tasks)

    @property
    def targets(self) -> tuple[Contrast, ...]:
        """The target contrasts, each once, in the order of the tasks.

        A contrast's place here is its label for the noise network.
        """
        return tuple(dict.fromkeys(task.target for task in self.parsed_tasks))

    def stage(self, name: StageName) -> StageConfig:
        """Return the configuration of a stage by its name."""
        return self.noise if name == "noise" else self.residual
