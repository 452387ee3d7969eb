"""Real images: read as dcm2niix and nibabel read them, or refused for the right reason."""

import subprocess

import nibabel as nib
import numpy as np
import pytest

from medtrans.errors import MedtransError
from medtrans.volumes import write_volume
from medtrans.volumes.files import load
from medtrans.volumes.nifti import GRID_FIELDS
from tests.volumes.builders import provenance

READ = [
    "ct_jpeg2000",
    *(f"dicom2nifti/{name}" for name in (
        "anatomical/001", "anatomical/001_implicit", "ge/anatomical/001",
        "ge/anatomical/001_implicit", "generic/anatomical/001", "generic/anatomical/001_implicit",
        "generic/anatomical/002_non_isotropic", "generic/compressed/001",
        "generic/compressed_j2k/001", "generic/compressed_jpeg/001",
        "generic/compressed_jpegls/001", "generic/compressed_rle/001", "hitachi/anatomical/001",
        "hitachi/anatomical/001_implicit", "hyperfine/anatomical/001", "philips/anatomical/001",
        "philips/anatomical/001_implicit", "philips_enhanced/anatomical/001",
        "philips_enhanced/anatomical/001_implicit", "siemens/anatomical/001",
        "siemens/anatomical/001_implicit", "siemens_multiframe/anatomical/001")),
    *(f"prostatex-0000/{name}" for name in (
        "3.000000-t2tsesag-87368", "4.000000-t2tsetra-00702", "5.000000-t2tsecor-03471",
        "7.000000-ep2ddifftraDYNDISTADC-48780", "8.000000-ep2ddifftraDYNDISTCALCBVAL-83202",
        "9.000000-tfl3d PD reftra1.5x1.5t3-67276")),
]  # fmt: skip
REFUSED = {
    "dicom2nifti/failing/gantrytilting/001": "gantry was tilted: the stack leans 14.0 degrees",
    "dicom2nifti/failing/notavolume/001": r"too few slices: 4 image\(s\) at 1 position",
    "dicom2nifti/failing/slicecount/001": r"too few slices: 2 image\(s\)",
    "dicom2nifti/failing/sliceincrement/001": r"is 10 mm .*expected 5 mm.*1 slice\(s\) are missing",
    "dicom2nifti/failing/sliceincrement/002": r"is 1.499 mm .*expected 0.7497 mm",
    "dicom2nifti/failing/sliceorientation/001": "not parallel",
    "dicom2nifti/ge/anatomical/001_single_slice": "too few slices: 1 image",
    "dicom2nifti/generic/rgb/001": "Secondary Capture",
    "dicom2nifti/philips/anatomical/002": r"image type.*--volume \(0: .*SW_M_FFE.*, 1: ",
    "prostatex-0000/6.000000-ep2ddifftraDYNDIST-69284": r"b-value.*\(0: 50, 1: 400, 2: 800\)",
    "prostatex-0000": "expected one series, found 7",
    "prostatex-missing-slice": r"slices 13 and 14 .*is 6 mm .*1 slice\(s\) are missing",
    "qa_transfer_syntaxes": "MOSAIC",
}


@pytest.fixture
def dicom(shared_data):
    return shared_data / "dicom"


def agreement(loaded, path):
    """Largest difference in value and in the place of a corner, after matching the axes."""
    image = nib.load(path)
    steps = np.rint(np.linalg.inv(image.affine) @ loaded.affine)
    axes = np.abs(steps[:3, :3]).argmax(axis=1)
    flips = [i for i in range(3) if steps[i, axes[i]] < 0]
    turned = np.flip(loaded.voxels.transpose(axes), flips)
    places = np.abs(image.affine @ steps - loaded.affine)
    reach = np.array([*loaded.voxels.shape, 1])
    other = np.asanyarray(image.dataobj)
    assert other.shape[:3] == turned.shape
    differences = [np.abs(turned - v).max() for v in np.moveaxis(np.atleast_3d(other), 3, 0)] if (
        other.ndim == 4) else [np.abs(turned - other).max()]  # fmt: skip
    return min(differences), (places @ reach).max()


@pytest.mark.parametrize("name", READ)
def test_series_agree_with_dcm2niix(dicom, tmp_path, name, dcm2niix):
    loaded = load(dicom / name, None, None)
    # -p n: Philips' displayed values, which the standard's rescale gives, not its own "precise".
    scale = ["-p", "n"] if "philips" in name else []
    command = [dcm2niix, "-b", "n", "-z", "n", *scale, "-f", "x", "-o", tmp_path, dicom / name]
    subprocess.run(command, check=True, capture_output=True)
    difference, distance = agreement(loaded, next(tmp_path.glob("*.nii")))
    # dcm2niix keeps slopes as float32, so only values that are not whole may differ, by 1 ulp.
    whole = np.array_equal(loaded.voxels, np.rint(loaded.voxels))
    assert difference <= (0 if whole else np.abs(loaded.voxels).max() * 2**-23)
    assert distance < 1e-3


@pytest.mark.parametrize("name", REFUSED)
def test_series_are_refused_for_the_right_reason(dicom, name):
    with pytest.raises(MedtransError, match=REFUSED[name]):
        load(dicom / name, None, None)


def test_every_b_value_is_a_volume(dicom, tmp_path):
    folder = dicom / "prostatex-0000" / "6.000000-ep2ddifftraDYNDIST-69284"
    means = [load(folder, None, b).voxels.mean() for b in range(3)]
    assert means == sorted(means, reverse=True)


def test_transfer_syntaxes_decode_to_the_same_pixels(dicom):
    from medtrans.volumes.dicom.dataset import parse, pixels, quiet

    with quiet():
        decoded = [
            pixels(parse(file, with_pixels=True)[0], file)
            for file in sorted((dicom / "qa_transfer_syntaxes").iterdir())
        ]
    assert len(decoded) == 9
    assert all(np.array_equal(d, decoded[0]) for d in decoded)


@pytest.mark.parametrize(
    "name",
    ["brain/openms-07/t1", "brain/brats-gli-00001/t1", "brain/tcga-du-7294/flair",
     "coronal_t1t2/S1/t1", "raw_brain/tcga-fg-6692/t2"],
)  # fmt: skip
def test_nifti_files_come_back_bit_for_bit(shared_data, tmp_path, name):
    path = shared_data / f"{name}.nii.gz"
    loaded = load(path, None, None)
    image = nib.load(path)
    assert np.array_equal(loaded.voxels.reshape(image.shape), image.get_fdata(dtype=np.float32))
    assert np.array_equal(loaded.affine, image.affine)
    out, _ = write_volume(loaded.voxels, tmp_path / "o.nii", loaded.source, provenance())
    header = nib.load(out).header
    assert all(header[f].tobytes() == image.header[f].tobytes() for f in GRID_FIELDS)
    assert np.array_equal(nib.load(out).get_fdata(dtype=np.float32), image.get_fdata(dtype="f4"))
