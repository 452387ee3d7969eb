"""A folder of scans as people have them: BIDS, stray files, a zip of DICOM, a pair off its grid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from medtrans.phantom.heads import Phantom, ScanProtocol, make_subject
from medtrans.volumes import nifti
from tests.volumes.builders import dicom_slice, save

_SCAN = ScanProtocol(("t1", "t2"), (40, 50, 40), (4.5, 4.5, 4.5))
_ACQUIRED = {  # of the DICOM series: name, and what the sequence says
    "t1": {"SeriesDescription": "t1_se_tra", "EchoTime": 10, "RepetitionTime": 500},
    "t2": {"SeriesDescription": "t2_tse_tra", "EchoTime": 100, "RepetitionTime": 4000},
}
MOVED_MM, MOVED_DEG = (7.0, -4.0, 3.0), 6.0  # of the T1 of subject 04


def write_messy(folder: Path) -> Path:
    """Write it: subjects 01 to 06, of whom 02 has two sessions and 04 a moved T1, and a zip."""
    for number in range(1, 7):
        scanned = make_subject(3, number, _SCAN)
        if number == 2:
            for session in ("1", "2"):
                _write_bids(folder, scanned, f"{number:02d}", session)
        else:
            _write_bids(folder, scanned, f"{number:02d}")
    _move(folder / "sub-04" / "anat" / "sub-04_T1w.nii.gz")
    anatomy = folder / "sub-01" / "anat"
    again = anatomy / "sub-01_run-2_T1w.nii.gz"  # the same subject twice
    shutil.copy(anatomy / "sub-01_T1w.nii.gz", again)
    (folder / "dataset_description.json").write_text(
        json.dumps({"Name": "messy", "BIDSVersion": "1.8.0"})
    )
    (folder / "notes.txt").write_text("sub-03 moved a little\n")
    (anatomy / "sub-01_T1w_cut.nii.gz").write_bytes(b"\x1f\x8b broken")
    _write_study(folder / "from_the_archive.zip", make_subject(3, 7, _SCAN))
    return folder


def _write_bids(folder: Path, scanned: Phantom, subject: str, session: str = "") -> None:
    name = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    place = folder.joinpath(f"sub-{subject}", *([f"ses-{session}"] if session else []), "anat")
    place.mkdir(parents=True)
    for contrast, image in scanned.images.items():
        path = place / f"{name}_{contrast.upper()}w.nii.gz"
        nifti.save_array(path, image, scanned.affine)


def _move(path: Path) -> None:
    """Put the head of a file elsewhere in its grid, and give it another grid."""
    voxels, affine = _read(path)
    turn = Rotation.from_euler("z", MOVED_DEG, degrees=True).as_matrix()
    centre = (np.array(voxels.shape) - 1) / 2
    shift = np.array(MOVED_MM) / 4.5
    moved = affine_transform(voxels, turn, centre - turn @ (centre + shift), order=1)
    other = affine.copy()
    other[:3, 3] -= 4.5  # two planes fewer on each side, less one
    nifti.save_array(path, np.pad(moved, ((1, 1), (0, 0), (1, 0))), other)


def _read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    image = nibabel.load(path)
    return image.get_fdata(), image.affine


def _write_study(path: Path, scanned: Phantom) -> None:
    """Write a zip of one study with both contrasts, axial slices; the T1 starts two later."""
    study = path.with_suffix("")
    study.mkdir()
    corner = scanned.affine[:3, :3] @ (np.array(_SCAN.shape) - 1) + scanned.affine[:3, 3]
    for number, (contrast, image) in enumerate(scanned.images.items(), start=1):
        top = float(image.max())
        for k in range(2 if contrast == "t1" else 0, image.shape[2]):
            pixels = np.round(image[::-1, ::-1, k].T / top * 4000).clip(0)  # LPS rows and columns
            slice_ = dicom_slice(
                k,
                series=f"1.2.3.{number}",
                number=number,
                rows=pixels.shape[0],
                columns=pixels.shape[1],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImagePositionPatient=[-corner[0], -corner[1], scanned.affine[2, 3] + 4.5 * k],
                PixelSpacing=[4.5, 4.5],
                SliceThickness="4.5",
                PixelData=pixels.astype("<u2").tobytes(),
                **_ACQUIRED[contrast],
            )
            save(slice_, study / f"{number}-{k:03d}.dcm")
    shutil.make_archive(str(study), "zip", study)
    shutil.rmtree(study)
