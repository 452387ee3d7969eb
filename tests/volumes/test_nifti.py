"""NIfTI in and out: the same voxels, the same grid, bit for bit."""

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtrans.errors import GeometryError, OutputError, UnreadableFileError, UsageError
from medtrans.volumes import output_path, read_volume, require_same_grid, write_volume
from medtrans.volumes.files import load
from medtrans.volumes.nifti import GRID_FIELDS, save_array
from medtrans.volumes.source import unreadable_on_error
from tests.volumes.builders import nifti_bytes, provenance


@pytest.fixture
def put(tmp_path):
    def write(name="t1.nii.gz", *args, **kwargs):
        path = tmp_path / name
        path.write_bytes(nifti_bytes(*args, packed=name.endswith("gz"), **kwargs))
        return path

    return write


def grid_bytes(path):
    header = nib.load(path).header
    return {name: header[name].tobytes() for name in GRID_FIELDS}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "f4", ">f8"])
def test_reads_what_nibabel_reads(put, dtype, version):
    path = put(dtype=np.dtype(dtype), version=version)
    volume = read_volume(path)
    image = nib.load(path)
    assert np.array_equal(volume.numpy(), image.get_fdata(dtype=np.float32))
    assert np.array_equal(volume.affine.numpy(), image.affine)
    assert volume.numpy().dtype == np.float32
    assert str(volume.affine.dtype) == "torch.float64"


def test_applies_slope_and_intercept(put):
    def scale(header):
        header.set_slope_inter(0.5, -3)

    path = put(edit=scale)
    raw = np.frombuffer(gzip.decompress(path.read_bytes())[352:], "<i2").reshape(
        (7, 6, 5), order="F"
    )
    assert np.array_equal(load(path, None, None).voxels, raw * np.float32(0.5) - 3)


@pytest.mark.parametrize(
    ("shape", "read_as"),
    [((4, 3), (4, 3, 1)), ((4, 3, 1), (4, 3, 1)), ((4, 3, 2, 1), (4, 3, 2))],
)  # fmt: skip
def test_flat_and_single_volume_files_keep_their_shape(put, tmp_path, shape, read_as):
    path = put(shape=shape)
    loaded = load(path, None, None)
    assert loaded.voxels.shape == read_as
    out = tmp_path / "out.nii.gz"
    write_volume(loaded.voxels, out, loaded.source, provenance())
    assert nib.load(out).header["dim"].tolist() == nib.load(path).header["dim"].tolist()


affines = st.lists(st.floats(-4, 4, width=32), min_size=12, max_size=12).map(
    lambda v: np.vstack([np.array(v).reshape(3, 4), [0, 0, 0, 1]])
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # nibabel's, of the odd affines made here
@settings(max_examples=40, deadline=None)
@given(affine=affines, units=st.sampled_from([0, 1, 2, 3, 10]), codes=st.tuples(
    st.integers(0, 4), st.integers(0, 4)))  # fmt: skip
def test_any_readable_grid_comes_back_bit_for_bit(tmp_path_factory, affine, units, codes):
    def edit(header):
        header["xyzt_units"], header["dim_info"] = units, 57
        header["sform_code"], header["qform_code"] = codes

    folder = tmp_path_factory.mktemp("grid")
    path = folder / "a.nii"
    try:
        path.write_bytes(nifti_bytes(packed=False, affine=affine, edit=edit))
        loaded = load(path, None, None)
    except (GeometryError, np.linalg.LinAlgError, nib.spatialimages.HeaderDataError):
        return
    out, _ = write_volume(loaded.voxels, folder / "b.nii.gz", loaded.source, provenance())
    assert grid_bytes(out) == grid_bytes(path)
    again = load(out, None, None)
    assert np.array_equal(again.affine, loaded.affine)
    assert np.array_equal(again.voxels, loaded.voxels)


def test_output_is_labelled_and_carries_no_free_text(put, tmp_path):
    def speak(header):
        for field in ("descrip", "aux_file", "intent_name", "db_name"):
            header[field] = b"CANARY"

    path = put(edit=speak)
    loaded = load(path, None, None)
    out, sidecar = write_volume(loaded.voxels, tmp_path / "o.nii", loaded.source, provenance())
    header = nib.load(out).header
    assert header["descrip"].item() == b"SYNTHETIC t1-to-t2 by medtrans brain_mri; not acquired"
    assert header.get_slope_inter() in ((1.0, 0.0), (None, None))
    assert header.get_data_dtype() == np.float32
    assert b"CANARY" not in out.read_bytes()
    assert b"CANARY" not in sidecar.read_bytes()
    entries = json.loads(sidecar.read_text())
    assert entries["Synthetic"] is True
    assert entries["SourceSHA256"] == "cd" * 32
    assert "CANARY" not in repr(loaded.source)


def test_same_volume_gives_the_same_bytes(put, tmp_path):
    loaded = load(put(), None, None)
    first, _ = write_volume(loaded.voxels, tmp_path / "1.nii.gz", loaded.source, provenance())
    second, _ = write_volume(loaded.voxels, tmp_path / "2.nii.gz", loaded.source, provenance())
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.bool_])
def test_masks_stay_integers(put, tmp_path, dtype):
    loaded = load(put(), None, None)
    mask = loaded.voxels > 50
    out, _ = write_volume(mask.astype(dtype), tmp_path / "m.nii", loaded.source, provenance())
    image = nib.load(out)
    assert image.get_data_dtype().kind in "iu"
    assert np.array_equal(np.asanyarray(image.dataobj), mask)


