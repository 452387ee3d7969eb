"""How to translate: what a user can choose for each volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medtrans.config.terms import (
    AXIS_NAMES,
    BRAIN_SEARCHES,
    DEFAULT_MODE,
    MODES,
    Axis,
    BrainSearch,
    Mode,
)
from medtrans.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """How to translate.

    Attributes
    ----------
    task : str or None
        For example "t1-to-t2"; None for the model's default.
    mode : str
        fidelity: one network call a slice, best PSNR. balanced and realistic: the noise stage
        pulls the result onto the manifold of real target images.
    residual_steps, noise_steps : int or None
        Override the mode's.
    eta : float or None
        Overrides the recipe's; above 0 the noise steps draw fresh noise.
    samples : int
        Draws of the noise to average.
    axes : tuple of str
        "axial", "coronal", "sagittal": average over slices along each; empty for the recipe's
        own, all that it was trained on and that suit the volume. Noise steps go along them in turn.
    flips : bool
        Average what the residual stage answers over the volume and its left-right mirror image;
        twice its network calls.
    seed : int
    brain : "auto" or "none"
        auto: where the model knows skull-stripped brains alone, find the brain of a whole head,
        unless a mask is given. none: take every input as it is.
    batch_size : int or None
        Slices at a time; None: set by their size. On the CPU it changes memory and speed alone,
        on a GPU the rounding, too.
    uncertainty : bool
        Say how far off the result is, voxel by voxel, where the model has learnt it.
    strict : bool
        Refuse an input that is unlike what the model was trained on, instead of warning.
    """

    task: str | None = None
    mode: Mode = DEFAULT_MODE
    residual_steps: int | None = None
    noise_steps: int | None = None
    eta: float | None = None
    samples: int = 1
    axes: tuple[Axis, ...] = ()
    flips: bool = False
    seed: int = 0
    brain: BrainSearch = "auto"
    batch_size: int | None = None
    uncertainty: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"The mode '{self.mode}' is unknown; known are {', '.join(MODES)}.")
        if self.brain not in BRAIN_SEARCHES:
            raise UsageError(
                f"brain is one of {', '.join(BRAIN_SEARCHES)}, not {self.brain!r}; a mask of your "
                "own goes with the job."
            )
        lowest = {"samples": 1, "batch_size": 1, "residual_steps": 1, "noise_steps": 0}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} must be {least} or more, not {value}.")
        unknown = [name for name in self.axes if name not in AXIS_NAMES]
        if unknown or len(set(self.axes)) < len(self.axes):
            raise UsageError(
                f"The axes are one or more of {', '.join(AXIS_NAMES)}, each once, "
                f"not {', '.join(self.axes)}."
            )
        if self.eta is not None and not 0 <= self.eta <= 1:
            raise UsageError(f"eta must be between 0 and 1, not {self.eta}.")

    @property
    def averaged_over(self) -> dict[str, Any]:
        """What a result is the mean of, beyond one pass; for its label."""
        facts = {
            "Samples": self.samples if self.samples > 1 else None,
            "Axes": list(self.axes) or None,
            "Flips": self.flips or None,
        }
        return {name: value for name, value in facts.items() if value is not None}
