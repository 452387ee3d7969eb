"""Volumes from one contrast to another, file to file.

Data flows one way: file -> volume -> slices -> DRDD -> slices -> volume -> file. `translate_file`
is that way in five lines: read, prepare, sample, restore, write.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from medtrans.config.schema import WindowScale
from medtrans.inference.jobs import (
    AXES_ENTRY,
    CONTENT,
    LOOK_ENTRY,
    STRIPPED_ENTRY,
    SUPPORT,
    Job,
    ReadJob,
    read_job,
    uncertainty_map,
)
from medtrans.inference.sampling import OnSlices, Sampled, SliceSampler
from medtrans.inference.settings import Settings
from medtrans.inference.volume import Plan, Prepared, Translation, prepare, restore
from medtrans.package.folder import DEFAULT_MODEL
from medtrans.package.store import ModelPackage, load_package
from medtrans.system.devices import choose_device
from medtrans.version import __version__
from medtrans.volumes import Provenance, Source, to_volume, write_volume
from medtrans.volumes.images import from_image, to_image, warn_of
from medtrans.volumes.voxels import Mask, require_finite


@dataclass(frozen=True)
class Written:
    """What a file's translation left on disk.

    Attributes
    ----------
    outputs : list of Path
        The image first.
    translation : Translation
    provenance : Provenance
        The label of the image.
    seconds : float
        From reading to writing.
    """

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
        self.precision = precision
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
        """Translate an image and answer in kind; what is unusual is told as an `InputWarning`.

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
            written = self.translate_file(Path(image), chosen)
            warn_of(written.translation.warnings)
            return written.outputs[0]
        volume = from_image(image)
        translation = self.translate_volume(volume, chosen)
        warn_of((*volume.meta["source"].warnings, *translation.warnings))
        return to_image(translation.voxels, image)

    def translate_file(
        self,
        file: Path | Job | ReadJob,
        settings: Settings = Settings(),  # noqa: B008 - it is frozen
        on_slices: OnSlices | None = None,
    ) -> Written:
        """Translate a file or DICOM folder, and write the result with the same kind and grid.

        Parameters
        ----------
        file : Path, Job or ReadJob
            What to read; a job also says what to write, and a path is written beside itself.
        settings : Settings
        on_slices : callable, optional
            Told of progress.

        Raises
        ------
        FileError
            When the input cannot be read or translated, or the output cannot be written.
        UsageError
            When the settings do not go together.
        """
        start = time.monotonic()
        read = self.read(file, settings)
        settings = replace(settings, uncertainty=settings.uncertainty or read.wants_uncertainty)
        prepared = self.prepare(to_volume(read.image), settings, read.mask)
        sampled = self.sample(prepared, settings, on_slices)
        translation = self.restore(sampled, prepared.plan)
        outputs, label = self._write(read, translation, settings)
        noted = (*read.source.warnings, *translation.warnings)
        return Written(
            outputs, replace(translation, warnings=noted), label, time.monotonic() - start
        )

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
        return self.restore(self.sample(prepared, settings, on_slices), prepared.plan)

    def prepare(self, volume: MetaTensor, settings: Settings, mask: Mask | None = None) -> Prepared:
        """Check a volume and bring it into the space of the networks; see `volume.prepare`."""
        return prepare(volume, self.package, settings, mask)

    def sample(
        self, prepared: Prepared, settings: Settings, on_slices: OnSlices | None = None
    ) -> Sampled:
        """Run DRDD; one volume (X, Y, Z) in [-1, 1], in the networks' space, for each draw."""
        plan = prepared.plan
        return self.sampler.sample(
            prepared.image, plan.passes, plan.task, plan.steps, settings, on_slices
        )

    def restore(self, sampled: Sampled, plan: Plan) -> Translation:
        """Bring draws back to the input's grid and the target's unit; see `volume.restore`."""
        result = restore(sampled, plan, self.package)
        require_finite(result.voxels, "The result")
        return result

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
        label = self._label(settings, source, settings.averaged_over if extra is None else extra)
        found = {} if result.brain is None else result.brain.entries
        seen = {
            AXES_ENTRY: list(result.axes),
            STRIPPED_ENTRY: result.masked,
            **_look_entries(result),
            **found,
        }
        entries = {**result.arithmetic.entries, **seen}
        return replace(label, extra={**label.extra, **entries})

    def expected_label(self, read: ReadJob, settings: Settings) -> Provenance:
        """Describe how a job would be translated: its label but for what decides the rounding."""
        return self._label(settings, read.source, _facts(read, settings))

    def _label(self, settings: Settings, source: Source, extra: Mapping[str, object]) -> Provenance:
        task, package = self.package.task(settings.task), self.package
        steps = package.steps(
            settings.mode, settings.residual_steps, settings.noise_steps, settings.eta
        )
        scale = package.pipeline.contrasts[task.target]
        return Provenance(
            model=package.name,
            model_sha256=package.sha256,
            task=str(task),
            source_contrast=task.source,
            target_contrast=task.target,
            target_kind="ct" if isinstance(scale, WindowScale) else "mr",
            mode=settings.mode,
            residual_steps=steps.residual,
            noise_steps=steps.noise,
            eta=steps.eta,
            seed=settings.seed,
            source_sha256=source.sha256,
            version=__version__,
            extra={**extra, **self._search(settings, extra)},
        )

    def _search(self, settings: Settings, extra: Mapping[str, object]) -> dict[str, object]:
        """Say whether the brain of a whole head was looked for; nothing where it never is."""
        never = not self.package.of_stripped_brains or "MaskSHA256" in extra
        return {} if never else {"BrainExtraction": settings.brain}

    def read(self, file: Path | Job | ReadJob, settings: Settings) -> ReadJob:
        """Read what a job names, unless that is done; see `jobs.read_job`."""
        if isinstance(file, ReadJob):
            return file
        job = file if isinstance(file, Job) else Job(file)
        error = self.package.error
        uncertainty = uncertainty_map(settings.samples, None if error is None else error.entries)
        return read_job(job, self.package.task(settings.task), uncertainty)

    def _write(
        self, read: ReadJob, result: Translation, settings: Settings
    ) -> tuple[list[Path], Provenance]:
        """Write a result and what is asked for beside it; returns the files and the label."""
        job, source = read.job, read.source
        extra = _facts(read, settings)
        label = self.provenance(result, settings, source, extra)
        outputs = write_volume(
            result.voxels, read.output, source, label, kind=job.kind, overwrite=job.overwrite
        )
        for path, entries in read.further:
            about = replace(label, extra={**entries, **label.extra})
            shown = result.support if entries[CONTENT] == SUPPORT else result.uncertainty
            assert shown is not None  # `read_job` refuses a map that there cannot be
            outputs += write_volume(
                shown, path, source, about, kind="nifti", overwrite=job.overwrite
            )
        return outputs, label


def _look_entries(result: Translation) -> dict[str, object]:
    """Say in a sidecar what was seen of the input, and what was unusual about it."""
    seen = {} if result.look is None else result.look.entries
    unusual = {"Unusual": list(result.warnings)} if result.warnings else {}
    return {LOOK_ENTRY: {**seen, **unusual}} if seen or unusual else {}


def _facts(read: ReadJob, settings: Settings) -> dict[str, object]:
    """Return what a sidecar says beside the model and its settings."""
    facts = {"SourceVolume": read.job.volume, "MaskSHA256": read.mask_sha256}
    return {k: v for k, v in facts.items() if v is not None} | settings.averaged_over
