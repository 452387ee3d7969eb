"""Model packages: the folder that `translate` loads; a MONAI bundle.

Loading runs no code from the package and unpickles nothing: the weights are safetensors, the rest
is JSON that pydantic checks. The other files of a package (model.pt, the configs) are for MONAI's
bundle tools; `load_package` does not open them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Mode, Task
from medtrans.diffusion import Steps
from medtrans.errors import PackageError, UsageError
from medtrans.networks.unet import noise_network, residual_network
from medtrans.package.bundle_files import Documents, package_texts
from medtrans.package.detail import Gains, load_detail
from medtrans.package.error import KnownError, load_error, stored_error
from medtrans.package.folder import (
    DEFAULT_MODEL,
    ERROR,
    FORMAT,
    LOOK,
    MAX_WEIGHTS_BYTES,
    METADATA,
    RUN_MODEL,
    STATE_DICT,
    WEIGHTS,
    ModelRecord,
    choose_task,
    find_package,
    package_name,
    read_metadata,
    read_recipe,
)
from medtrans.package.look import Known, load_known, stored
from medtrans.preprocessing.intensity import Profile
from medtrans.system.atomic import replacing_folder, require_new_folder

# What JSON of another shape, or tensors of another network, make the code below raise.
_MISFITS = (AttributeError, KeyError, TypeError, ValueError, RuntimeError)
_STORED = torch.float16  # a network's worth of rounding is far below what bf16 arithmetic makes


@dataclass(frozen=True)
class ModelPackage:
    """A loaded model.

    Attributes
    ----------
    name : str
    sha256 : str
        Of the weights file.
    pipeline : Pipeline
        The recipe it was trained with.
    profiles : dict
        Target contrast -> intensity profile that outputs are given.
    residual : Module
    noise : Module or None
        None when only the residual stage was trained: then fidelity mode is the only one.
    masked_background : bool
        Whether every source volume of its pairs had its background masked out, as skull-stripped
        brains have.
    look : Known or None
        What an input is compared with; None in a package of before.
    error : KnownError or None
        How far off it is; None in a package of before, or of a training that did not learn it.
    detail : dict
        Task -> how many times as much detail real targets have as the residual stage's estimates,
        in each band of `medtrans.preprocessing.detail`; of no task where it was not measured.
    """

    name: str
    sha256: str
    pipeline: Pipeline
    profiles: dict[str, Profile]
    residual: nn.Module
    noise: nn.Module | None
    masked_background: bool
    look: Known | None = None
    error: KnownError | None = None
    detail: Gains = field(default_factory=dict)

    @property
    def of_stripped_brains(self) -> bool:
        """Whether the brain of a whole head has to be found before it is translated."""
        return self.masked_background and self.pipeline.volume.brains

    def task(self, requested: str | None) -> Task:
        """Return the requested task, for example "t1-to-t2"; None for the default one.

        Raises
        ------
        PackageError
            When the model was not trained for it.
        UsageError
            When it is no task.
        """
        return choose_task(requested, self.pipeline.parsed_tasks, self.name)

    def steps(
        self,
        mode: Mode,
        residual: int | None = None,
        noise: int | None = None,
        eta: float | None = None,
    ) -> Steps:
        """Return the steps of a mode as the recipe has them, but for those that are given.

        Raises
        ------
        PackageError
            When noise steps are asked of a model without a noise stage.
        UsageError
            When more steps are asked for than the model's schedule has.
        """
        usual = Steps(*self.pipeline.sampling.steps(mode))
        steps = usual._replace(
            residual=usual.residual if residual is None else residual,
            noise=usual.noise if noise is None else noise,
            eta=usual.eta if eta is None else eta,
        )
        if steps.noise and self.noise is None:
            raise PackageError(
                f"The model '{self.name}' has no noise stage, so it can only do "
                "--mode fidelity. Train it with --stage all for the other modes."
            )
        last = self.pipeline.diffusion.steps
        if (most := max(steps.residual, steps.noise)) > last:
            raise UsageError(
                f"{most} steps are more than the {last} time steps of the model; ask for fewer."
            )
        return steps


@dataclass(frozen=True)
class TrainedModel:
    """What training leaves for a package.

    Attributes
    ----------
    pipeline, profiles, masked_background
        As in `ModelPackage`.
    residual : mapping
        State dict of the residual network; it is stored as float16, but for tensors with values
        beyond float16's largest, 65504.
    noise : mapping or None
        State dict of the noise network, also stored as float16; None without a noise stage.
    training : mapping
        What it was trained on and how well it did: JSON values, shown by `medtrans models`.
        Its "eval_metrics", a mapping, become the bundle's.
    look : Known or None
        What an input is compared with.
    error : KnownError or None
        How far off it is.
    detail : mapping
        As in `ModelPackage`.
    """

    pipeline: Pipeline
    profiles: Mapping[str, Profile]
    residual: Mapping[str, Tensor]
    noise: Mapping[str, Tensor] | None
    masked_background: bool
    training: Mapping[str, object]
    look: Known | None = None
    error: KnownError | None = None
    detail: Gains = field(default_factory=dict)


def save_package(folder: Path, model: TrainedModel, documents: Documents | None = None) -> None:
    """Write a model package, a whole MONAI bundle; replaces one that is there.

    Parameters
    ----------
    folder : Path
        Its name becomes the model's name.
    model : TrainedModel
    documents : Documents, optional
        What a person writes: the card, the licences, the version and the changelog.

    Raises
    ------
    OutputError
        When the folder cannot be written, or is a file.
    PackageError
        When a weight is not finite.
    """
    tensors = _prefixed(model.residual, model.noise)
    if bad := _not_finite(tensors):
        raise PackageError(
            f"The trained weight {bad} is not finite, so that no model is written to {folder}. "
            "Train again with a lower learning rate."
        )
    weights = save_safetensors(tensors)
    record: ModelRecord = {
        "format": FORMAT,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "pipeline": model.pipeline.model_dump(mode="json"),
        "profiles": {name: [p.low, p.high] for name, p in model.profiles.items()},
        "masked_background": model.masked_background,
        "training": dict(model.training),
    }
    files = {WEIGHTS: weights, STATE_DICT: _state_dict(tensors)}
    if model.look is not None:
        record["look"], files[LOOK] = stored(model.look)
    if model.error is not None:
        record["error"], files[ERROR] = stored_error(model.error)
    if model.detail:
        record["detail"] = {task: list(gains) for task, gains in model.detail.items()}
    documents, has_noise = documents or Documents(), model.noise is not None
    texts = package_texts(folder.name, model.pipeline, record, documents, has_noise=has_noise)
    contents = {path: text.encode() for path, text in texts.items()}
    with replacing_folder(folder, anew=True) as partial:
        for path, content in (contents | files).items():
            (partial / path).parent.mkdir(exist_ok=True)
            (partial / path).write_bytes(content)


def export_package(source: str | Path, folder: Path, documents: Documents) -> list[Path]:
    """Write the model of a run, or a model package, as a bundle of its own.

    Parameters
    ----------
    source : str or Path
        A run's folder, a model package's folder or a shipped model's name.
    folder : Path
        New or empty; its name becomes the model's name.
    documents : Documents

    Returns
    -------
    list of Path
        The bundle's files.

    Raises
    ------
    OutputError
        When the folder is not empty, or cannot be written.
    PackageError
        When there is no such model, or it is damaged.
    """
    require_new_folder(folder)
    trained = Path(source) / RUN_MODEL
    origin = trained if (trained / METADATA).is_file() else find_package(source)
    package = load_package(origin)
    model = TrainedModel(
        pipeline=package.pipeline,
        profiles=package.profiles,
        residual=package.residual.state_dict(),
        noise=None if package.noise is None else package.noise.state_dict(),
        masked_background=package.masked_background,
        training=read_metadata(origin)["medtrans"]["training"],
        look=package.look,
        error=package.error,
        detail=package.detail,
    )
    save_package(folder, model, documents)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def load_package(model: str | Path = DEFAULT_MODEL) -> ModelPackage:
    """Load a model by name or folder, and check its weights against the recorded hash.

    Raises
    ------
    PackageError
        When there is no such model, or it is incomplete or damaged.
    """
    folder = find_package(model)
    record = read_metadata(folder)["medtrans"]
    data = _read_weights(folder / WEIGHTS, record)
    try:
        pipeline = read_recipe(folder)
        profiles = {name: Profile(*map(float, pair)) for name, pair in record["profiles"].items()}
        tensors = load_safetensors(data)
        if bad := _not_finite(tensors):
            raise PackageError(f"{folder / WEIGHTS}: {bad} is not finite. Export the model again.")
        residual = _filled(residual_network, pipeline, tensors, "residual.")
        has_noise = any(key.startswith("noise.") for key in tensors)
        noise = _filled(noise_network, pipeline, tensors, "noise.") if has_noise else None
    except (*_MISFITS, SafetensorError) as error:
        raise PackageError(
            f"The model package {folder} does not fit together: {_reason(error)} "
            "Copy or export it again."
        ) from None
    missing = [target for target in pipeline.targets if target not in profiles]
    if missing:
        raise PackageError(f"{folder / METADATA} lacks the intensity profile of {missing[0]}.")
    return ModelPackage(
        package_name(folder),
        record["weights_sha256"],
        pipeline,
        profiles,
        residual,
        noise,
        bool(record.get("masked_background", False)),
        load_known(folder, record.get("look")),
        load_error(folder, record.get("error"), pipeline),
        load_detail(folder, record),
    )


def _reason(error: Exception) -> str:
    """Pick the line that says what is wrong; torch heads its list with a line that does not."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[1 if isinstance(error, RuntimeError) and len(lines) > 1 else 0].strip()


