"""Which of a run's volumes the look at an input is learnt from."""

from __future__ import annotations

import numpy as np

from medtrans.data.manifest import Entry
from medtrans.training.cache import CachedVolume
from medtrans.training.look import Shown
from medtrans.training.setup import TrainingSetup
from medtrans.volumes.geometry import spacing_mm


def shown_of(setup: TrainingSetup) -> list[Shown]:
    """Return the run's train volumes as the look sees them; of many, as many as the recipe says."""
    config, data, cache = setup.pipeline.look, setup.data, setup.cache
    pairs = [pair for of_task in data.pairs.values() for pair in of_task]
    listed = [entry for pair in pairs for entry in (pair.source, pair.target)]
    listed += [entry for entries in data.targets.values() for entry in entries]
    entries = list({entry.path: entry for entry in listed}.values())
    if len(entries) > config.volumes:
        order = np.random.default_rng(setup.plan.seed).permutation(len(entries))
        entries = [entries[row] for row in sorted(order[: config.volumes])]
    return [_shown(entry, cache.get(entry)) for entry in entries]


def _shown(entry: Entry, volume: CachedVolume) -> Shown:
    patient = f"{entry.subject}/{entry.session}"
    spacing = spacing_mm(volume.grid.affine).tolist()
    return Shown.of(patient, entry.contrast, volume.image, spacing)