@pytest.mark.parametrize("named", [".hdr", ".img"])
def test_pairs_are_read_and_written(tmp_path, named):
    image = nib.Nifti1Pair(np.arange(24, dtype=np.int16).reshape(4, 3, 2), np.eye(4))
    nib.save(image, tmp_path / "p.hdr")
    loaded = load(tmp_path / f"p{named}", None, None)
    assert np.array_equal(loaded.voxels, image.get_fdata())
    written = write_volume(loaded.voxels, tmp_path / f"o{named}", loaded.source, provenance())
    assert [p.name for p in written] == ["o.img", "o.hdr", "o.json"]
    assert np.array_equal(nib.load(tmp_path / "o.hdr").get_fdata(), image.get_fdata())
    (tmp_path / "p.img").unlink()
    with pytest.raises(UnreadableFileError, match=r"other half .* is missing"):
        load(tmp_path / "p.hdr", None, None)


def test_one_of_several_volumes(put, tmp_path):
    path = put(shape=(4, 3, 2, 3))
    with pytest.raises(GeometryError, match=r"found 3 .* --volume 0 to 2"):
        load(path, None, None)
    with pytest.raises(GeometryError, match="no volume 3"):
        load(path, None, 3)
    loaded = load(path, None, 1)
    assert np.array_equal(loaded.voxels, nib.load(path).get_fdata()[..., 1])
    out, _ = write_volume(loaded.voxels, tmp_path / "o.nii", loaded.source, provenance())
    assert nib.load(out).shape == (4, 3, 2)


def test_sform_wins_and_the_warning_names_both(put):
    def disagree(header):
        header.set_qform(np.diag([1.0, 1, 1, 1]), 1)
        header.set_sform(np.diag([2.0, 2, 2, 1]), 4)

    loaded = load(put(edit=disagree), None, None)
    assert np.array_equal(loaded.affine, np.diag([2.0, 2, 2, 1]))
    assert "sform (code 4) and qform (code 1) disagree" in loaded.source.warnings[0]


def test_without_any_form_left_and_right_are_said_to_be_assumed(put):
    def neither(header):
        header["sform_code"] = header["qform_code"] = 0

    path = put(edit=neither)
    loaded = load(path, None, None)
    assert "neither qform nor sform" in loaded.source.warnings[0]
    assert np.array_equal(loaded.affine, nib.load(path).affine)


