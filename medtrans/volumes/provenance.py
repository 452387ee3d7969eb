"""The label of a synthetic volume: what made it, from what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from medtrans.config.terms import Contrast, Mode

NOT_FOR_DIAGNOSIS = "SYNTHETIC, NOT FOR DIAGNOSIS"


@dataclass(frozen=True)
class Provenance:
    """How a synthetic volume was made.

    Attributes
    ----------
    model, model_sha256 : str
        Name and hash of the model package.
    task : str
        For instance ``"t1-to-t2"``.
    source_contrast, target_contrast : Contrast
        As in the task.
    target_kind : {"mr", "ct"}
        ``"ct"`` when the voxels are HU.
    mode : Mode
    residual_steps, noise_steps, eta, seed
        Settings of the sampler.
    source_sha256 : str
        Hash of the input, as in `Source.sha256`.
    version : str
        Version of medtrans.
    extra : Mapping
        Further entries of the sidecar, in its spelling.
    """

    model: str
    model_sha256: str
    task: str
    source_contrast: Contrast
    target_contrast: Contrast
    target_kind: Literal["mr", "ct"]
    mode: Mode
    residual_steps: int
    noise_steps: int
    eta: float
    seed: int
    source_sha256: str
    version: str
    extra: Mapping[str, object] = field(default_factory=dict)

    def sidecar(self) -> dict[str, object]:
        """Build the entries of the JSON sidecar, CamelCase as BIDS spells them."""
        return {
            "Synthetic": True,
            "Notice": NOT_FOR_DIAGNOSIS,
            "GeneratedBy": [{"Name": "medtrans", "Version": self.version}],
            "Model": self.model,
            "ModelSHA256": self.model_sha256,
            "Task": self.task,
            "SourceContrast": self.source_contrast,
            "TargetContrast": self.target_contrast,
            "Units": "HU" if self.target_kind == "ct" else "arbitrary",
            "Mode": self.mode,
            "ResidualSteps": self.residual_steps,
            "NoiseSteps": self.noise_steps,
            "Eta": self.eta,
            "Seed": self.seed,
            "SourceSHA256": self.source_sha256,
            **self.extra,
        }

    def label(self) -> str:
        """One line for a header's description field, at most 79 ASCII characters."""
        line = f"SYNTHETIC {self.task} by medtrans {self.model}; not acquired"
        return line.encode("ascii", "replace").decode("ascii")[:79]
