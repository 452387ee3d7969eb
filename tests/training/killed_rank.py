"""What each process of `test_parallel` runs: torchrun killed_rank.py MANIFEST OUT RECIPE.TOML."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from torch import Tensor

from medtrans.cli.app import main
from medtrans.training import stages

_KILLED = ("1", "0", "nobody")  # the rank, at the first start, the second, the third
_LOSS = stages.residual_loss
_calls: list[int] = []


def _killed(*arguments: Any) -> Tensor:
    """End this process, as a preempted node would, in the middle of the fourth step."""
    _calls.append(len(_calls))
    if len(_calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return _LOSS(*arguments)


if __name__ == "__main__":
    manifest, out, recipe = sys.argv[1:]
    if os.environ["RANK"] == _KILLED[int(os.environ["TORCHELASTIC_RESTART_COUNT"])]:
        stages.residual_loss = _killed
    sys.argv[1:] = ["train", "--manifest", manifest, "--out", out, "--pipeline", recipe]
    sys.argv += ["--stage", "residual", "--device", "cpu"]
    main()