@pytest.mark.parametrize(("units", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_units_become_millimetres(put, units, factor):
    def edit(header):
        header["xyzt_units"] = units
        header.set_sform(np.diag([2.0, 2, 2, 1]) / np.array([[factor], [factor], [factor], [1]]), 1)
        header["qform_code"] = 0

    assert np.allclose(load(put(edit=edit), None, None).affine, np.diag([2.0, 2, 2, 1]))


def set_field(name, value):
    def edit(header):
        header[name] = value

    return edit


def set_sform(matrix):
    def edit(header):
        header.set_sform(matrix, 1)

    return edit


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        pytest.param(
            set_sform(np.diag([1, 1, np.nan, 1])), GeometryError, "NaN or infinity", id="nan"
        ),
        pytest.param(
            set_sform(np.diag([1, 1, np.inf, 1])), GeometryError, "NaN or infinity", id="inf"
        ),
        (set_sform(np.diag([1, 0, 1, 1])), GeometryError, "spacing is 1, 0, 1"),
        (set_sform(np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
         GeometryError, "singular"),
        (set_sform(np.array([[1, 0, 0, 1e9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
         GeometryError, "of the origin"),
        (set_field("xyzt_units", 7), GeometryError, "xyzt_units"),
        (set_field("datatype", 32), UnreadableFileError, "complex"),
        (set_field("datatype", 128), UnreadableFileError, "colour"),
        (set_field("datatype", 1536), UnreadableFileError, "datatype"),
        (set_field("datatype", 9999), UnreadableFileError, "unknown"),
        (set_field("bitpix", 8), UnreadableFileError, "bitpix"),
        (set_field("scl_slope", np.inf), UnreadableFileError, "scl_slope"),
    ],
)  # fmt: skip
def test_bad_headers_are_refused_by_name(put, tmp_path, edit, error, words):
    path = tmp_path / "bad.nii"
    path.write_bytes(nifti_bytes(packed=False, edit=edit))
    with pytest.raises(error, match=words) as caught:
        load(path, None, None)
    assert "\n" not in str(caught.value)


def test_non_finite_voxels(tmp_path):
    data = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    data[0, 0, 0], data[1, 1, 1] = np.nan, np.inf
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    loaded = load(tmp_path / "a.nii", None, None)
    assert loaded.voxels[0, 0, 0] == loaded.voxels[1, 1, 1] == 0
    assert "2 of 27 voxels" in loaded.source.warnings[0]
    data[:2] = np.nan
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(UnreadableFileError, match="18 of 27 voxels are NaN"):
        load(tmp_path / "b.nii", None, None)


def test_writing_refuses_what_it_must(put, tmp_path):
    path = put()
    loaded = load(path, None, None)
    with pytest.raises(OutputError, match="replace its input"):
        write_volume(loaded.voxels, path, loaded.source, provenance())
    with pytest.raises(GeometryError, match="7 x 6 x 5"):
        write_volume(loaded.voxels[1:], tmp_path / "o.nii", loaded.source, provenance())
    with pytest.raises(OutputError, match="no such folder"):
        write_volume(loaded.voxels, tmp_path / "x" / "o.nii", loaded.source, provenance())
    with pytest.raises(OutputError, match="DICOM input"):
        write_volume(loaded.voxels, tmp_path / "o", loaded.source, provenance(), kind="dicom")
    with pytest.raises(OutputError, match=r"ends in \.nii\.gz"):
        write_volume(loaded.voxels, tmp_path / "o.png", loaded.source, provenance())
    with pytest.raises(UsageError, match="'jpeg'"):
        write_volume(loaded.voxels, tmp_path / "o.nii", loaded.source, provenance(), kind="jpeg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t1.nii.gz"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.nii", "no such file"), ("words.txt", "found something else"),
     ("a.nii", "NIfTI header"), ("a.dcm", "SOPClassUID"), ("a.mha", "MetaImage header")],
)  # fmt: skip
def test_a_text_file_is_refused_whatever_its_name(tmp_path, name, words):
    path = tmp_path / name
    if name != "missing.nii":
        path.write_text("this is no image\n" * 50)
    with pytest.raises(UnreadableFileError, match=words):
        load(path, None, None)


def test_content_decides_not_the_name(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(packed=True))
    (tmp_path / "a.nii.gz").write_bytes(nifti_bytes(packed=False))
    first, second = (load(tmp_path / n, None, None).voxels for n in ("a.nii", "a.nii.gz"))
    assert np.array_equal(first, second)


def test_output_names(put):
    source = load(put("sub-1_T1w.nii.gz"), None, None).source
    assert output_path(source, "t1-to-t2").name == "sub-1_T1w_t2-synthetic.nii.gz"


def test_same_grid_is_told_by_corners(put, tmp_path):
    volume = read_volume(put())
    other = read_volume(put("b.nii", affine=np.diag([-2.0, 1.5, 3.0, 1.0]) + 1e-6))
    require_same_grid(volume, other, "The two")
    with pytest.raises(GeometryError, match="The two are not on one grid"):
        require_same_grid(volume, read_volume(put("c.nii", affine=np.eye(4))), "The two")


def test_monai_reads_through_the_same_guard(put):
    from monai.transforms import Compose, EnsureChannelFirst, Lambda

    path = put()
    load_image = Compose([Lambda(read_volume), EnsureChannelFirst(channel_dim="no_channel")])
    image = load_image(path)[0]
    expected = read_volume(path)
    assert np.array_equal(image.numpy(), expected.numpy())
    assert np.array_equal(image.affine.numpy(), expected.affine.numpy())
    # MONAI's own LoadImage reads by nibabel, which accepts a flipped bit without a word.
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RuntimeError) as caught:
        load_image(path)
    assert "compressed stream is damaged" in str(caught.value.__cause__)


@pytest.mark.parametrize("name", ["a.hdr", "a.nii"])
def test_a_single_file_is_no_pair_whatever_its_name(tmp_path, name):
    content = nifti_bytes(
        packed=False, edit=set_field("magic", b"ni1" if name == "a.nii" else b"n+1")
    )
    for file in {name, name.replace("hdr", "img")}:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UnreadableFileError, match="magic says"):
        load(tmp_path / name, None, None)


@pytest.mark.parametrize(
    ("dim", "words"),
    [
        ([6, 4, 3, 2, 1, 1, 1, 1], None),
        (
            [5, 4, 3, 2, 1, 2, 1, 1],
            "2 or 3 axes, or 4 with time, found the shape 4 x 3 x 2 x 1 x 2",
        ),
        ([1, 4, 1, 1, 1, 1, 1, 1], "2 or 3 axes"),
    ],
)
def test_further_axes_may_be_there_but_hold_nothing(put, dim, words):
    path = put(shape=(4, 3, 2) if dim[0] > 5 else (4, 3, 2, 2), edit=set_field("dim", dim))
    if words is None:
        assert load(path, None, None).voxels.shape == (4, 3, 2)
        return
    with pytest.raises(GeometryError, match=words):
        load(path, None, None)


@pytest.mark.parametrize(("slope", "intercept"), [(np.inf, 0), (2, np.inf), (-np.inf, 1)])
def test_a_scaling_that_is_not_finite_is_refused(put, slope, intercept):
    def edit(header):
        header["scl_slope"], header["scl_inter"] = slope, intercept

    with pytest.raises(UnreadableFileError, match="scl_slope and scl_inter"):
        load(put(edit=edit), None, None)


def test_a_qform_that_is_no_rotation(put):
    def edit(header):
        header["quatern_b"] = 2.0
        header["qform_code"], header["sform_code"] = 1, 2

    loaded = load(put(edit=edit), None, None)
    assert "disagree (the qform is damaged)" in loaded.source.warnings[0]

    def alone(header):
        edit(header)
        header["sform_code"] = 0

    with pytest.raises(GeometryError, match=r"\(qform\): the affine holds NaN"):
        load(put(edit=alone), None, None)


def test_a_sheared_grid_is_kept_by_the_sform_alone(tmp_path):
    sheared = np.diag([2.0, 2, 2, 1])
    sheared[0, 1] = 0.5
    save_array(tmp_path / "a.nii.gz", np.arange(24, dtype=np.int16).reshape(4, 3, 2), sheared)
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    loaded = load(tmp_path / "a.nii.gz", None, None)
    assert np.array_equal(loaded.affine, sheared)
    assert "sheared" in loaded.source.warnings[0]
    with pytest.raises(OutputError, match="cannot hold the grid"):
        write_volume(loaded.voxels, tmp_path / "o.mha", loaded.source, provenance(), kind="itk")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_nan_reaches_a_file(put, tmp_path, value):
    loaded = load(put(), None, None)
    loaded.voxels[1, 2, 3] = value
    with pytest.raises(OutputError, match="has 1 of 210 voxels that are NaN or infinite"):
        write_volume(loaded.voxels, tmp_path / "o.nii", loaded.source, provenance())
    assert [path.name for path in tmp_path.iterdir()] == ["t1.nii.gz"]


def test_values_so_far_from_0_that_their_differences_are_lost_are_told(put):
    def shift(header):
        header["scl_slope"], header["scl_inter"] = 1.0, 1e8

    assert "about 12 steps" in load(put(edit=shift), None, None).source.warnings[0]


def test_one_volume_has_no_series(put):
    with pytest.raises(UsageError, match="only in DICOM"):
        load(put(), "4", None)


@pytest.mark.parametrize("packed", [True, False])
def test_the_content_tells_the_kind_of_a_file_without_a_suffix(tmp_path, packed):
    path = tmp_path / "scan"
    path.write_bytes(nifti_bytes(packed=packed))
    assert load(path, None, None).source.kind == "nifti"


def test_another_shape_is_another_grid(put):
    volume, other = read_volume(put()), read_volume(put("b.nii", shape=(7, 6, 4)))
    with pytest.raises(GeometryError, match="same shape, found 7 x 6 x 5 and 7 x 6 x 4"):
        require_same_grid(volume, other, "The two")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux has a file that fails")
def test_an_error_of_the_disk_is_told_as_such():
    with pytest.raises(UnreadableFileError, match=r"cannot be read .*Input/output error"):
        load(Path("/proc/self/mem"), None, None)  # its first bytes give EIO


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(UnreadableFileError, match="expected a file, found something else"):
        load(tmp_path / "a.nii", None, None)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("dim", [0, 7, 6, 5, 1, 1, 1, 1], "field dim is"),
        ("dim", [8, 7, 6, 5, 1, 1, 1, 1], "field dim is"),
        ("dim", [3, 7, 0, 5, 1, 1, 1, 1], "at least 1 voxel"),
        ("dim", [3, 7, -6, 5, 1, 1, 1, 1], "at least 1 voxel"),
        ("vox_offset", np.nan, "vox_offset is nan"),
        ("vox_offset", 352.5, "whole number from 352"),
        ("vox_offset", 348, "whole number from 352"),
        ("vox_offset", 2.0**32, "vox_offset"),
        ("magic", b"n+3", "expected a NIfTI header"),
    ],
)
def test_a_field_that_cannot_be_is_named(put, name, value, words):
    with pytest.raises((GeometryError, UnreadableFileError), match=words):
        load(put(edit=set_field(name, value)), None, None)


