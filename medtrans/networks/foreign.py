"""A noise stage that was pretrained elsewhere: a folder with denoiser.toml and its weights.

The TOML says how the network was trained, as `DenoiserConfig` has it; beside it lies
model.safetensors, or model.pt, the state dict of MONAI's DiffusionModelUNet. Nothing is unpickled:
a .pt is read with torch's weights-only reader.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import cast

import torch
from monai.networks.nets import DiffusionModelUNet
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from medtrans.config.denoiser import DenoiserConfig, UNetConfig
from medtrans.errors import TrainingError

DESCRIPTION = "denoiser.toml"
_WEIGHTS = ("model.safetensors", "model.pt")


class ForeignUNet(nn.Module):
    """A noise network that was pretrained elsewhere; it knows no label.

    Parameters
    ----------
    config : UNetConfig
        The arguments of MONAI's DiffusionModelUNet.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.unet = DiffusionModelUNet(
            spatial_dims=2, in_channels=1, out_channels=1, **config.model_dump()
        )

    def forward(self, x: Tensor, time: Tensor, _: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), (B,) -> (B, 1, H, W)."""
        converted = x.to(self.unet.conv_in.conv.weight.dtype)
        return cast(Tensor, self.unet(converted, time)).to(x.dtype)


def read_foreign_noise(folder: Path) -> tuple[DenoiserConfig, dict[str, Tensor]]:
    """Read what a foreign noise stage is, and its weights as `ForeignUNet` names them.

    Raises
    ------
    TrainingError
        When the description is wrong, the weights are missing, or one does not fit the other.
    """
    config = _description(folder / DESCRIPTION)
    weights = {f"unet.{key}": value for key, value in _weights(folder).items()}
    with torch.device("meta"):
        network = ForeignUNet(config.network)
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise TrainingError(
            f"The weights in {folder} do not fit the [network] of {DESCRIPTION}: "
            f"{str(error).splitlines()[1].strip()}"
        ) from None
    return config, weights


def _description(path: Path) -> DenoiserConfig:
    try:
        return DenoiserConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise TrainingError(f"{path}: {key}: {first['msg']}.") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as TOML ({error}).") from None


def _weights(folder: Path) -> dict[str, Tensor]:
    files = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if not files:
        raise TrainingError(f"{folder} has no {' or '.join(_WEIGHTS)}: put the weights there.")
    path = files[0]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes either reader raise what it likes
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{path} is not a file of weights ({first}).") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise TrainingError(f"{path} holds no state dict: save network.state_dict().")
    return dict(state)
