"""The expected error: teach it to a package, and score it on sites that taught it nothing.

    python -m benchmarks.uncertainty fold MODEL --manifest FOLD.csv --out fold.npz
    python -m benchmarks.uncertainty score fold.npz other.npz
    python -m benchmarks.uncertainty learn bundles/brain_mri --manifest ALL.csv --seen *.npz

`fold` takes a model of one site: the train split of its manifest taught it, the val split is of
other sites. It learns the model's error on the former and looks at the latter, beside what passes
that differ make of them. `score` calibrates each fold on the others. `learn` gives a package a
network of its own training subjects, and the calibration of the folds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from medtrans.data.manifest import Manifest
from medtrans.diffusion import middle
from medtrans.evaluate.uncertainty import Uncertainty, scores_of
from medtrans.package.error import Calibration, KnownError, stored_error
from medtrans.package.folder import ERROR, METADATA
from medtrans.package.store import load_package
from medtrans.system.devices import tune_process
from medtrans.training.cache import VolumeCache
from medtrans.training.data import Example, StageExamples
from medtrans.training.error import Taught, learnt, seen_errors, slices_for
from medtrans.training.examples import residual_examples, select_data
from medtrans.volumes.voxels import Voxels

_KEPT = 20_000  # voxels of a pair
_CPU = torch.device("cpu")


class Seen(NamedTuple):
    """What one pair of a fold shows: (n,) each."""

    subject: str
    task: str
    answers: Voxels
    errors: Voxels
    spread: Voxels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fold = commands.add_parser("fold")
    fold.add_argument("model")
    fold.add_argument("--out", type=Path, required=True)
    learn = commands.add_parser("learn")
    learn.add_argument("package", type=Path)
    learn.add_argument("--seen", type=Path, nargs="+", required=True)
    for command in (fold, learn):
        command.add_argument("--manifest", type=Path, required=True)
        command.add_argument("--cache", type=Path, default=Path("runs/uncertainty"))
    score = commands.add_parser("score")
    score.add_argument("folds", type=Path, nargs="+")
    arguments = parser.parse_args()
    tune_process()
    if arguments.command == "fold":
        save(arguments.out, look_at_fold(arguments.model, arguments.manifest, arguments.cache))
    elif arguments.command == "learn":
        teach(arguments.package, arguments.manifest, arguments.cache, arguments.seen)
    else:
        print_scores([read(path) for path in arguments.folds])


def look_at_fold(model: str, manifest: Path, cache: Path) -> Iterator[Seen]:
    """Learn a model's error on what taught it, and compare the answers on its val split."""
    taught, examples, subjects = _taught(model, manifest, cache)
    network = learnt(taught, examples.train)
    found = zip(examples.val, subjects, seen_errors(taught, network, examples.val), strict=True)
    for example, subject, (answers, errors) in found:
        kept = np.random.default_rng(0).permutation(len(errors))[:_KEPT]
        spread = np.concatenate(list(_spreads(taught, example)))
        task = str(taught.pipeline.parsed_tasks[example.label])
        yield Seen(subject, task, answers[kept], errors[kept], spread[kept])


