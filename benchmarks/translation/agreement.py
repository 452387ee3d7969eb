"""Whether the benchmark's own path through slices and `Translator` give the same scores.

`python -m benchmarks.translation.agreement --manifest brain.csv`. One model is trained as a cell of
the benchmark; each volume, as the networks see it, is translated by both and scored by the same
function. What differs is all that lies around the networks: margins, cropping, padding, intensities
and the way back to the grid. docs/benchmark.md has what it printed.
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.data import MetaTensor
from scipy import ndimage

from benchmarks.translation.cells import Cell, trained_drdd
from benchmarks.translation.cohorts import HERE, Cohort, CohortData
from benchmarks.translation.methods import drdd_predict
from benchmarks.translation.scoring import compared, margin_of, slices_of, translate_slices
from medtrans.config.terms import MODES, Mode, Task
from medtrans.diffusion import Steps
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.package.store import TrainedModel, save_package
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.slices import cut, plan_slices
from medtrans.training.data import Example
from medtrans.volumes.voxels import Voxels

_BLACK = 0.1  # of 1000: tells the darkest tissue from background
_SHOWN = ("psnr_fit", "psnr", "ssim_fit")


def main() -> None:
    """Train what is not trained yet, score it twice and print both."""
    arguments = _arguments()
    torch.set_num_threads(1)
    known = tomllib.loads((HERE / "cohorts.toml").read_text())[arguments.cohort]
    recipe = known.get("recipe", {})
    cohort = Cohort(arguments.cohort, Task.parse(known["task"]), arguments.manifest, recipe)
    variant = tomllib.loads((HERE / "variants.toml").read_text())[arguments.variant]
    cell = Cell(cohort, arguments.variant, variant, "all", 0)
    data = CohortData(cohort, cohort.pipeline(cell.changes), arguments.folder)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = _Paths(cell, data, arguments.folder, Path(folder) / "model")
        for split in ("train", "val", "test"):
            for subject, example in data.scored(split):
                rows += paths.scored(subject, example)
    table = pd.DataFrame(rows)
    by = [table[f"{name} slices"] - table[f"{name} Translator"] for name in _SHOWN]
    apart = table[["subject", "mode"]].assign(**dict(zip(_SHOWN, by, strict=True)))
    print(table.round(3).to_string(index=False))
    print(f"\nlargest difference over {table.subject.nunique()} volumes:")
    print(apart.groupby("mode", sort=False)[list(_SHOWN)].agg(lambda d: d.abs().max()).round(4))


class _Paths:
    """A trained cell, ready to translate a volume by either path."""

    def __init__(self, cell: Cell, data: CohortData, folder: Path, package: Path) -> None:
        self.pipeline, self.task = data.pipeline, cell.cohort.task
        self.networks = trained_drdd(cell, data.pipeline, data, folder)
        residual, noise = (network and network.state_dict() for network in self.networks)
        profiles = {name: Profile(0.0, 1000.0) for name in data.pipeline.contrasts}
        save_package(
            package,
            TrainedModel(data.pipeline, profiles, residual, noise, True, training={}),
        )
        self.translator = Translator.load(package, "cpu")

    def scored(self, subject: str, example: Example) -> list[dict[str, object]]:
        """Score a subject by both paths, in each mode."""
        target = slices_of(example, "target")[:, 0]
        rows = []
        for mode in MODES:
            scores = {
                "slices": compared(self._by_slices(example, mode), target),
                "Translator": compared(self._by_translator(example, mode), target),
            }
            found = {f"{s} {way}": scores[way][s] for s in _SHOWN for way in scores}
            rows.append({"subject": subject, "mode": mode, **found})
        return rows

    def _by_slices(self, example: Example, mode: Mode) -> Voxels:
        """Translate as the benchmark does."""
        residual, noise = self.networks
        steps = Steps(*self.pipeline.sampling.steps(mode))
        predict = drdd_predict(residual, noise, self.pipeline, self.task, steps)
        source = slices_of(example, "source")
        correlation = self.pipeline.sampling.correlation_length
        predicted = translate_slices(predict, source, 0, correlation)
        return np.where(margin_of(source), predicted, np.float32(-1))

    def _by_translator(self, example: Example, mode: str) -> Voxels:
        """Translate as users do, and cut the result as the benchmark's slices are."""
        lead = example.lead
        voxels = (lead.image + 1) * np.float32(500)
        inside = ndimage.binary_fill_holes(voxels > 0)
        voxels[inside] += np.float32(_BLACK)  # clipped to -1 is not background
        volume = MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(lead.grid.affine))
        settings = Settings(task=str(self.task), mode=mode, brain="none")
        made = self.translator.translate_volume(volume, settings).voxels / np.float32(500) - 1
        [plan] = plan_slices(self.pipeline.slices, made.shape)
        (top, bottom), (left, right) = lead.box
        kept = cut(made, plan)[list(lead.occupied), top:bottom, left:right]
        _, *size = slices_of(example, "target")[:, 0].shape
        padding = [(0, full - part) for full, part in zip(size, kept.shape[1:], strict=True)]
        return np.pad(kept, [(0, 0), *padding], constant_values=-1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.translation.agreement")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--cohort", default="brain", help="a name of cohorts.toml")
    parser.add_argument("--variant", default="drdd-paper", help="of variants.toml")
    parser.add_argument("--folder", type=Path, default=Path("runs/translation"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
