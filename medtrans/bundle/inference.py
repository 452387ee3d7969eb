"""What a model package's configs/inference.json points at, when MONAI's bundle tools run it.

The config reads like the data's way: list the volumes, read each and bring it into the space of
the networks (preprocessing), sample its slices (inferer), bring them back and write them
(postprocessing). Every step is one of `Translator`'s, so a bundle writes what `medtrans translate`
writes. `TranslationNetwork` is the model as one module: what MONAI verifies, exports and loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from medtrans.config.recipes import pipeline_from_dict
from medtrans.config.terms import Mode
from medtrans.diffusion import Stages, Steps, slice_noise, translate
from medtrans.errors import MedtransError, PackageError
from medtrans.inference.cohort import jobs_from_inputs
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Prepared, Translation, Translator
from medtrans.networks.binding import build_schedule, denoiser, residual_predictor
from medtrans.networks.unet import noise_network, residual_network
from medtrans.package.store import ModelPackage, load_package
from medtrans.system.atomic import make_folder
from medtrans.system.devices import choose_device
from medtrans.system.progress import say
from medtrans.volumes import Source, output_path, read_volume, write_volume
from medtrans.volumes.voxels import Voxels

_TILE = 256  # pixels; larger slices repeat the fixed noise
Item = dict[str, Any]


class TranslationNetwork(nn.Module):
    """The translator as one network: source slices in, a synthetic slice out.

    The noise of the reverse process is fixed, so the output is a function of the input, and the
    module can be traced. Its weights are those of the package's models/model.pt.

    Parameters
    ----------
    pipeline : mapping
        The recipe, as metadata.json holds it.
    noise_stage : bool
        Whether the model has one; without it `mode` must be "fidelity".
    task : str or None
        None for the model's default.
    mode : str
    residual_steps, noise_steps : int or None
        Override the mode's.
    seed : int
        Of the fixed noise.
    """

    eps: Tensor

    def __init__(
        self,
        pipeline: Mapping[str, Any],
        noise_stage: bool = True,
        task: str | None = None,
        mode: Mode = "fidelity",
        residual_steps: int | None = None,
        noise_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.pipeline = pipeline_from_dict(pipeline, "network_def")
        self.residual = residual_network(self.pipeline, 0)
        self.noise = noise_network(self.pipeline, 0) if noise_stage else None
        package = self.package()
        translator = Translator(package, torch.device("cpu"))
        chosen = Settings(mode=mode, residual_steps=residual_steps, noise_steps=noise_steps)
        self.task = package.task(task)
        self.steps: Steps = translator.steps(chosen)._replace(eta=0.0)
        self.schedule = build_schedule(self.pipeline)
        self.register_buffer("eps", slice_noise(seed, [0], (_TILE, _TILE)), persistent=False)

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Translate slices.

        Parameters
        ----------
        image : Tensor
            Shape (B, 2k + 1, H, W) in [-1, 1]: each source slice with its neighbours. H and W are
            multiples of the network's stride.
        noise : Tensor, optional
            Shape (B, 1, H, W): the noise of the start, instead of the fixed one.

        Returns
        -------
        Tensor
            Shape (B, 1, H, W) in [-1, 1].
        """
        eps = self._fixed_noise(image) if noise is None else noise
        label = self._label(image, self.pipeline.parsed_tasks.index(self.task))
        denoise = None
        if self.noise is not None:
            contrast = self._label(image, self.pipeline.targets.index(self.task.target))
            denoise = denoiser(self.noise, self.pipeline, self.schedule, contrast, image)
        stages = Stages(residual_predictor(self.residual, label), denoise, self.schedule)
        return translate(stages, image, eps, self.steps).clamp(-1, 1)

    def package(self) -> ModelPackage:
        """Return the networks as a package, for what is written in terms of one."""
        recipe = self.pipeline
        return ModelPackage("network_def", "", recipe, {}, self.residual, self.noise, False)

    def _fixed_noise(self, image: Tensor) -> Tensor:
        # Indices, not slices: a trace then takes other sizes than the one it was made with.
        rows = torch.arange(image.shape[2], device=image.device) % _TILE
        columns = torch.arange(image.shape[3], device=image.device) % _TILE
        eps = self.eps[:, :, rows][:, :, :, columns]
        return eps.expand(image.shape[0], -1, -1, -1)

    @staticmethod
    def _label(image: Tensor, index: int) -> Tensor:
        return torch.full((image.shape[0],), index, device=image.device)


class BundleTranslator(Translator):
    """The package's translator, with the settings that the config gives it.

    Parameters
    ----------
    network : TranslationNetwork
        Gets the package's weights; its recipe is used, with whatever the config overrides in it.
    bundle_root : path
    device : torch.device or str
    settings : Settings
    """

    def __init__(
        self,
        network: TranslationNetwork,
        bundle_root: str | Path,
        device: torch.device | str,
        settings: Settings,
    ) -> None:
        package = load_package(bundle_root)
        _fill(network, package)
        used = replace(
            package, pipeline=network.pipeline, residual=network.residual, noise=network.noise
        )
        super().__init__(used, choose_device(str(device)))
        self.settings = settings