def teach(package: Path, manifest: Path, cache: Path, folds: Sequence[Path]) -> None:
    """Write what a package knows of its error into it; its other weights stay."""
    taught, examples, _ = _taught(str(package), manifest, cache)
    seen = [pair for path in folds for pair in read(path)]
    calibration = calibrated(seen)
    record, weights = stored_error(KnownError(learnt(taught, examples.train), calibration))
    (package / ERROR).write_bytes(weights)
    metadata = json.loads((package / METADATA).read_text(encoding="utf-8"))
    metadata["medtrans"]["error"] = record
    (package / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def print_scores(folds: Sequence[Sequence[Seen]]) -> None:
    """Print a table: each pair of a fold, calibrated on the other folds."""
    rows = []
    for number, fold in enumerate(folds):
        others = [pair for other in (*folds[:number], *folds[number + 1 :]) for pair in other]
        calibration = calibrated(others)
        for pair in fold:
            known = Uncertainty(calibration(pair.answers), calibration.within)
            by_network = scores_of(known.voxels, pair.errors, known.within)
            by_spread = scores_of(pair.spread, pair.errors, known.within)
            rows.append([
                by_spread["uncertainty_spearman"], by_spread["uncertainty_auroc"],
                by_network["uncertainty_spearman"], by_network["uncertainty_auroc"],
                by_network["coverage_50"], by_network["coverage_90"],
                attainable(known.voxels), float(known.voxels.mean() / pair.errors.mean()),
            ])  # fmt: skip
            print(f"| {pair.subject} | {pair.task} | {_cells(rows[-1])} |")
    table = np.array(rows)
    for name, values in (
        ("mean", table.mean(0)), ("least", table.min(0)), ("most", table.max(0))
    ):  # fmt: skip
        print(f"| {name} | {len(table)} pairs | {_cells(values)} |")


def calibrated(seen: Sequence[Seen]) -> Calibration:
    """Learn what answers are worth."""
    subjects = len({pair.subject for pair in seen})
    return Calibration.fit([(pair.answers, pair.errors) for pair in seen], subjects)


def attainable(expected: Voxels) -> float:
    """Return the rank correlation that errors would have if they were Laplace's of this scale."""
    drawn = np.random.default_rng(0).exponential(np.maximum(expected, 1e-9))
    return float(np.corrcoef(rankdata(expected), rankdata(drawn))[0, 1])


def save(path: Path, seen: Iterator[Seen]) -> None:
    """Write what pairs show."""
    arrays = {f"{s.subject}/{s.task}": np.stack(s[2:]).astype(np.float32) for s in seen}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read(path: Path) -> list[Seen]:
    """Read what `save` wrote."""
    with np.load(path) as file:
        return [Seen(*name.split("/"), *file[name]) for name in file.files]


def _taught(model: str, manifest: Path, cache: Path) -> tuple[Taught, StageExamples, list[str]]:
    """Return a model, the pairs that taught it and others, and whose the others are."""
    package = load_package(model)
    pipeline = package.pipeline
    data = select_data(Manifest.read(manifest), pipeline.parsed_tasks, None, 0)
    examples = residual_examples(data, VolumeCache(cache, pipeline), pipeline)
    subjects = [pair.source.subject for of in data.validation_pairs.values() for pair in of]
    taught = Taught.of(pipeline, package.residual.state_dict(), _CPU, 0)
    return taught, examples, subjects


def _spreads(taught: Taught, example: Example) -> Iterator[Voxels]:
    """Give the standard deviation over six passes, (n,), blurred by three pixels, slice by slice.

    The passes see the source as it is, mirrored, under two powers, mirrored under one of them, and
    with its darkest tissue lifted.
    """
    for batch in slices_for(taught, example):
        assert batch.source is not None
        with taught.autocast:
            made = [
                back(taught.made_of(change(batch.source), batch.label, batch.eps))
                for change, back in _PASSES
            ]
        spread = torch.stack(made).std(dim=0)
        blurred = torch.nn.functional.avg_pool2d(spread, 3, 1, 1)
        inside = (middle(batch.source) > -1) & (batch.target > -1)
        yield blurred[inside].numpy()


def _mirrored(images: Tensor) -> Tensor:
    return images.flip(2)


def _power(images: Tensor, power: float) -> Tensor:
    return torch.where(images > -1, 2 * ((images + 1) / 2) ** power - 1, images)


def _lifted(images: Tensor, share: float) -> Tensor:
    return torch.where(images > -1, 1 - (1 - share) * (1 - images), images)


def _same(images: Tensor) -> Tensor:
    return images


_PASSES = (
    (_same, _same),
    (_mirrored, _mirrored),
    (lambda images: _power(images, 0.7), _same),
    (lambda images: _power(images, 1.4), _same),
    (lambda images: _power(_mirrored(images), 0.7), _mirrored),
    (lambda images: _lifted(images, 0.25), _same),
)


def _cells(values: Sequence[float]) -> str:
    return " | ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
