"""Volumes from one contrast to another: array to array and file to file.

Data flows one way: file -> volume -> slices -> DRDD -> slices -> volume -> file.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor

from medtrans.config.schema import WindowScale
from medtrans.config.terms import Task
from medtrans.diffusion import Steps
from medtrans.errors import OutputError, PackageError, UsageError
from medtrans.inference.input_checks import (
    require_contrast,
    warn_of_head,
    warn_of_labels,
    warn_of_region,
)
from medtrans.inference.sampling import (
    Arithmetic,
    OnSlices,
    Pass,
    Sampled,
    SliceSampler,
    plan_passes,
)
from medtrans.inference.settings import Settings
from medtrans.package.folder import DEFAULT_MODEL
from medtrans.package.store import ModelPackage, load_package
from medtrans.preprocessing.foreground import dilate, find_foreground
from medtrans.preprocessing.model_space import (
    ModelSpace,
    crop,
    spacing_mm,
    to_input_space,
    to_model_space,
)
from medtrans.preprocessing.slices import plan_slices
from medtrans.system.atomic import make_folder
from medtrans.system.devices import choose_device
from medtrans.version import __version__
from medtrans.volumes import (
    Provenance,
    Source,
    output_path,
    read_volume,
    require_goal,
    require_other_file,
    require_same_grid,
    write_volume,
)
from medtrans.volumes.voxels import Mask, Voxels


class Translation(NamedTuple):
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
        How many slices were sampled.
    arithmetic : Arithmetic
    warnings : tuple of str
    """

    voxels: Voxels
    spread: Voxels | None
    task: Task
    steps: Steps
    slices: int
    arithmetic: Arithmetic
    warnings: tuple[str, ...]


class Prepared(NamedTuple):
    """A volume in the space of the networks, and what is needed to bring a result back.

    Attributes
    ----------
    volume : MetaTensor
        Shape (X, Y, Z), the input.
    task : Task
    steps : Steps
    space : ModelSpace
        The input, cropped.
    passes : list of Pass
        What to sample.
    support : array of bool
        Shape (X, Y, Z): where the output is not background.
    warnings : tuple of str
    """

    volume: MetaTensor
    task: Task
    steps: Steps
    space: ModelSpace
    passes: list[Pass]
    support: Mask
    warnings: tuple[str, ...]


class Written(NamedTuple):
    """What a file's translation left on disk."""

    outputs: list[Path]
    translation: Translation
    provenance: Provenance
    seconds: float


