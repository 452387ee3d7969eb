"""The look at an input: teach it to a package that has none, and score it on real volumes.

    python -m benchmarks.look learn bundles/brain_mri --manifest DATA/brain.csv --splits train,val
    python -m benchmarks.look matrix DATA [--splits test]

`learn` does what the end of `medtrans train` does, and leaves the package's weights as they are.
`matrix` puts every volume of DATA's manifests into every task of the model, as an array without a
name, and prints what is warned about.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.data import MetaTensor

from medtrans.config.schema import Pipeline
from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest
from medtrans.errors import MedtransError
from medtrans.inference.input_checks import check_input
from medtrans.inference.look import Look, look_at
from medtrans.package.folder import DEFAULT_MODEL, LOOK, METADATA, read_recipe
from medtrans.package.look import stored
from medtrans.package.store import ModelPackage, load_package
from medtrans.preprocessing.foreground import find_region
from medtrans.preprocessing.model_space import ModelSpace, to_model_space
from medtrans.system.devices import tune_process
from medtrans.training.look import Shown, learn
from medtrans.volumes import read_volume
from medtrans.volumes.geometry import spacing_mm


class Case(NamedTuple):
    """What one volume is warned about in one task."""

    contrast: str
    task: Task
    look: Look | None
    warnings: tuple[str, ...]

    @property
    def contrast_doubted(self) -> bool:
        return any("its voxels look like" in warning for warning in self.warnings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    teach = commands.add_parser("learn")
    teach.add_argument("package", type=Path)
    teach.add_argument("--manifest", type=Path, required=True)
    score = commands.add_parser("matrix")
    score.add_argument("data", type=Path)
    score.add_argument("--model", default=DEFAULT_MODEL)
    score.add_argument("--manifests", default="brain.csv,flair_t1c.csv")
    for command in (teach, score):
        command.add_argument("--splits", default="train,val" if command is teach else "test")
    arguments = parser.parse_args()
    tune_process()
    splits = arguments.splits.split(",")
    if arguments.command == "learn":
        teach_package(arguments.package, arguments.manifest, splits)
    else:
        package = load_package(arguments.model)
        for name in arguments.manifests.split(","):
            print(table(list(cases(package, arguments.data / name, splits))))


def teach_package(folder: Path, manifest: Path, splits: Sequence[str]) -> None:
    """Learn from a manifest's volumes of the model's contrasts, and write it into the package."""
    recipe = read_recipe(folder)
    known = {contrast for task in recipe.parsed_tasks for contrast in task}
    shown = []
    for split in splits:
        for entry in Manifest.read(manifest).entries(split):
            if entry.contrast in known:
                space = in_model_space(read_volume(entry.path), recipe, entry.contrast)
                grid_mm = spacing_mm(space.placement.affine).tolist()
                shown.append(Shown.of(entry.subject, entry.contrast, space.image, grid_mm))
    record, weights = stored(learn(shown, recipe.look, seed=0))
    (folder / LOOK).write_bytes(weights)
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    metadata["medtrans"]["look"] = record
    (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def cases(package: ModelPackage, manifest: Path, splits: Sequence[str]) -> Iterator[Case]:
    """Put every volume of a manifest into every source contrast of a model, one task of each."""
    for split in splits:
        for entry in Manifest.read(manifest).entries(split):
            yield from cases_of(package, read_volume(entry.path), entry.contrast)


def cases_of(package: ModelPackage, volume: MetaTensor, contrast: str) -> Iterator[Case]:
    """Put a volume into every source contrast of a model, one task of each."""
    recipe, spaces = package.pipeline, dict[str, ModelSpace]()
    assert package.look is not None
    volume.meta["source"] = None  # no name and no header tells its contrast
    region = find_region(volume.numpy(), spacing_mm(np.asarray(volume.affine)), recipe.volume)
    for task in {task.source: task for task in reversed(recipe.parsed_tasks)}.values():
        scale = recipe.contrasts[task.source]
        try:
            warnings = check_input(volume, task, region, brains_only=package.masked_background)
            if str(scale) not in spaces:
                space = to_model_space(volume, region, scale, recipe.volume.spacing_mm)
                spaces[str(scale)] = space
        except MedtransError as error:
            yield Case(contrast, task, None, (str(error),))
            continue
        space = spaces[str(scale)]
        grid_mm = spacing_mm(space.placement.affine).tolist()
        look = look_at(space.image, grid_mm, task, recipe.parsed_tasks, package.look)
        yield Case(contrast, task, look, (*warnings, *look.unusual))


def in_model_space(volume: MetaTensor, recipe: Pipeline, contrast: str) -> ModelSpace:
    region = find_region(volume.numpy(), spacing_mm(np.asarray(volume.affine)), recipe.volume)
    scale = recipe.contrasts[contrast]  # type: ignore[index]
    return to_model_space(volume, region, scale, recipe.volume.spacing_mm)


def table(every: Sequence[Case]) -> str:
    """Count, by contrast and by what the task expects, whose contrast is doubted."""
    expected = list(dict.fromkeys(case.task.source for case in every))
    total, doubted = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for each in every:
        total[each.contrast, each.task.source] += 1
        doubted[each.contrast, each.task.source] += each.contrast_doubted
    rows = [
        f"| {contrast} | "
        + " | ".join(f"{doubted[contrast, e]} of {total[contrast, e]}" for e in expected)
        + " |"
        for contrast in dict.fromkeys(case.contrast for case in every)
    ]
    head = f"| shown | {' | '.join(f'expects {e}' for e in expected)} |"
    return "\n".join([head, "|---" * (len(expected) + 1) + "|", *rows, ""])


if __name__ == "__main__":
    main()
