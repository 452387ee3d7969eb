"""What becomes of one volume: how it will be translated, what the networks see, what comes back."""

from __future__ import annotations

from dataclasses import dataclass

from medtrans.brain.finder import Brain
from medtrans.config.terms import Axis, Task
from medtrans.diffusion import Steps
from medtrans.inference.look import Look
from medtrans.inference.sampling import Arithmetic, Pass
from medtrans.package.error import Calibration
from medtrans.preprocessing.model_space import Placement
from medtrans.preprocessing.slices import AXES
from medtrans.volumes.source import Source
from medtrans.volumes.voxels import Mask, Voxels


@dataclass(frozen=True)
class Plan:
    """How a volume will be translated, and what its result needs that is not a voxel of the input.

    Attributes
    ----------
    task : Task
    steps : Steps
    passes : tuple of Pass
        What to sample.
    placement : Placement
        The way back to the input's grid.
    support : array of bool
        Shape (X, Y, Z) of the input: where the output is not background.
    source : Source or None
        Where the input came from; None for an array.
    warnings : tuple of str
        What is unusual about the input, a sentence each.
    look : Look or None
        What a look at the input found; None of a model that cannot look.
    masked : bool
        Whether software has masked the input's background out, as in a skull-stripped volume.
    brain : Brain or None
        What to say of a brain that was found in a whole head.
    """

    task: Task
    steps: Steps
    passes: tuple[Pass, ...]
    placement: Placement
    support: Mask
    source: Source | None
    warnings: tuple[str, ...]
    look: Look | None
    masked: bool
    brain: Brain | None = None

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Along which the volume is cut."""
        names = {number: name for name, number in AXES.items()}
        return tuple(dict.fromkeys(names[one.plan.axis] for one in self.passes))

    @property
    def slices(self) -> int:
        """How many slices a draw samples."""
        return sum(len(one_way.chosen) for one_way in self.passes)


@dataclass(frozen=True)
class Prepared:
    """A volume in the space of the networks.

    Attributes
    ----------
    image : array of float32
        Shape (X, Y, Z), RAS, cropped, in [-1, 1].
    plan : Plan
    """

    image: Voxels
    plan: Plan


@dataclass(frozen=True)
class ExpectedError:
    """How far off a translation is expected to be.

    Attributes
    ----------
    voxels : array of float32
        Shape (X, Y, Z): the expected absolute error, in the translation's unit.
    calibration : Calibration
        How wide intervals are in it, and on how many subjects that was seen.
    """

    voxels: Voxels
    calibration: Calibration


@dataclass(frozen=True)
class Translation:
    """A translated volume.

    Attributes
    ----------
    voxels : array of float32
        Shape (X, Y, Z) on the input's grid, in the target's unit.
    spread : array of float32 or None
        Standard deviation over the samples, same shape and unit; None for one sample.
    task : Task
    steps : Steps
    slices : int
        How many slices a draw sampled.
    arithmetic : Arithmetic
        What decided the rounding.
    warnings : tuple of str
    look : Look or None
    masked : bool
        As in `Plan`.
    support : array of bool or None
        Shape (X, Y, Z): where the voxels are not background.
    brain : Brain or None
        As in `Plan`.
    error : ExpectedError or None
        How far off the voxels are, where the settings ask for it and the model has learnt it.
    axes : tuple of str
        Along which the volume was cut; of several the result is the mean.
    """

    voxels: Voxels
    spread: Voxels | None
    task: Task
    steps: Steps
    slices: int
    arithmetic: Arithmetic
    warnings: tuple[str, ...]
    look: Look | None = None
    masked: bool = False
    support: Mask | None = None
    brain: Brain | None = None
    error: ExpectedError | None = None
    axes: tuple[Axis, ...] = ()

    @property
    def uncertainty(self) -> Voxels | None:
        """The map of the uncertainty: the expected error where it is known, else the spread."""
        return self.spread if self.error is None else self.error.voxels
