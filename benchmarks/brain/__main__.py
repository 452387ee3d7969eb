"""How well brains are found: python -m benchmarks.brain DATA [SUBJECT …] prints a table.

Known masks are moved rigidly onto the found ones. A head of the atlas is found with the other one
alone. Heads without a known mask show their volume and what the two atlas heads agree on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from benchmarks.brain.atlas import SUBJECTS
from benchmarks.brain.masks import dice, litres, mask_of, move_onto
from medtrans.brain import atlas, finder
from medtrans.brain.grid import coarsen, refine
from medtrans.brain.register import carry_brain
from medtrans.errors import FileError
from medtrans.volumes.files import load
from medtrans.volumes.voxels import Loaded, Mask


def main(data: Path, wanted: list[str]) -> None:
    """Print a line for each whole head; `wanted` are subjects, all of raw_brain.csv by default."""
    tables = [pd.read_csv(data / name) for name in ("raw_brain.csv", "ixi_t1.csv")]
    rows = pd.concat(tables).itertuples()
    print("| subject | contrast | Dice | litres | known, in view | volume | agreement | CPU s |")
    for row in rows:
        if row.subject in wanted or (not wanted and "ixi" not in row.subject):
            _report(data, row.subject, row.contrast, data / row.path)


def _report(data: Path, subject: str, contrast: str, path: Path) -> None:
    image, start = load(path, None, None), time.process_time()
    try:
        mask, agreement = _find(image, subject, contrast)
    except FileError as error:
        print(f"| {subject} | {contrast} | refused: {error}", flush=True)
        return
    seconds = time.process_time() - start
    found = sitk.GetImageFromArray(mask.transpose(2, 1, 0).astype(np.float32))
    found.CopyInformation(sitk.ReadImage(str(path)))
    known, scored = _known(data, subject), ["", ""]
    if known is not None:
        true = move_onto(known, found)
        change = 100 * (litres(found) / litres(true) - 1)
        scored = [f"{dice(true, found):.3f}", f"{litres(true):.2f} | {change:+.1f} %"]
    cells = [subject, contrast, scored[0], f"{litres(found):.2f}", scored[1], agreement]
    print("|", " | ".join(cells), f"| {seconds:.1f} |", flush=True)
    if out := Path("brain-masks"):
        out.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.Cast(found, sitk.sitkUInt8), str(out / f"{subject}-{contrast}.nii.gz"))


def _find(image: Loaded, subject: str, contrast: str) -> tuple[Mask, str]:
    own = [name.rpartition("-")[0] in subject for name in SUBJECTS]
    if not any(own):
        mask, brain = finder.find_brain(image.voxels, image.affine, contrast)
        return mask, f"{brain.agreement:.3f}"
    [head] = [head for head, same in zip(atlas.heads(), own, strict=True) if not same]
    coarse = coarsen(image.voxels, image.affine, atlas.GRID_MM)
    share = carry_brain(coarse, head, contrast)
    return refine(share, coarse, image.affine, image.voxels.shape), "one head"


def _known(data: Path, subject: str) -> sitk.Image | None:
    """Return the brain mask of a subject, in any position; None where there is none."""
    study = "openms-long-12-study1" if "long-12" in subject else subject
    mask = data / "raw_brain" / study / "brainmask_other_space.nii.gz"
    if mask.is_file():
        return sitk.ReadImage(str(mask)) > 0
    stripped = data / "brain" / subject / "t1.nii.gz"
    return mask_of(sitk.ReadImage(str(stripped), sitk.sitkFloat32)) if stripped.is_file() else None


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