def _read_weights(path: Path, record: ModelRecord) -> bytes:
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise PackageError(f"{path} is larger than the {MAX_WEIGHTS_BYTES} bytes of a model.")
        data = path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror}).") from None
    digest, expected = hashlib.sha256(data).hexdigest(), record.get("weights_sha256")
    if digest != expected:
        raise PackageError(
            f"{path} has sha256 {digest[:16]}…, but the package's metadata says "
            f"{str(expected)[:16]}…: the weights were changed or damaged. Copy the package again."
        )
    return data


def _prefixed(
    residual: Mapping[str, Tensor], noise: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    stages = {"residual": residual, **({"noise": noise} if noise is not None else {})}
    return {
        f"{stage}.{key}": _stored(value.detach().cpu().contiguous())
        for stage, weights in stages.items()
        for key, value in weights.items()
    }


def _stored(value: Tensor) -> Tensor:
    """Round to what weights are stored as, where it can hold them."""
    rounded = value.to(_STORED)
    return rounded if bool(rounded.isfinite().all()) else value


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name a tensor with NaN or an infinity."""
    return next((name for name, value in tensors.items() if not value.isfinite().all()), None)


def _state_dict(tensors: Mapping[str, Tensor]) -> bytes:
    """Give models/model.pt, which MONAI's tools load with weights_only=True."""
    content = io.BytesIO()
    torch.save(dict(tensors), content)
    return content.getvalue()


class _Undrawn(TorchFunctionMode):
    """Leaves normal initial weights undrawn: torch imports its compiler to draw them on meta."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _filled(
    build: Callable[[Pipeline, int], nn.Module],
    pipeline: Pipeline,
    tensors: Mapping[str, Tensor],
    prefix: str,
) -> nn.Module:
    weights = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    # On meta nothing is allocated: a recipe that asks for more than the weights hold costs nothing.
    with torch.device("meta"), _Undrawn():
        network = build(pipeline, 0)
    network.load_state_dict(weights, assign=True)  # strict
    network.float()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)
