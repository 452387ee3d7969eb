"""What each process of `test_parallel` runs: torchrun in_parallel.py MANIFEST OUT RECIPE."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from medtrans.config.recipes import pipeline_from_dict
from medtrans.data.manifest import Manifest
from medtrans.errors import Interrupted
from medtrans.training import stages
from medtrans.training.parallel import Group, joined
from medtrans.training.plan import TrainingPlan
from medtrans.training.run import train

_LOSS = stages.noise_loss
_calls: list[int] = []


def main(manifest: str, out: str, recipe: str) -> None:
    """Train; press Ctrl-C in one process at the second noise step; go on to the end."""
    pipeline = pipeline_from_dict(json.loads(recipe), "the test")

    def plan(*, resume: bool) -> TrainingPlan:
        read = Manifest.read(Path(manifest))
        return TrainingPlan(pipeline, read, Path(out), device="cpu", resume=resume)

    with joined() as group:
        stages.noise_loss = _interrupted if group.rank == 1 else _LOSS
        try:
            train(plan(resume=False), group)
        except Interrupted as error:
            _tell(group, stopped=str(error))
        _tell(group, model=str(train(plan(resume=True), group)))


def _interrupted(*arguments: Any) -> Tensor:
    _calls.append(len(_calls) + 1)
    if _calls[-1] == 3:  # the batches come in two parts
        os.kill(os.getpid(), signal.SIGINT)
    return _LOSS(*arguments)


def _tell(group: Group, **facts: str) -> None:
    line = json.dumps({"rank": group.rank, "world": group.world, **facts})
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
