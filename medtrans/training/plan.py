"""What a run trains, on what, and where it writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medtrans.config.schema import Pipeline
from medtrans.config.terms import STAGES, StageChoice, StageName
from medtrans.data.manifest import Manifest
from medtrans.package.folder import RUN_MODEL
from medtrans.report.index import INDEX


@dataclass(frozen=True)
class TrainingPlan:
    """What a run trains, on what, and where it writes.

    Attributes
    ----------
    pipeline : Pipeline
    manifest : Manifest
    out : Path
        The run's folder.
    stages : "all", "noise" or "residual"
    noise_from : Path or None
        A run, a model package or a folder with denoiser.toml, whose finished noise network is
        used instead of training one.
    pairs : int or None
        How many subjects' pairs may be used; 0 for unpaired targets alone, None for all.
    seed : int
    device : str
        "auto", "cpu" or "cuda".
    resume : bool
    initial : str, Path or None
        A model package, by name or folder, whose weights both stages start from.
    cache : Path or None
        Where preprocessed volumes are kept; by default in `out`.
    """

    pipeline: Pipeline
    manifest: Manifest
    out: Path
    stages: StageChoice = "all"
    noise_from: Path | None = None
    pairs: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    initial: str | Path | None = None
    cache: Path | None = None

    @property
    def trained(self) -> tuple[StageName, ...]:
        """The stages that the run trains, in their order."""
        if self.stages != "all":
            return (self.stages,)
        return STAGES if self.noise_from is None else ("residual",)

    @property
    def needs_pairs(self) -> bool:
        """Whether a stage cannot do without pairs, unless none are asked for."""
        return self.stages != "noise" or self.pipeline.noise.sees_source

    @property
    def cache_folder(self) -> Path:
        """Where preprocessed volumes are kept."""
        return self.cache or self.out / "cache"

    @property
    def model_folder(self) -> Path:
        """Where the run's model package will be."""
        return self.out / RUN_MODEL

    @property
    def page(self) -> Path:
        """The page that shows how the run goes."""
        return self.out / INDEX

    def stage_folder(self, stage: StageName) -> Path:
        """Where a stage's checkpoints and logs are."""
        return self.out / stage
