"""`medtrans check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from medtrans.cli.recipe import RecipeRequest
from medtrans.config.terms import Task
from medtrans.data.manifest import SPLITS, Manifest
from medtrans.errors import TrainingError
from medtrans.system.devices import memory_errors, tune_process
from medtrans.system.progress import track
from medtrans.training.parallel import ALONE
from medtrans.training.plan import TrainingPlan
from medtrans.training.rehearsal import peak_memory_gb, rehearse
from medtrans.training.run import described
from medtrans.training.setup import set_up
from medtrans.training.survey import survey

_LESS = "Set a smaller patch or narrower network.channels in the recipe."


@dataclass(frozen=True)
class CheckRequest:
    """What `medtrans check` is asked for.

    Attributes
    ----------
    recipe : RecipeRequest
    manifest : Path
    steps : int
        Training steps of each stage to time; 0 for none.
    device : str
    """

    recipe: RecipeRequest
    manifest: Path
    steps: int
    device: str


def check_data(request: CheckRequest) -> dict[str, object]:
    """Say what training would use, what is odd about it, and how long it would take.

    Raises
    ------
    MedtransError
        When it could not train; the sentence says why.
    """
    tune_process()
    manifest = Manifest.read(request.manifest)
    with TemporaryDirectory(prefix="medtrans-") as name:
        folder = Path(name)
        plan = TrainingPlan(request.recipe.load(), manifest, folder / "run", device=request.device)
        setup = set_up(plan, ALONE)
        tasks = setup.pipeline.parsed_tasks
        with track("checking") as update:
            found = survey(manifest, tasks, update)
        if found.problems:
            raise TrainingError(
                f"Training would stop at {len(found.problems)} problem(s) of {manifest.path}:\n"
                + "\n".join(found.problems)
            )
        with memory_errors("Training", _LESS):
            estimates = rehearse(setup, folder, request.steps) if request.steps else []
        facts = described(setup)
        result: dict[str, object] = {"splits": counts(manifest, tasks), **facts}
        if estimates:
            result["estimated_without_validation"] = [e._asdict() for e in estimates]
            result["peak_memory_gb"] = peak_memory_gb(setup.device)
        result["recipe"] = setup.pipeline.model_dump(mode="json")
        result["warnings"] = [{"warning": sentence} for sentence in found.warnings]
        return result


def counts(manifest: Manifest, tasks: Sequence[Task]) -> list[dict[str, object]]:
    """Count subjects, pairs, targets without a source, and pairs left out, a row per split."""
    rows: list[dict[str, object]] = []
    for split in SPLITS:
        for task in tasks:
            pairs = manifest.pairs(*task, split)
            targets = manifest.entries(split, task.target)
            rows.append({
                "split": split,
                "task": str(task),
                "subjects": len(manifest.subjects(split)),
                "pairs": len(pairs),
                "unpaired_targets": len(targets) - len(pairs),
                "unpaired_sources": len(manifest.entries(split, task.source)) - len(pairs),
                "marked": manifest.left_out(*task, split) or "-",
            })  # fmt: skip
    return rows