class Translator:
    """A loaded model, to be used for one volume or a cohort.

    Parameters
    ----------
    package : ModelPackage
    device : torch.device
    precision : "auto", "float32" or "bfloat16"
        What the networks compute in; auto is bfloat16 where the hardware has it.
    """

    def __init__(
        self, package: ModelPackage, device: torch.device, precision: str = "auto"
    ) -> None:
        self.package = package
        self.device = device
        self.sampler = SliceSampler(package, device, precision)

    @classmethod
    def load(
        cls, model: str | Path = DEFAULT_MODEL, device: str = "auto", precision: str = "auto"
    ) -> Translator:
        """Load a shipped model by name, or a model package's folder.

        The process is left as it is: torch keeps its number of threads.

        Raises
        ------
        PackageError
            When there is no such model or it is damaged.
        UsageError
            When the device is not there, or the precision is unknown.
        """
        return cls(load_package(model), choose_device(device), precision)

    def translate(self, image: Any, **settings: Any) -> Any:
        """Translate an image and answer in kind.

        Parameters
        ----------
        image : path, nibabel image, SimpleITK image, MetaTensor or (array, affine)
            An array is (X, Y, Z) with an affine from voxel to RAS mm.
        **settings
            The fields of `Settings`.

        Returns
        -------
        The same kind as `image`: for a path the path of the file or series written beside it.
        """
        chosen = Settings(**settings)
        if isinstance(image, str | Path):
            return self.translate_file(Path(image), chosen).outputs[0]
        from medtrans.volumes.images import from_image, to_image

        volume = from_image(image)
        return to_image(self.translate_volume(volume, chosen).voxels, image)

    def translate_volume(
        self,
        volume: MetaTensor,
        settings: Settings,
        mask: Mask | None = None,
        on_slices: OnSlices | None = None,
    ) -> Translation:
        """Translate one volume.

        Parameters
        ----------
        volume : MetaTensor
            Shape (X, Y, Z), in its own orientation and unit.
        settings : Settings
        mask : array of bool, optional
            Shape (X, Y, Z): where the patient is, a whole head or brain, instead of the
            foreground that is found. Intensities are scaled by what is inside.
        on_slices : callable, optional
            Told of progress.
        """
        prepared = self.prepare(volume, settings, mask)
        sampled = self.sample(prepared, settings, on_slices)
        prepared = prepared._replace(space=prepared.space.without_voxels())
        return self.restore(prepared, sampled)

    def prepare(self, volume: MetaTensor, settings: Settings, mask: Mask | None = None) -> Prepared:
        """Bring a volume into the space of the networks; parameters as for `translate_volume`."""
        pipeline = self.package.pipeline
        task, steps = self.package.task(settings.task), self.steps(settings)
        foreground = find_foreground(volume.numpy()) if mask is None else mask
        whole = to_model_space(volume, task.source, pipeline, foreground)
        plans = plan_slices(pipeline, whole.image.shape[1:], settings.axes)
        space = crop(whole, pipeline, [plan.axis for plan in plans])
        passes = plan_passes(space.image.numpy()[0], plans, settings.flips)
        if mask is not None:
            return Prepared(volume, task, steps, space, passes, mask, warn_of_region(volume, mask))
        support = dilate(foreground, pipeline.volume.dilation_mm, spacing_mm(volume))
        stripped = self.package.masked_background
        warnings = warn_of_head(volume, foreground) if stripped else ()
        return Prepared(volume, task, steps, space, passes, support, warnings)

    def sample(
        self, prepared: Prepared, settings: Settings, on_slices: OnSlices | None = None
    ) -> Sampled:
        """Run DRDD; one volume (X, Y, Z) in [-1, 1], in the networks' space, for each draw."""
        image = prepared.space.image.numpy()[0]
        return self.sampler.sample(
            image, prepared.passes, prepared.task, prepared.steps, settings, on_slices
        )

    def restore(self, prepared: Prepared, sampled: Sampled) -> Translation:
        """Bring draws back to the input's grid and the target's unit, and average them."""
        draws, arithmetic = sampled
        task, support, warnings = prepared.task, prepared.support, prepared.warnings
        profile = self.package.profiles[task.target]
        background = self.package.pipeline.contrasts[task.target].background
        stacked = [np.clip(draw, -1, 1, out=draw) for draw in draws]
        mean = stacked[0] if len(draws) == 1 else np.mean(stacked, axis=0)
        voxels = profile.restore(to_input_space(mean, prepared.space))
        voxels[~support] = background
        spread = None
        if len(draws) > 1:
            gain = np.float32((profile.high - profile.low) / 2)
            deviation = np.std(stacked, axis=0, ddof=1)
            spread = to_input_space(deviation, prepared.space, outside=0) * gain
            spread[~support] = 0
        count = sum(len(one.chosen) for one in prepared.passes)
        return Translation(voxels, spread, task, prepared.steps, count, arithmetic, warnings)

    def translate_file(
        self,
        path: Path,
        settings: Settings,
        *,
        out: Path | None = None,
        mask_path: Path | None = None,
        uncertainty_path: Path | None = None,
        output_kind: str | None = None,
        on_slices: OnSlices | None = None,
        **selection: Any,
    ) -> Written:
        """Translate a file or DICOM folder, and write the result with the same kind and grid.

        Parameters
        ----------
        path : Path
        settings : Settings
        out : Path, optional
            The file (for DICOM the folder) to write, or an existing folder to write into; by
            default beside the input. Names that are not given say synthetic.
        mask_path : Path, optional
            A volume on the input's grid; voxels above 0 are translated.
        uncertainty_path : Path, optional
            Gets the standard deviation over the samples; needs `settings.samples` above 1.
        output_kind : str, optional
            "nifti", "dicom" or "itk" instead of the input's kind.
        on_slices : callable, optional
        **selection
            `series` and `volume`, as for `read_volume`.
        """
        if uncertainty_path is not None and settings.samples < 2:
            raise UsageError("An uncertainty map needs more than one sample: add --samples 8.")
        start = time.monotonic()
        volume = read_volume(path, **selection)
        source: Source = volume.meta["source"]
        mask, mask_sha256 = None, None
        if mask_path is not None:
            mask, mask_sha256 = _read_mask(mask_path, volume)
        task = self.package.task(settings.task)
        seen = (*require_contrast(volume, task), *warn_of_labels(volume))
        goal = _goal(out, output_path(source, str(task), output_kind))
        _require_goals(goal, uncertainty_path, source, mask_path, output_kind)
        result = self.translate_volume(volume, settings, mask, on_slices)
        chosen = {"SourceVolume": selection.get("volume"), "MaskSHA256": mask_sha256}
        extra = {k: v for k, v in chosen.items() if v is not None} | settings.averaged_over
        provenance = self.provenance(result, settings, source, extra)
        outputs = write_volume(result.voxels, goal, source, provenance, kind=output_kind)
        if uncertainty_path is not None and result.spread is not None:
            extra = {"Content": "standard deviation over samples", **extra}
            label = replace(provenance, extra=extra)
            outputs += write_volume(result.spread, uncertainty_path, source, label, kind="nifti")
        result = result._replace(warnings=(*source.warnings, *seen, *result.warnings))
        return Written(outputs, result, provenance, time.monotonic() - start)

    def steps(self, settings: Settings) -> Steps:
        """Return the steps of the settings' mode, with what overrides them.

        Raises
        ------
        PackageError
            When noise steps are wanted of a model without a noise stage.
        UsageError
            When more steps are wanted than the model's schedule has.
        """
        residual, noise = self.package.steps(settings.mode)
        residual = residual if settings.residual_steps is None else settings.residual_steps
        noise = noise if settings.noise_steps is None else settings.noise_steps
        if noise and self.package.noise is None:
            raise PackageError(
                f"The model '{self.package.name}' has no noise stage, so it can only do "
                "--mode fidelity. Train it with --stage all for the other modes."
            )
        last = self.sampler.schedule.last
        if max(residual, noise) > last:
            raise UsageError(
                f"{max(residual, noise)} steps are more than the {last} time steps of the model; "
                "ask for fewer."
            )
        eta = self.package.pipeline.sampling.eta if settings.eta is None else settings.eta
        return Steps(residual, noise, eta)

    def provenance(
        self,
        result: Translation,
        settings: Settings,
        source: Source,
        extra: Mapping[str, Any] | None = None,
    ) -> Provenance:
        """Describe how a translation was made, for the files it is written to.

        `extra` are further entries of the sidecar, by default what the settings average over; what
        decides the rounding is added.
        """
        scale = self.package.pipeline.contrasts[result.task.target]
        entries = result.arithmetic.entries
        return Provenance(
            model=self.package.name,
            model_sha256=self.package.sha256,
            task=str(result.task),
            source_contrast=result.task.source,
            target_contrast=result.task.target,
            target_kind="ct" if isinstance(scale, WindowScale) else "mr",
            mode=settings.mode,
            residual_steps=result.steps.residual,
            noise_steps=result.steps.noise,
            eta=result.steps.eta,
            seed=settings.seed,
            source_sha256=source.sha256,
            version=__version__,
            extra={**(settings.averaged_over if extra is None else extra), **entries},
        )


def _goal(out: Path | None, default: Path) -> Path:
    """Where to write: beside the input, into a folder under the default name, or as named.

    A name without a suffix is a folder, which is made, unless it becomes a DICOM series itself.
    """
    if out is None:
        return default
    if default.suffix and not out.suffix:
        make_folder(out)
    return out / default.name if out.is_dir() else out


def _require_goals(
    goal: Path, uncertainty: Path | None, source: Source, mask: Path | None, kind: str | None
) -> None:
    """Refuse outputs that could not be written, or would replace an input or each other."""
    require_goal(goal, source, kind)
    goals = [goal]
    if uncertainty is not None:
        require_goal(uncertainty, source, "nifti")
        goals.append(uncertainty)
        if uncertainty.absolute() == goal.absolute():
            raise OutputError(f"{goal}: the uncertainty map would replace the output. Rename one.")
    if mask is not None:
        for path in goals:
            require_other_file(path, mask)


def _read_mask(path: Path, volume: MetaTensor) -> tuple[Mask, str]:
    """Read a mask on the volume's grid, and the hash of its file."""
    mask = read_volume(path)
    require_same_grid(mask, volume, f"The mask {path} and the image")
    return np.asarray(mask.numpy() > 0), mask.meta["source"].sha256