@pytest.mark.parametrize("slope", [0, np.nan])
def test_no_slope_is_no_scaling(put, slope):
    def edit(header):
        header["scl_slope"], header["scl_inter"] = slope, 7

    plain, path = load(put(), None, None), put("b.nii.gz", edit=edit)
    assert np.array_equal(load(path, None, None).voxels, plain.voxels)


def test_a_slope_without_an_intercept(put):
    def edit(header):
        header["scl_slope"], header["scl_inter"] = 2, np.nan

    plain, path = load(put(), None, None), put("b.nii.gz", edit=edit)
    assert np.array_equal(load(path, None, None).voxels, 2 * plain.voxels)


def test_a_qfac_of_0_is_not_flipped(put):
    def edit(header, qfac=0.0):
        header.set_qform(np.diag([2.0, 2, 3, 1]), 1)
        header["sform_code"], header["pixdim"][0] = 0, qfac

    assert np.array_equal(load(put(edit=edit), None, None).affine, np.diag([2.0, 2, 3, 1]))


def test_values_beyond_float32_are_refused_and_counted(put):
    def edit(header):
        header["scl_slope"], header["scl_inter"] = 1e38, 0

    path = put(dtype=np.float64, edit=edit)
    large = int((nib.load(path).get_fdata() > np.finfo(np.float32).max).sum())
    with pytest.raises(UnreadableFileError, match=f"{large} of 210 voxels are beyond 3.4e"):
        load(path, None, None)


def test_more_memory_than_there_is():
    sentence = r"^a\.nii: the file needs more memory than there is\. Crop"
    with pytest.raises(UnreadableFileError, match=sentence), unreadable_on_error(Path("a.nii")):
        np.empty(2**60, np.uint8)
