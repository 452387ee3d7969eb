"""The text files of a model package: metadata, configs, model card and licences.

Everything but the weights. The configs name the classes of `medtrans.bundle` and parts of MONAI;
their only expressions join paths and call `run`. `bundle_check` compares a package's configs with
what these functions give, so that configs somebody changed are seen before MONAI evaluates them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

from medtrans.config.schema import Pipeline
from medtrans.config.terms import DEFAULT_MODE, Contrast
from medtrans.diffusion.schedules import TIME_SCALE
from medtrans.package.card import DATA_LICENSE_TEXT, LICENSE_TEXT, eval_metrics, model_card
from medtrans.package.folder import (
    CARD,
    DATA_LICENSE,
    INFERENCE,
    LICENSE,
    LOGGING,
    METADATA,
    MULTI_GPU,
    TRAIN,
    ModelRecord,
)
from medtrans.version import __version__

Config = dict[str, object]
"""Part of a file that MONAI's bundle runner evaluates."""

_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
_PAPER = "Lin et al., Decoupled Residual Denoising Diffusion, CVPR 2026, arXiv:2606.01048"
_RECIPE = "@_meta_::medtrans::pipeline"  # metadata.json is the recipe's only home
# What a user of inference.json can choose, with its default: fields of `medtrans.Settings`.
_SETTINGS: Config = {
    "task": None,
    "mode": DEFAULT_MODE,
    "residual_steps": None,
    "noise_steps": None,
    "samples": 1,
    "seed": 0,
    "batch_size": None,
}
_ANSWERS = {  # what a noise network predicts: noise.prediction in a recipe
    "eps": "standard normal noise",
    "x0": "target slice",
    "v": "between noise and target slice, of unit variance (EDM)",
}
_NETWORK_SETTINGS = ("task", "mode", "residual_steps", "noise_steps", "seed")

LOGGING_CONF = """\
[loggers]
keys=root

[handlers]
keys=console

[formatters]
keys=line

[logger_root]
level=INFO
handlers=console

[handler_console]
class=StreamHandler
level=INFO
formatter=line
args=(sys.stderr,)

[formatter_line]
format=%(asctime)s %(levelname)s %(name)s: %(message)s
"""


@dataclass(frozen=True)
class Documents:
    """What a person writes about a model; what is None gets a text that says so.

    Attributes
    ----------
    card : str or None
        docs/README.md.
    license_text : str or None
        LICENSE, the terms of the weights.
    data_license : str or None
        docs/data_license.txt, the terms of the data it was trained on.
    version : str
        Of the model, as 1.2.3.
    changelog : mapping
        Version -> what changed; must name `version`.
    """

    card: str | None = None
    license_text: str | None = None
    data_license: str | None = None
    version: str = "0.1.0"
    changelog: Mapping[str, str] = field(default_factory=lambda: {"0.1.0": "First version."})


def package_texts(
    name: str,
    pipeline: Pipeline,
    record: ModelRecord,
    documents: Documents,
    *,
    has_noise: bool,
) -> dict[Path, str]:
    """Give every text file of a package by its path in it.

    Parameters
    ----------
    name : str
    pipeline : Pipeline
    record : ModelRecord
        What metadata.json keeps for medtrans itself.
    documents : Documents
    has_noise : bool
        Whether the model has a noise stage.
    """
    training = record["training"]
    metadata = {**monai_metadata(name, pipeline, training, documents), "medtrans": record}
    card = documents.card or model_card(name, pipeline, training, has_noise=has_noise)
    return {
        METADATA: _json(metadata),
        **config_texts(pipeline, has_noise=has_noise),
        CARD: card,
        DATA_LICENSE: documents.data_license or DATA_LICENSE_TEXT,
        LICENSE: documents.license_text or LICENSE_TEXT,
    }


def config_texts(pipeline: Pipeline, *, has_noise: bool) -> dict[Path, str]:
    """Give the files that MONAI's bundle runner evaluates, by their path in the package.

    Parameters
    ----------
    pipeline : Pipeline
    has_noise : bool
        Whether the model has a noise stage.
    """
    return {
        INFERENCE: _json(inference_config(has_noise=has_noise)),
        TRAIN: _json(train_config(pipeline, has_noise=has_noise)),
        MULTI_GPU: _json(multi_gpu_config()),
        LOGGING: LOGGING_CONF,
    }


