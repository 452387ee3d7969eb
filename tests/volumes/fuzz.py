"""Seeded mutations of small files: each must be read, or refused with our own error.

``python -m tests.volumes.fuzz --count 200000 --seed 7`` is the long run of ``make fuzz``.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import SimpleITK
from nibabel.freesurfer import MGHImage
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medtrans.errors import MedtransError
from medtrans.volumes import files
from tests.volumes import builders

# Single slices, each mutated among intact neighbours of its class.
CLASSES = {
    "implicit.dcm": "mr", "big.dcm": "mr", "deflated.dcm": "mr", "plain.dcm": "ct", "rle.dcm": "ct",
}  # fmt: skip


def seeds(folder: Path) -> dict[str, bytes]:
    """One small valid file of each kind, by name."""
    found = {
        "a.nii": builders.nifti_bytes(packed=False),
        "a.nii.gz": builders.nifti_bytes(),
        "b.nii": builders.nifti_bytes((4, 3), np.float32, packed=False, version=2),
        "c.nii.gz": builders.nifti_bytes((4, 3, 2, 2), np.uint8),
        "multi.dcm": builders.enhanced(folder / "multi").read_bytes(),
    }
    for name, syntax in (
        ("implicit", ImplicitVRLittleEndian),
        ("big", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ):
        file = builders.save(builders.dicom_slice(2), folder / name, syntax)
        found[f"{name}.dcm"] = file.read_bytes()
    dataset = builders.dicom_slice(2, sop_class=builders.CT)
    found["plain.dcm"] = builders.save(dataset, folder / "plain").read_bytes()
    dataset.compress(RLELossless)
    dataset.save_as(folder / "rle", enforce_file_format=True)
    found["rle.dcm"] = (folder / "rle").read_bytes()
    found["a.mgh"] = MGHImage(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)).to_bytes()
    found["b.mgz"] = gzip.compress(found["a.mgh"], mtime=0)
    with zipfile.ZipFile(folder / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(3):
            archive.write(builders.save(builders.dicom_slice(k), folder / f"{k}"), f"{k}.dcm")
    found["study.zip"] = (folder / "zip").read_bytes()
    image = SimpleITK.GetImageFromArray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    for itk_name, packed in (
        ("a.mha", False),
        ("b.mha", True),
        ("a.nrrd", False),
        ("b.nrrd", True),
    ):
        SimpleITK.WriteImage(image, str(folder / itk_name), packed)
        found[itk_name] = (folder / itk_name).read_bytes()
    return found


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, overwrite with telling numbers, cut, drop, repeat or insert."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        # Headers matter more than voxels: half of all changes hit the first 600 bytes.
        span = len(data) if rng.random() < 0.5 else min(len(data), 600)
        at = int(rng.integers(0, max(span, 1)))
        length = int(rng.integers(1, 9))
        match int(rng.integers(0, 6)):
            case 0 if data:
                data[at % len(data)] ^= 1 << int(rng.integers(0, 8))
            case 1:
                odd = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f")
                value = odd[int(rng.integers(0, len(odd)))]
                data[at : at + len(value)] = value
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length * 8]
            case _:
                data[at : at + length] = rng.bytes(length)
    return bytes(data)


def neighbours(folder: Path) -> dict[str, Path]:
    """Folders with the slices that make a mutated one a series, for MR and CT."""
    found = {}
    for kind, uid in (("mr", builders.MR), ("ct", builders.CT)):
        found[kind] = folder / kind
        found[kind].mkdir()
        for k in (0, 1, 3):
            builders.save(builders.dicom_slice(k, sop_class=uid), found[kind] / f"{k}.dcm")
    return found


def run(count: int, seed: int) -> dict[str, int]:
    """Read `count` mutations; return how many were read and refused.

    Raises
    ------
    Exception
        Whatever a reader raises that is not a `MedtransError`, noted with the seed.
    """
    tally = {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        originals = seeds(folder)
        series = neighbours(folder)
        names = sorted(originals)
        for number in range(count):
            rng = np.random.default_rng((seed, number))
            chosen = names[number % len(names)]
            content = mutate(originals[chosen], rng)
            place = series.get(CLASSES.get(chosen, ""))
            target = (place or folder) / chosen
            target.write_bytes(content)
            try:
                files.load(place or target, None, None)
                tally["read"] += 1
            except MedtransError:
                tally["refused"] += 1
            except BaseException as error:
                error.add_note(f"mutation {number} of seed {seed}, from {chosen}")
                raise
            target.unlink()
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    tally = run(arguments.count, arguments.seed)
    seconds = time.monotonic() - start
    sys.stderr.write(f"{tally} in {seconds:.0f} s: no foreign error\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
