"""Quality for the money: a few U-Nets, each trained as long, timed and scored on the val split.

`python -m benchmarks.speed.architectures --manifest brain.csv` writes architectures.csv, and
`python -m benchmarks.speed` puts it into docs/performance.md. Time is that of 160 x 144 slices, in
turns with the shipped network; quality is fidelity mode's on 2 mm slices after a short training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from benchmarks.translation.cells import trained
from benchmarks.translation.cohorts import Changes, Cohort, CohortData
from medtrans.config.recipes import load_pipeline
from medtrans.config.terms import Task
from medtrans.networks.binding import build_schedule
from medtrans.networks.unet import inference_copy, residual_network
from medtrans.system.devices import choose_precision
from medtrans.training.data import StageExamples
from medtrans.training.stages import residual_stage
from medtrans.training.validation import Validation, translated, validate

RESULTS = Path(__file__).parent / "architectures.csv"
SHIPPED: Changes = load_pipeline("base", {"tasks": ["t1-to-t2"]}).network.model_dump()
SETTINGS: dict[str, Changes] = {
    "shipped": {},
    "half the width": {"channels": [32, 64, 64, 64]},
    "three levels": {"channels": [64, 96, 128], "attention": [False] * 3},
    "two blocks a level": {"blocks": 2},
    "no folding": {"unshuffle": 1, "channels": [32, 64, 96, 128]},
    "folding 4 x 4": {"unshuffle": 4, "channels": [96, 128, 128], "attention": [False] * 3},
    "attention at the bottom": {"attention": [False, False, False, True]},
}
_REPEATS = 5
_ITERATIONS = 200
_SLICES = 32  # of each val subject
_BATCH = (4, 4, 160, 144)


def main() -> None:
    """Time and train every setting that has no row yet."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.architectures")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/architectures"))
    parser.add_argument("--seeds", default="0")
    arguments = parser.parse_args()
    cohort = Cohort("brain", Task("t1", "t2"), arguments.manifest, {})
    reference = _network(SETTINGS["shipped"])
    rows = []
    for name, setting in SETTINGS.items():
        network = _network(setting)
        scores = [
            _quality(cohort, name, setting, int(s), arguments.folder)
            for s in arguments.seeds.split(",")
        ]
        rows.append(
            {
                "network": name,
                "parameters_m": sum(p.numel() for p in network.parameters()) / 1e6,
                "forward_time": _ratio(network, reference),
                "psnr_fit": statistics.mean(scores),
                "seeds": len(scores),
            }
        )
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(RESULTS, index=False, float_format="%.4g")


def _network(setting: Changes) -> nn.Module:
    pipeline = load_pipeline(
        "base",
        {"tasks": ["t1-to-t2"], "network": {**SHIPPED, **setting}, "volume": {"divisible": 16}},
    )
    device = torch.device("cpu")
    return inference_copy(residual_network(pipeline, 0), device, choose_precision(device))


def _ratio(network: nn.Module, reference: nn.Module) -> float:
    """Time of a forward pass over the reference's: the median of ratios taken in turns."""
    x, t = torch.randn(_BATCH), torch.full((_BATCH[0],), 500.0)

    def once(net: nn.Module) -> float:
        start = time.perf_counter()
        net(x, t)
        return time.perf_counter() - start

    with torch.inference_mode():
        once(network), once(reference)
        return statistics.median(once(network) / once(reference) for _ in range(_REPEATS))


def _quality(cohort: Cohort, name: str, setting: Changes, seed: int, folder: Path) -> float:
    """Fidelity mode's foreground PSNR after a linear fit, mean over the val subjects, in dB."""
    window = {"patch": [80, 80], "iterations": _ITERATIONS}
    changes = {
        "network": {**SHIPPED, **setting},
        "volume": {"divisible": 16},
        "noise": window,
        "residual": window,
    }
    pipeline = cohort.pipeline(changes)
    examples = CohortData(cohort, pipeline, folder).residual("all", seed)
    stage = residual_stage(pipeline, StageExamples(examples.train), seed)
    run = folder / name.replace(" ", "-") / str(seed)
    network = trained(stage, pipeline, run, seed)
    predict = translated(build_schedule(pipeline), None, pipeline)
    device = torch.device("cpu")
    validation = Validation(examples.val, predict, pipeline.volume, _SLICES)
    outcome = validate(network, validation, device)
    return outcome.scores["fidelity_psnr_fit"]


if __name__ == "__main__":
    main()
