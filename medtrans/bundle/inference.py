"""What a model package's configs/inference.json points at, when MONAI's bundle tools run it.

The config reads like the data's way: list the volumes, read each and bring it into the space of
the networks (preprocessing), sample its slices (inferer), bring them back and write them
(postprocessing). Every step is one of `Translator`'s, so a bundle writes what `medtrans translate`
writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer

from medtrans.bundle.network import TranslationNetwork
from medtrans.bundle.process import choose_device
from medtrans.errors import MedtransError
from medtrans.inference.jobs import jobs_from_inputs
from medtrans.inference.sampling import Sampled
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.inference.volume import Prepared, Translation
from medtrans.package.store import load_package
from medtrans.system.atomic import make_folder
from medtrans.system.progress import say
from medtrans.volumes import Source, output_path, read_volume, write_volume

Item = dict[str, Any]


class BundleTranslator(Translator):
    """The package's translator, with the settings that the config gives it.

    Parameters
    ----------
    network : TranslationNetwork
        Gets the package's weights; its recipe is used, with whatever the config overrides in it.
    bundle_root : path
    device : torch.device or str
    settings : Settings
    precision : "auto", "float32" or "bfloat16"
    """

    def __init__(
        self,
        network: TranslationNetwork,
        bundle_root: str | Path,
        device: torch.device | str,
        settings: Settings,
        precision: str = "auto",
    ) -> None:
        package = load_package(bundle_root)
        network.fill(package)
        used = replace(
            package, pipeline=network.pipeline, residual=network.residual, noise=network.noise
        )
        super().__init__(used, choose_device(str(device)), precision)
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

    def __call__(self, inputs: Prepared, network: BundleTranslator, *_: Any) -> Sampled:
        return network.sample(inputs, network.settings)


class ToInputSpaced:
    """Postprocessing: undo the preprocessing's geometry and give the target's unit."""

    def __init__(self, keys: str, translator: BundleTranslator, orig_keys: str = "image") -> None:
        self.key, self.original, self.translator = keys, orig_keys, translator

    def __call__(self, data: Mapping[str, Any]) -> Item:
        prepared: Prepared = data[self.original]
        return {**data, self.key: self.translator.restore(data[self.key], prepared.plan)}


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
        source = _source(data[self.original])
        name = output_path(source, str(result.task)).name
        label = self.translator.provenance(result, self.translator.settings, source)
        path = make_folder(self.folder) / name
        return {**data, self.key: write_volume(result.voxels, path, source, label)}


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
                source = _source(item["image"])
                for warning in (*source.warnings, *item["image"].plan.warnings):
                    say(f"Warning: {source.path.name}: {warning}")
                say(f"Wrote {paths[0]}")
                written += paths
        except RuntimeError as error:
            raise _own_error(error) from None
        return written


def _source(prepared: Prepared) -> Source:
    assert prepared.plan.source is not None  # `ReadVolumed` has read it from a file
    return prepared.plan.source


def _own_error(error: BaseException) -> BaseException:
    """Return the error of ours that MONAI's transforms wrapped, where there is one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MedtransError):
        cause = cause.__cause__
    return error if cause is None else cause
