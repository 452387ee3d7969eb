"""What a run's model package says of its training."""

from __future__ import annotations

from medtrans.training.setup import TrainingSetup
from medtrans.training.step import precision_of
from medtrans.version import __version__


def record_of(setup: TrainingSetup) -> dict[str, object]:
    """Describe the training for the model card and `medtrans models`, naming no subject."""
    return {
        "medtrans_version": __version__,
        "unpaired_targets": {c: len(entries) for c, entries in setup.data.targets.items()},
        "pairs": {str(task): len(pairs) for task, pairs in setup.data.pairs.items()},
        "noise_iterations": setup.pipeline.noise.iterations,
        "residual_iterations": setup.residual_iterations,
        "seed": setup.plan.seed,
        "precision": {
            stage: precision_of(setup.pipeline.stage(stage), setup.device)
            for stage in setup.plan.trained
        },
        "started_from": None if setup.initial is None else setup.initial.name,
    }
