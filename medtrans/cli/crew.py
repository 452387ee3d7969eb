"""Who translates a cohort: this process, processes beside it, or the workers of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtrans.errors import UsageError
from medtrans.inference.jobs import Job, ReadJob
from medtrans.inference.settings import Settings
from medtrans.package.folder import find_package, shipped_models
from medtrans.system.progress import track

if TYPE_CHECKING:
    from medtrans.inference.cluster import SharedModel
    from medtrans.inference.cohort import OnDone
    from medtrans.inference.translator import Translator


@dataclass(frozen=True)
class CrewRequest:
    """What --workers and --scheduler ask for.

    Attributes
    ----------
    workers : int or None
        Processes on this machine.
    scheduler : str or None
        Address of a Dask scheduler that runs already.
    """

    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.scheduler is not None:
            raise UsageError(
                "--workers starts workers here, --scheduler uses those of a cluster: give one."
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers must be 1 or more, not {self.workers}.")

    def helps(self, jobs: Sequence[Job | ReadJob]) -> bool:
        """Whether other processes translate: a single volume is translated in this one."""
        return len(jobs) > 1 and self != CrewRequest()

    def __str__(self) -> str:
        if self.scheduler is not None:
            return f"the workers of {self.scheduler}"
        return "1 worker" if self.workers == 1 else f"{self.workers} workers"

    def translate(
        self,
        model: SharedModel,
        jobs: Sequence[Job],
        settings: Settings,
        *,
        strict: bool,
        on_done: OnDone,
    ) -> None:
        """Translate jobs on the workers, telling a person how many volumes are done."""
        from medtrans.inference import cluster

        if self.scheduler is not None:
            crew = cluster.workers_at(self.scheduler)
        else:
            crew = cluster.workers_here(self.workers or 1, model.device)
        with track("volumes") as on_volumes:
            cluster.translate_on_workers(
                crew, model, jobs, settings, strict=strict, on_done=on_done, on_volumes=on_volumes
            )


def shared_model(model: str, translator: Translator, device: str) -> SharedModel:
    """Describe a model to workers: a shipped one by its name, another by its folder."""
    from medtrans.inference.cluster import SharedModel

    name = model if model in shipped_models() else str(find_package(model).absolute())
    return SharedModel(name, translator.package.sha256, device, translator.precision)
