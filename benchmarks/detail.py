"""The detail that a model's estimates lack, seen on sites that taught it nothing.

    python -m benchmarks.detail fold MODEL --manifest FOLD.csv --out fold.json
    python -m benchmarks.detail score MODEL --manifest FOLD.csv --gains other.json
    python -m benchmarks.detail learn bundles/brain_mri fold.json other.json
    python -m benchmarks.detail picture demo/mni152_t1.nii.gz docs/pictures/realistic.png

`fold` takes a model of one site and measures gains on the val split of its manifest, which is of
other sites. `score` applies the gains of another fold to that split, and compares texture and PSNR
before and after. `learn` gives a package the lowest of the folds' gains. `picture` draws parts of a
T1, and of the T2 that the shipped model makes of it in two modes, in three planes, three times as
large.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from medtrans.config.terms import Mode, Task
from medtrans.data.manifest import Manifest
from medtrans.evaluate.metrics import linear_fit, psnr
from medtrans.evaluate.realism import realism_distance
from medtrans.evaluate.texture import Texture
from medtrans.inference.estimate import estimated
from medtrans.inference.sampling import SliceSampler
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.package.detail import Gains
from medtrans.package.folder import METADATA
from medtrans.package.store import load_package
from medtrans.preprocessing.detail import least, raised
from medtrans.report.pictures import save_grid
from medtrans.system.devices import tune_process
from medtrans.training.cache import VolumeCache
from medtrans.training.detail import Volumes, measured
from medtrans.training.examples import select_data
from medtrans.volumes import read_volume
from medtrans.volumes.geometry import RAS_LABELS, spacing_mm
from medtrans.volumes.voxels import Mask, Voxels

_AXES = (2, 1, 0)  # axial, coronal, sagittal
_SHOWN_MODES: tuple[Mode, ...] = ("fidelity", "realistic")
_TILE = 84  # voxels of a picture's tile


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fold, score = commands.add_parser("fold"), commands.add_parser("score")
    for command in (fold, score):
        command.add_argument("model")
        command.add_argument("--manifest", type=Path, required=True)
        command.add_argument("--tasks", help="with commas; all by default")
        command.add_argument("--cache", type=Path, default=Path("runs/detail"))
    fold.add_argument("--out", type=Path, required=True)
    score.add_argument("--gains", type=Path, required=True)
    learn = commands.add_parser("learn")
    learn.add_argument("package", type=Path)
    learn.add_argument("folds", type=Path, nargs="+")
    picture = commands.add_parser("picture")
    picture.add_argument("source", type=Path)
    picture.add_argument("out", type=Path)
    arguments = parser.parse_args()
    tune_process()
    if arguments.command == "picture":
        draw(arguments.source, arguments.out)
        return
    if arguments.command == "learn":
        teach(arguments.package, [json.loads(path.read_text()) for path in arguments.folds])
        return
    sampler = SliceSampler(load_package(arguments.model), torch.device("cpu"))
    pairs = val_pairs(sampler, arguments.manifest, arguments.cache, arguments.tasks)
    if arguments.command == "fold":
        arguments.out.write_text(json.dumps(measured(sampler, pairs), indent=1))
    else:
        print_scores(sampler, pairs, json.loads(arguments.gains.read_text()))


def val_pairs(
    sampler: SliceSampler, manifest: Path, folder: Path, chosen: str | None
) -> dict[Task, list[Volumes]]:
    """Prepare the pairs of the val split."""
    pipeline = sampler.package.pipeline
    tasks = [Task.parse(name) for name in chosen.split(",")] if chosen else pipeline.parsed_tasks
    data = select_data(Manifest.read(manifest), tasks, None, 0)
    get = VolumeCache(folder, pipeline).get
    return {
        task: [(get(pair.source), get(pair.target)) for pair in of_task]
        for task, of_task in data.validation_pairs.items()
    }


def teach(package: Path, folds: list[Gains]) -> None:
    """Write the lowest gains of the folds into a package."""
    gains = {
        task: [round(gain, 3) for gain in least(*(fold[task] for fold in folds))]
        for task in folds[0]
    }
    path = package / METADATA
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["medtrans"]["detail"] = gains
    path.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def draw(source: Path, out: Path) -> None:
    """Draw a source beside what fidelity and realistic mode make of it."""
    translator, volume = Translator.load(), read_volume(source)
    shown = [volume.numpy()]
    for mode in _SHOWN_MODES:
        made = translator.translate_volume(volume, Settings(task="t1-to-t2", mode=mode))
        shown.append(made.voxels)
    turned = [
        Orientation("RAS", labels=RAS_LABELS)(MetaTensor(v[None], affine=volume.affine))[0]
        for v in shown
    ]
    images = [v.numpy() / np.percentile(v[v > 0], 99.5) for v in turned]
    middle = [size // 2 for size in images[0].shape]
    rows = []
    for axis, offset in ((2, 4), (1, 5), (0, -14)):  # off the midline, where there is more to see
        box = [slice(m - _TILE // 2, m + _TILE // 2) for m in middle]
        box[axis] = slice(middle[axis] + offset, middle[axis] + offset + 1)
        rows.append([np.rot90(image[tuple(box)].squeeze(axis)) for image in images])
    save_grid(out, rows, ["T1", *_SHOWN_MODES], scale=3)


def print_scores(sampler: SliceSampler, pairs: Mapping[Task, list[Volumes]], gains: Gains) -> None:
    """Print a row for each pair before its detail is raised, and after."""
    print("| task | pair | detail | PSNR | energy | correlation | slices | grid | distance |")
    for task, of_task in pairs.items():
        for number, pair in enumerate(of_task):
            source, target = (volume.image for volume in pair)
            mask = (source > -1) & (target > -1)
            made = estimated(sampler, task, source, spacing_mm(pair[0].grid.affine).tolist())
            more = np.clip(raised(made, source > -1, gains[str(task)]), -1, 1)
            for name, volume in (("as it is", made), ("raised", more)):
                print(
                    f"| {task} | {number} | {name} | {_cells(volume, target, mask)} |", flush=True
                )


def _cells(made: Voxels, target: Voxels, mask: Mask) -> str:
    image, truth = (np.where(mask, (v + 1) / 2, np.float32(0)) for v in (made, target))
    scores = [Texture.of(image, mask, axis).scores(Texture.of(truth, mask, axis)) for axis in _AXES]
    axial = scores[0]
    slices = ", ".join(f"{r['slice_ratio']:.2f}" for r in scores)
    distance = realism_distance(np.moveaxis(image, 2, 0)[::4], np.moveaxis(truth, 2, 0)[::4])
    fitted = psnr(linear_fit(image, truth, mask), truth, mask)
    return (
        f"{fitted:.2f} | {axial['high_frequency_ratio']:.2f} | "
        f"{axial['detail_correlation']:.2f} | {slices} | "
        f"{axial['checkerboard_ratio']:.2f} | {distance:.2f}"
    )


if __name__ == "__main__":
    main()
