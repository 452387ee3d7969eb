"""Draw what the brain finder is trained on: python -m benchmarks.brain.maps DATA OUT.

DATA holds brain.csv, brain/ and raw_brain/; only subjects whose licence is CC BY are read.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd
import SimpleITK as sitk

from benchmarks.brain import labels
from benchmarks.brain.known import LJUBLJANA, TCGA, brain_in_head, brain_in_scan
from medtrans.volumes.files import load

BRAINS = ("openms-07", "openms-19", "tcga-du-7294")
PHANTOMS, AROUND = 12, 6


def main(data: Path, out: Path) -> None:
    """Write drawn/, ljubljana/ and tcga/."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    drawn, ljubljana, tcga = (out / name for name in ("drawn", "ljubljana", "tcga"))
    for folder in (drawn, ljubljana, tcga):
        folder.mkdir(parents=True, exist_ok=True)
    for subject in LJUBLJANA:
        contrasts = [data / "raw_brain" / subject / f"{c}.nii.gz" for c in ("t1", "t2", "flair")]
        _whole(contrasts, brain_in_head(data, subject)).save(ljubljana / f"{subject}.npz")
    for contrast in ("t1", "t1c", "t2", "flair"):  # the patient moved between them
        scan = data / "raw_brain" / TCGA / f"{contrast}.nii.gz"
        _whole([scan], brain_in_scan(data, contrast)).save(tcga / f"{contrast}.npz")
    for seed in range(PHANTOMS):
        labels.phantom(seed).save(drawn / f"phantom-{seed}.npz")
    table = pd.read_csv(data / "brain.csv")
    for subject in BRAINS:
        paths = [data / path for path in table[table.subject == subject].path]
        for seed in range(AROUND):
            brain = labels.stripped(paths, 8 + 2 * (seed % 4), seed)
            labels.around(brain, seed).save(drawn / f"{subject}-{seed}.npz")


def _whole(scans: list[Path], brain: sitk.Image) -> labels.HeadMap:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "brain.nii.gz"
        sitk.WriteImage(sitk.Cast(brain, sitk.sitkUInt8), str(path))
        return labels.whole(scans, load(path, None, None), 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