def inference_config(*, has_noise: bool) -> Config:
    """Build configs/inference.json: translate every volume of `dataset_dir`."""
    return {
        "bundle_root": ".",
        "dataset_dir": "/workspace/data",
        "output_dir": "$@bundle_root + '/eval'",
        "device": {"_target_": "medtrans.bundle.choose_device", "wanted": "auto"},
        **_SETTINGS,
        "precision": "auto",
        "network_def": {
            **_network(_RECIPE, has_noise=has_noise),
            **{key: f"@{key}" for key in _NETWORK_SETTINGS},
        },
        "settings": {
            "_target_": "medtrans.bundle.Settings",
            **{key: f"@{key}" for key in _SETTINGS},
        },
        "translator": {
            "_target_": "medtrans.bundle.BundleTranslator",
            "network": "@network_def",
            "bundle_root": "@bundle_root",
            "device": "@device",
            "settings": "@settings",
            "precision": "@precision",
        },
        "datalist": {"_target_": "medtrans.bundle.list_volumes", "folder": "@dataset_dir"},
        "preprocessing": _compose(
            _step("ReadVolumed", keys="image"),
            _step("ToModelSpaced", keys="image", translator="@translator"),
        ),
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "inferer": {"_target_": "medtrans.bundle.SliceInferer"},
        "postprocessing": _compose(
            _step("ToInputSpaced", keys="pred", translator="@translator"),
            _step("WriteVolumed", keys="pred", translator="@translator", output_dir="@output_dir"),
        ),
        "evaluator": {
            "_target_": "medtrans.bundle.Evaluator",
            "dataset": "@dataset",
            "network": "@translator",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def train_config(pipeline: Pipeline, *, has_noise: bool) -> Config:
    """Build configs/train.json: train both stages on `dataset_dir`/manifest.csv.

    It holds the recipe whole, so that every hyper-parameter can be overridden from the command
    line: what is trained is a new model, with a package of its own.

    Parameters
    ----------
    pipeline : Pipeline
    has_noise : bool
        Whether the model has a noise stage.
    """
    return {
        "bundle_root": ".",
        "dataset_dir": "/workspace/data",
        "manifest": "$@dataset_dir + '/manifest.csv'",
        "output_dir": "$@bundle_root + '/run'",
        "device": {"_target_": "medtrans.bundle.choose_device", "wanted": "auto"},
        "initial": None,
        "stages": "all",
        "pairs": None,
        "seed": 0,
        "resume": False,
        "pipeline": pipeline.model_dump(mode="json"),
        "network_def": _network("@pipeline", has_noise=has_noise),
        "train": {
            "dataset": {
                "_target_": "medtrans.bundle.TrainingPatches",
                "data": "@manifest",
                "pipeline": "@pipeline",
                "cache_dir": "$@output_dir + '/cache'",
                "pairs": "@pairs",
                "seed": "@seed",
            },
            "inferer": {"_target_": "SimpleInferer"},
            "handlers": [{"_target_": "medtrans.bundle.TellWhereModelIs"}],
            "trainer": {
                "_target_": "medtrans.bundle.Trainer",
                "max_epochs": 1,
                "dataset": "@train::dataset",
                "device": "@device",
                "output_dir": "@output_dir",
                "initial": "@initial",
                "stages": "@stages",
                "resume": "@resume",
                "train_handlers": "@train::handlers",
            },
        },
        "run": ["$@train::trainer.run()"],
    }


def multi_gpu_config() -> Config:
    """Build configs/multi_gpu_train.json, laid over train.json under torchrun."""
    return {
        "device": {"_target_": "medtrans.bundle.own_device"},
        "initialize": [{"_target_": "medtrans.bundle.join_processes"}],
        "run": ["$@train::trainer.run()"],
        "finalize": [{"_target_": "torch.distributed.destroy_process_group"}],
    }


def monai_metadata(
    name: str, pipeline: Pipeline, training: Mapping[str, object], documents: Documents
) -> Config:
    """Give the keys of metadata.json that MONAI's bundle schema asks for.

    Parameters
    ----------
    name : str
    pipeline : Pipeline
    training : mapping
        As in `TrainedModel`.
    documents : Documents
    """
    tasks = ", ".join(pipeline.tasks)
    return {
        "schema": _SCHEMA,
        "version": documents.version,
        "changelog": dict(documents.changelog),
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "medtrans": __version__,
            "nibabel": version("nibabel"),
        },
        "supported_apps": {},
        "name": name.replace("_", " "),
        "task": f"Translation of medical volumes between imaging contrasts: {tasks}",
        "description": (
            "Decoupled Residual Denoising Diffusion: a residual network takes a stack of source "
            "slices to the target contrast, a noise network pulls the result onto the manifold of "
            f"target images. Tasks: {tasks}."
        ),
        "authors": "the medtrans developers",
        "copyright": f"the medtrans developers, {date.today().year}",
        "data_source": "see docs/README.md and docs/data_license.txt",
        "data_type": "NIfTI, DICOM, MHA or NRRD volumes",
        "intended_use": "research; the output is synthetic and not for diagnosis",
        "eval_metrics": dict(eval_metrics(training)),
        "references": [_PAPER],
        **_data_formats(pipeline),
    }


def _data_formats(pipeline: Pipeline) -> Config:
    """Describe the translator as a whole, then the two networks inside it."""
    stack, stride = _stack_names(pipeline.slices.context), pipeline.network.stride
    source = _image(stride, stack, [task.source for task in pipeline.parsed_tasks])
    targets = [task.target for task in pipeline.parsed_tasks]
    seen = stack if pipeline.noise.sees_source and pipeline.denoiser is None else []
    noisy = _image(stride, ["noisy target slice", *seen], targets) | {"value_range": []}
    change = _image(stride, ["source minus target"], targets) | {"value_range": [-2, 2]}
    answer = _ANSWERS[pipeline.noise.prediction]
    noise = _image(stride, [answer], targets) | {"value_range": []}
    both = _image(stride, ["noisy slice", *stack], targets) | {"value_range": []}
    result = _image(stride, ["synthetic target slice"], targets)
    time = _numbers(f"time, 0 to {TIME_SCALE:g}", "float32")
    label = _numbers("which one it is", "int64")
    return {
        "network_data_format": {"inputs": {"image": source}, "outputs": {"pred": result}},
        "noise_data_format": {
            "inputs": {"image": noisy, "time": time, "label": label},
            "outputs": {"pred": noise},
        },
        "residual_data_format": {
            "inputs": {"image": both, "time": time, "label": label},
            "outputs": {"pred": change},
        },
    }


def _image(stride: int, channels: Sequence[str], contrasts: Sequence[Contrast]) -> Config:
    modality = sorted({"CT" if contrast == "ct" else "MR" for contrast in contrasts})
    return {
        "type": "image",
        "format": "magnitude",
        "modality": " or ".join(modality),
        "num_channels": len(channels),
        "spatial_shape": [f"{stride}*n", f"{stride}*n"],
        "dtype": "float32",
        "value_range": [-1, 1],
        "is_patch_data": False,
        "channel_def": {str(i): name for i, name in enumerate(channels)},
    }


def _numbers(meaning: str, dtype: str) -> Config:
    return {
        "type": "tuples",
        "format": "number",
        "modality": "n/a",
        "num_channels": 1,
        "spatial_shape": [],
        "dtype": dtype,
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": meaning},
    }


def _stack_names(context: int) -> list[str]:
    offsets = range(-context, context + 1)
    return [f"source slice {offset:+d}" if offset else "source slice" for offset in offsets]


def _network(recipe: str, *, has_noise: bool) -> Config:
    return {
        "_target_": "medtrans.bundle.TranslationNetwork",
        "pipeline": recipe,
        "noise_stage": has_noise,
    }


def _step(name: str, **arguments: str) -> dict[str, str]:
    return {"_target_": f"medtrans.bundle.{name}", **arguments}


def _compose(*transforms: dict[str, str]) -> Config:
    return {"_target_": "Compose", "transforms": list(transforms)}


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=2) + "\n"
