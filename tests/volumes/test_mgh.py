"""FreeSurfer's MGH and MGZ: read as nibabel reads them, written on the same grid, guarded."""

import gzip
import json

import numpy as np
import pytest
from nibabel.freesurfer import MGHImage

from medtrans.errors import GeometryError, MedtransError, OutputError, UnreadableFileError
from medtrans.volumes import describe, output_path, write_volume
from medtrans.volumes.files import load
from medtrans.volumes.mgh import GRID_FIELDS
from tests.volumes.builders import dicom_series, nifti_bytes, provenance

TURNED = np.array([[-1.0, 0, 0.02, 90], [0.02, 0, 1.0, -120], [0, -1.0, 0, 110], [0, 0, 0, 1]])


def image(path, dtype=np.uint8, shape=(7, 6, 5), affine=TURNED, edit=None, footer=b""):
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    made = MGHImage(voxels, affine)
    if edit:
        edit(made.header)
    content = bytearray(made.to_bytes() + footer)
    path.write_bytes(gzip.compress(content) if path.name.lower().endswith("z") else content)
    return path


def opened(path):
    """As nibabel reads it; a file that it opens by name it leaves open."""
    content = path.read_bytes()
    return MGHImage.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def patched(path, at, value):
    """The header's bytes from `at` on replaced, whatever nibabel would make of them."""
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["t1.mgz", "t1.mgh", "T1.MGZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_as_nibabel_reads_it(tmp_path, name, dtype):
    path = image(tmp_path / name, dtype)
    loaded, theirs = load(path, None, None), opened(path)
    assert np.array_equal(loaded.voxels, np.asanyarray(theirs.dataobj))
    assert np.array_equal(loaded.affine, theirs.affine)
    assert loaded.source.kind == "mgh"
    assert loaded.source.contrast == "t1"
    assert loaded.dtype == np.dtype(dtype).name
    assert not loaded.source.warnings


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.bool_, np.int64])
def test_out_on_the_same_grid_and_labelled(tmp_path, suffix, dtype):
    source = load(image(tmp_path / "t1.mgz"), None, None)
    voxels = (source.voxels > 50).astype(dtype) if dtype != np.float32 else source.voxels / 3
    out, sidecar = write_volume(voxels, tmp_path / f"o{suffix}", source.source, provenance())
    again = load(out, None, None)
    assert np.array_equal(again.voxels, voxels)
    before, after = source.source.header, again.source.header
    for name in GRID_FIELDS:
        assert before[name].tobytes() == after[name].tobytes(), name
    theirs = opened(out)
    assert np.array_equal(np.asanyarray(theirs.dataobj), voxels)
    assert np.array_equal(theirs.affine, source.affine)
    assert json.loads(sidecar.read_text())["Synthetic"] is True
    content = out.read_bytes() if suffix == ".mgh" else gzip.decompress(out.read_bytes())
    label = provenance().label().encode()
    assert content.endswith(b"\0\0\0\3" + (len(label) + 1).to_bytes(8, "big") + label + b"\0")


def test_the_name_of_a_result(tmp_path):
    source = load(image(tmp_path / "t1.mgz"), None, None).source
    assert output_path(source, "t1-to-t2").name == "t1_t2-synthetic.mgz"
    assert output_path(source, "t1-to-t2", "nifti").name == "t1_t2-synthetic.nii.gz"
    with pytest.raises(OutputError, match=r"ends in .mgz or .mgh for MGH output"):
        write_volume(np.zeros((7, 6, 5)), tmp_path / "o.nii.gz", source, provenance())


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_from_and_to_other_kinds(tmp_path, kind):
    if kind == "nifti":
        (tmp_path / "a.nii.gz").write_bytes(nifti_bytes(affine=TURNED))
        source = load(tmp_path / "a.nii.gz", None, None)
    else:
        source = load(dicom_series(tmp_path / "s"), None, None)
    out, _ = write_volume(
        source.voxels, tmp_path / "o.mgz", source.source, provenance(), kind="mgh"
    )
    mgz = load(out, None, None)
    assert np.array_equal(mgz.voxels, source.voxels)
    assert np.allclose(mgz.affine, source.affine, atol=1e-4)
    back, _ = write_volume(mgz.voxels, tmp_path / "b.nii", mgz.source, provenance(), kind="nifti")
    assert np.array_equal(load(back, None, None).voxels, source.voxels)


