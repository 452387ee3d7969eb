"""What a noise stage that was pretrained elsewhere is: part of a recipe, or `denoiser.toml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from medtrans.config.fields import Count, StrictModel


class DdpmConfig(StrictModel):
    """Trained with MONAI's DDPMScheduler, its variances from `first` to `last`."""

    kind: Literal["ddpm"]
    prediction: Literal["epsilon", "v_prediction", "sample"]
    schedule: Literal["linear_beta", "scaled_linear_beta"]
    steps: Annotated[int, Field(ge=2)]
    first_variance: PositiveFloat
    last_variance: PositiveFloat


class FlowConfig(StrictModel):
    """Trained with MONAI's RFlowScheduler."""

    kind: Literal["rectified_flow"]
    steps: Count


class EdmConfig(StrictModel):
    """The raw network of EDM's preconditioning, on data of this standard deviation."""

    kind: Literal["edm"]
    data_std: PositiveFloat


class UNetConfig(StrictModel):
    """The arguments of MONAI's DiffusionModelUNet; 2D, one channel in and out, no condition."""

    channels: Annotated[tuple[Count, ...], Field(min_length=1)]
    attention_levels: tuple[bool, ...]
    num_res_blocks: Count | tuple[Count, ...]
    num_head_channels: Count | tuple[Count, ...]
    norm_num_groups: Count

    @model_validator(mode="after")
    def _consistent(self) -> UNetConfig:
        if len(self.attention_levels) != len(self.channels):
            raise ValueError("attention_levels needs one entry for each of channels")
        if any(width % self.norm_num_groups for width in self.channels):
            raise ValueError("every entry of channels must be a multiple of norm_num_groups")
        return self

    @property
    def stride(self) -> int:
        """What in-plane sizes must be a multiple of, in pixels."""
        return int(2 ** (len(self.channels) - 1))


class DenoiserConfig(StrictModel):
    """A foreign noise stage: how it was trained, and its network."""

    training: Annotated[DdpmConfig | FlowConfig | EdmConfig, Field(discriminator="kind")]
    network: UNetConfig
