"""The model package that a run ends with."""

from __future__ import annotations

from medtrans.package.look import Known
from medtrans.package.store import TrainedModel, save_package
from medtrans.preprocessing.intensity import Profile, typical_profile
from medtrans.system.progress import say
from medtrans.training.checkpoint import Weights
from medtrans.training.detail_of_run import detail_of_run
from medtrans.training.error_of_run import error_of_run
from medtrans.training.examples import prepared
from medtrans.training.look import learn
from medtrans.training.look_volumes import shown_of
from medtrans.training.record import record_of
from medtrans.training.setup import TrainingSetup


def save_model(setup: TrainingSetup, noise: Weights | None, residual: Weights) -> None:
    """Write the run's model package.

    Outputs get the median intensity profile of the train split's targets.

    Parameters
    ----------
    setup : TrainingSetup
    noise : dict of Tensor or None
        State dict; None leaves the noise stage out.
    residual : dict of Tensor
        State dict.
    """
    cache, data = setup.cache, setup.data
    profiles: dict[str, Profile] = {
        contrast: typical_profile(volume.profile for volume in prepared(entries, cache))
        for contrast, entries in data.targets.items()
    }
    model = TrainedModel(
        pipeline=setup.pipeline,
        profiles=profiles,
        residual=residual,
        noise=noise,
        masked_background=_masked(setup),
        training=record_of(setup),
        look=_look(setup),
        error=error_of_run(setup, residual),
        detail={} if noise is None else detail_of_run(setup, residual),
    )
    save_package(setup.plan.model_folder, model)


def _masked(setup: TrainingSetup) -> bool:
    """Whether the background of every source of the pairs is masked, or was for the model."""
    if setup.keeps_residual and setup.initial is not None:
        return setup.initial.masked_background
    sources = [pair.source for pairs in setup.data.pairs.values() for pair in pairs]
    return bool(sources) and all(setup.cache.get(source).masked for source in sources)


def _look(setup: TrainingSetup) -> Known | None:
    """Learn from the run's train volumes what to compare an input with, or keep what was learnt.

    The look of the model that the run starts from is kept where none is to be learnt, if it knows
    the sources' contrasts.
    """
    if not setup.pipeline.look.examples:
        before = None if setup.initial is None else setup.initial.look
        sources = {task.source for task in setup.pipeline.parsed_tasks}
        return before if before is not None and sources <= set(before.contrasts) else None
    say("Learning to tell the contrasts apart, to look at inputs with.")
    return learn(shown_of(setup), setup.pipeline.look, setup.plan.seed)