def test_a_grid_that_it_cannot_hold(tmp_path):
    sheared = TURNED + np.array([[0, 0.3, 0, 0], *[[0] * 4] * 3])
    (tmp_path / "a.nii.gz").write_bytes(nifti_bytes(affine=sheared))
    source = load(tmp_path / "a.nii.gz", None, None)
    with pytest.raises(OutputError, match="cannot hold the grid"):
        write_volume(source.voxels, tmp_path / "o.mgz", source.source, provenance(), kind="mgh")


def test_one_of_several_frames(tmp_path):
    path = image(tmp_path / "a.mgz", np.float32, (4, 3, 2, 3))
    with pytest.raises(GeometryError, match="found 3"):
        load(path, None, None)
    loaded = load(path, None, 2)
    assert np.array_equal(loaded.voxels, np.asanyarray(opened(path).dataobj)[..., 2])
    out, _ = write_volume(loaded.voxels, tmp_path / "o.mgz", loaded.source, provenance())
    assert opened(out).shape == (4, 3, 2)


def test_without_directions_they_are_assumed(tmp_path):
    path = patched(image(tmp_path / "a.mgh"), 28, b"\0\0")
    loaded = load(path, None, None)
    assert "left and right" in loaded.source.warnings[0]
    assert np.array_equal(loaded.affine, opened(path).affine)


def test_no_text_of_the_input_gets_through(tmp_path):
    text = b"\0\0\0\3" + (12).to_bytes(8, "big") + b"recon Doe^J\0"
    path = image(tmp_path / "a.mgz", footer=text)
    source = load(path, None, None)
    for name, kind in (("o.mgh", "mgh"), ("p.nii", "nifti")):
        for file in write_volume(
            source.voxels, tmp_path / name, source.source, provenance(), kind=kind
        ):
            assert b"Doe" not in file.read_bytes()


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, b"\0\0\0\2", "expected an MGH header"),
        (20, b"\0\0\0\7", "expected an MGH header"),
        (4, b"\0\0\0\0", "at least one voxel"),
        (4, b"\xff\xff\xff\xff", "at least one voxel"),
        (4, b"\0\0\x01\0" * 2, "declares 327964 bytes but"),
        (4, b"\0\0\x40\0" * 3, "at most"),
        (30, b"\x7f\xc0\0\0", "NaN"),
        (30, b"\0\0\0\0", "spacing"),
        (42, bytes(12), "spacing is 0"),
    ],
)
def test_a_header_that_cannot_be_trusted(tmp_path, at, value, words):
    path = patched(image(tmp_path / "a.mgh"), at, value)
    with pytest.raises((UnreadableFileError, GeometryError), match=words):
        load(path, None, None)


def test_damaged_files_are_refused(tmp_path):
    """Each of 200 flipped bits in a gzipped file is seen, and each of 100 truncations."""
    path = image(tmp_path / "a.mgz", np.int16, (12, 11, 10))
    packed, truth = path.read_bytes(), load(path, None, None)
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, len(packed) * 8, 200):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            assert np.array_equal(load(path, None, None).voxels, truth.voxels)
        except MedtransError:
            continue
    for end in rng.integers(0, len(packed), 100):
        path.write_bytes(packed[:end])
        with pytest.raises(UnreadableFileError):
            load(path, None, None)


def test_what_follows_the_voxels_is_bounded(tmp_path):
    load(image(tmp_path / "a.mgz", footer=bytes(2**20 - 20)), None, None)
    with pytest.raises(UnreadableFileError, match="holds more than"):
        load(image(tmp_path / "b.mgz", footer=bytes(2**24)), None, None)


def test_info(tmp_path):
    facts = describe(image(tmp_path / "flair.mgz"))
    assert facts["kind"] == "mgh"
    assert facts["contrast"] == "flair"
    assert facts["orientation"] == "LIA"
