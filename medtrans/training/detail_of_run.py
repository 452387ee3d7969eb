"""How much detail a run's estimates lack: seen on its val pairs, or known of before, or not known.

Subjects that taught the network would show less: what it has seen it blurs less.
"""

from __future__ import annotations

from medtrans.inference.sampling import SliceSampler
from medtrans.package.detail import Gains
from medtrans.package.store import ModelPackage
from medtrans.system.progress import say
from medtrans.training.checkpoint import Weights
from medtrans.training.detail import measured
from medtrans.training.error import Taught
from medtrans.training.setup import TrainingSetup


def detail_of_run(setup: TrainingSetup, residual: Weights) -> Gains:
    """Measure a run's gains, where the recipe asks for them.

    Without val pairs they are those of the model that the run starts from.

    Parameters
    ----------
    setup : TrainingSetup
    residual : dict of Tensor
        The finished residual stage's weights.
    """
    initial, pairs, most = setup.initial, setup.data.validation_pairs, setup.pipeline.detail.pairs
    if not most:
        return {}
    if setup.keeps_residual or not any(pairs.values()):
        before = {} if initial is None else initial.detail
        return {task: list(before[task]) for task in setup.pipeline.tasks if task in before}
    say("Comparing the detail of what the model makes with that of real targets.")
    taught = Taught.of(setup.pipeline, residual, setup.device, setup.plan.seed)
    package = ModelPackage("", "", setup.pipeline, {}, taught.residual, None, False)
    get = setup.cache.get
    volumes = {
        task: [(get(pair.source), get(pair.target)) for pair in of_task[:most]]
        for task, of_task in pairs.items()
    }
    return measured(SliceSampler(package, setup.device), volumes)