def list_volumes(folder: str | Path) -> list[Item]:
    """List the volumes of a folder as `medtrans translate FOLDER` does; [{"image": path}, …]."""
    return [{"image": str(job.path)} for job in jobs_from_inputs((Path(folder),), None)]


class ReadVolumed:
    """Preprocessing: replace a path by the volume (MetaTensor) that is there."""

    def __init__(self, keys: str) -> None:
        self.key = keys

    def __call__(self, data: Mapping[str, Any]) -> Item:
        return {**data, self.key: read_volume(data[self.key])}


class ToModelSpaced:
    """Preprocessing: orient, resample, scale and cut a volume as the recipe says; `Prepared`."""

    def __init__(self, keys: str, translator: BundleTranslator) -> None:
        self.key, self.translator = keys, translator

    def __call__(self, data: Mapping[str, Any]) -> Item:
        return {**data, self.key: self.translator.prepare(data[self.key], self.translator.settings)}


class SliceInferer(Inferer):  # type: ignore[misc]
    """Translate a prepared volume slice by slice."""

    def __call__(self, inputs: Prepared, network: BundleTranslator, *_: Any) -> list[Voxels]:
        return network.sample(inputs, network.settings)


class ToInputSpaced:
    """Postprocessing: undo the preprocessing's geometry and give the target's unit."""

    def __init__(self, keys: str, translator: BundleTranslator, orig_keys: str = "image") -> None:
        self.key, self.original, self.translator = keys, orig_keys, translator

    def __call__(self, data: Mapping[str, Any]) -> Item:
        result = self.translator.restore(data[self.original], data[self.key])
        return {**data, self.key: result}


class WriteVolumed:
    """Postprocessing: write a translation, labelled synthetic; replace it by the files' paths."""

    def __init__(
        self,
        keys: str,
        translator: BundleTranslator,
        output_dir: str | Path,
        orig_keys: str = "image",
    ) -> None:
        self.key, self.original, self.translator = keys, orig_keys, translator
        self.folder = Path(output_dir)

    def __call__(self, data: Mapping[str, Any]) -> Item:
        result: Translation = data[self.key]
        source: Source = data[self.original].volume.meta["source"]
        name = output_path(source, str(result.task)).name
        label = self.translator.provenance(result, self.translator.settings, source)
        goal = make_folder(self.folder) / name
        return {**data, self.key: write_volume(result.voxels, goal, source, label)}


class Evaluator:
    """Run inference over a data set.

    Parameters
    ----------
    dataset : sequence of dict
        Items with the prepared volume under "image".
    network : BundleTranslator
    inferer : callable
        (image, network) -> prediction.
    postprocessing : callable
        Takes the item with the prediction under "pred", and leaves the files' paths there.
    """

    def __init__(
        self,
        dataset: Sequence[Item],
        network: BundleTranslator,
        inferer: Callable[[Any, BundleTranslator], Any],
        postprocessing: Callable[[Item], Item],
    ) -> None:
        self.dataset, self.network = dataset, network
        self.inferer, self.postprocessing = inferer, postprocessing

    def run(self) -> list[Path]:
        """Translate every volume of the data set; returns what was written."""
        written: list[Path] = []
        try:
            for number in range(len(self.dataset)):
                item = self.dataset[number]
                prediction = self.inferer(item["image"], self.network)
                paths = self.postprocessing({**item, "pred": prediction})["pred"]
                source: Source = item["image"].volume.meta["source"]
                for warning in (*source.warnings, *item["image"].warnings):
                    say(f"Warning: {source.path.name}: {warning}")
                say(f"Wrote {paths[0]}")
                written += paths
        except RuntimeError as error:
            raise _own_error(error) from None
        return written


def _own_error(error: BaseException) -> BaseException:
    """Return the error of ours that MONAI's transforms wrapped, where there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MedtransError):
        cause = cause.__cause__
    return error if cause is None else cause


def _fill(network: TranslationNetwork, package: ModelPackage) -> None:
    stages: tuple[tuple[str, nn.Module | None, nn.Module | None], ...] = (
        ("residual", network.residual, package.residual),
        ("noise", network.noise, package.noise),
    )
    for name, wanted, found in stages:
        if wanted is None:
            continue
        try:
            wanted.load_state_dict({} if found is None else found.state_dict())
        except RuntimeError as error:
            raise PackageError(
                f"The weights of the bundle '{package.name}' do not fit the {name} network that "
                f"its config describes: {str(error).splitlines()[1].strip()} Leave "
                "network_def and the recipe's [network] as they were."
            ) from None
        wanted.eval().requires_grad_(False)
