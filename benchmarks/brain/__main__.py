"""How well brains are found: python -m benchmarks.brain DATA [SUBJECT …] prints a table.

Known masks are moved rigidly onto the found ones (tcga-fg-6692's comes from the registration of its
stripped brain). Heads without a known mask show their volume alone. WEIGHTS in the environment
names another file than the shipped one. Masks are written into brain-masks/.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from benchmarks.brain.known import TCGA, brain_in_scan, known_mask
from benchmarks.brain.masks import dice, litres, move_onto
from medtrans.brain import network
from medtrans.brain.finder import find_brain
from medtrans.errors import FileError
from medtrans.volumes.files import load


def main(data: Path, wanted: list[str]) -> None:
    """Print a line for each whole head; `wanted` are subjects, all of raw_brain.csv by default."""
    network.WEIGHTS = Path(os.environ.get("WEIGHTS", network.WEIGHTS))
    tables = [pd.read_csv(data / name) for name in ("raw_brain.csv", "ixi_t1.csv")]
    print("| subject | contrast | Dice | litres | volume | doubt | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for row in pd.concat(tables).itertuples():
        if row.subject in wanted or (not wanted and "ixi" not in row.subject):
            _report(data, row.subject, row.contrast, data / row.path)


def _report(data: Path, subject: str, contrast: str, path: Path) -> None:
    image, start = load(path, None, None), time.process_time()
    try:
        mask, brain = find_brain(image.voxels, image.affine)
    except FileError as error:
        print(f"| {subject} | {contrast} | refused: {error}", flush=True)
        return
    seconds = time.process_time() - start
    found = sitk.GetImageFromArray(mask.transpose(2, 1, 0).astype(np.float32))
    found.CopyInformation(sitk.ReadImage(str(path)))
    scored, change = "", ""
    if "ixi" not in subject:
        true = _true(data, subject, contrast, found)
        scored, change = (
            f"{dice(true, found):.3f}",
            f"{100 * (litres(found) / litres(true) - 1):+.1f} %",
        )
    cells = [subject, contrast, scored, f"{litres(found):.2f}", change, f"{brain.doubt:.2f}"]
    print("|", " | ".join(cells), f"| {seconds:.1f} |", flush=True)
    out = Path("brain-masks")
    out.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.Cast(found, sitk.sitkUInt8), str(out / f"{subject}-{contrast}.nii.gz"))


def _true(data: Path, subject: str, contrast: str, found: sitk.Image) -> sitk.Image:
    if subject == TCGA:
        return brain_in_scan(data, contrast)
    return move_onto(known_mask(data, subject), found)


if __name__ == "__main__":
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
