"""The model package that a run ends with."""

from __future__ import annotations

import numpy as np

from medtrans.data.manifest import Entry
from medtrans.package.look import Known
from medtrans.package.store import TrainedModel, save_package
from medtrans.preprocessing.intensity import Profile, typical_profile
from medtrans.system.progress import say
from medtrans.training.cache import CachedVolume
from medtrans.training.checkpoint import Weights
from medtrans.training.examples import prepared
from medtrans.training.look import Shown, learn
from medtrans.training.setup import TrainingSetup
from medtrans.training.step import precision_of
from medtrans.version import __version__
from medtrans.volumes.geometry import spacing_mm


def save_model(setup: TrainingSetup, noise: Weights | None, residual: Weights) -> None:
    """Write the run's model package.

    Outputs get the median intensity profile of the train split's targets. The background counts as
    masked when that of every source volume of the pairs is.

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
    sources = [pair.source for pairs in data.pairs.values() for pair in pairs]
    model = TrainedModel(
        pipeline=setup.pipeline,
        profiles=profiles,
        residual=residual,
        noise=noise,
        masked_background=bool(sources) and all(cache.get(source).masked for source in sources),
        training=_record(setup),
        look=_learnt_look(setup),
    )
    save_package(setup.plan.model_folder, model)


def _learnt_look(setup: TrainingSetup) -> Known | None:
    """Learn from the run's train volumes what to compare an input with."""
    config, data, cache = setup.pipeline.look, setup.data, setup.cache
    if not config.examples:
        return None
    pairs = [pair for of_task in data.pairs.values() for pair in of_task]
    listed = [entry for pair in pairs for entry in (pair.source, pair.target)]
    listed += [entry for entries in data.targets.values() for entry in entries]
    entries = list({entry.path: entry for entry in listed}.values())
    if len(entries) > config.volumes:
        order = np.random.default_rng(setup.plan.seed).permutation(len(entries))
        entries = [entries[row] for row in sorted(order[: config.volumes])]
    say("Learning to tell the contrasts apart, to look at inputs with.")
    return learn([_shown(entry, cache.get(entry)) for entry in entries], config, setup.plan.seed)


def _shown(entry: Entry, volume: CachedVolume) -> Shown:
    patient = f"{entry.subject}/{entry.session}"
    spacing = spacing_mm(volume.grid.affine).tolist()
    return Shown.of(patient, entry.contrast, volume.image, spacing)


def _record(setup: TrainingSetup) -> dict[str, object]:
    """Describe the training for the model card and `medtrans models`, naming no subject."""
    return {
        "medtrans_version": __version__,
        "unpaired_targets": {c: len(entries) for c, entries in setup.data.targets.items()},
        "pairs": {str(task): len(pairs) for task, pairs in setup.data.pairs.items()},
        "noise_iterations": setup.pipeline.noise.iterations,
        "residual_iterations": setup.pipeline.residual.iterations,
        "seed": setup.plan.seed,
        "precision": {
            stage: precision_of(setup.pipeline.stage(stage), setup.device)
            for stage in setup.plan.trained
        },
        "started_from": None if setup.initial is None else setup.initial.name,
    }
