"""What a run's model knows of its own error: learnt from its pairs, or kept, or not known."""

from __future__ import annotations

from medtrans.package.error import Calibration, KnownError
from medtrans.package.store import ModelPackage
from medtrans.system.progress import say
from medtrans.training.checkpoint import Weights
from medtrans.training.error import Taught, learnt, seen_errors
from medtrans.training.examples import residual_examples
from medtrans.training.setup import TrainingSetup


def error_of_run(setup: TrainingSetup, residual: Weights) -> KnownError | None:
    """Learn how far off a run's model is.

    The error of a residual stage that is kept stays known, if it does the same tasks.

    Parameters
    ----------
    setup : TrainingSetup
    residual : dict of Tensor
        The finished residual stage's weights.

    Returns
    -------
    KnownError or None
        None where the recipe leaves it out, or there is no pair to learn it from.
    """
    initial, pipeline = setup.initial, setup.pipeline
    if setup.keeps_residual and initial is not None:
        return initial.error if pipeline.tasks == initial.pipeline.tasks else None
    if not pipeline.error.iterations or not any(setup.data.pairs.values()):
        return None
    say("Learning how far off the model is.")
    taught = Taught.of(pipeline, residual, setup.device, setup.plan.seed)
    examples = residual_examples(setup.data, setup.cache, pipeline)
    network = learnt(taught, examples.train)
    if examples.val:
        pairs = [pair for of_task in setup.data.validation_pairs.values() for pair in of_task]
        subjects = len({pair.source.subject for pair in pairs})
        calibration = Calibration.fit(seen_errors(taught, network, examples.val), subjects)
    else:
        calibration = _unseen(initial)
    return KnownError(network.cpu(), calibration)


def _unseen(initial: ModelPackage | None) -> Calibration:
    """Without val pairs, take the calibration of the model that the run starts from, if any."""
    before = None if initial is None else initial.error
    if before is not None and before.calibration.subjects:
        say("No val pairs: what errors are worth is taken from the model that the run starts from.")
        return before.calibration
    say("No val pairs: errors were seen on training subjects alone, where they are smaller.")
    return Calibration.unseen()
