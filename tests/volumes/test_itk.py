"""MHA, MHD and NRRD behind the same guard."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medtrans.errors import GeometryError, MedtransError, OutputError, UnreadableFileError
from medtrans.volumes import output_path, write_volume
from medtrans.volumes.files import load
from tests.volumes.builders import nifti_bytes, provenance

SUFFIXES = [".mha", ".mhd", ".nrrd", ".nhdr"]


def oblique(seed=0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    q[:, 2] = np.cross(q[:, 0], q[:, 1])
    image = SimpleITK.GetImageFromArray(rng.normal(size=(4, 5, 6)).astype(np.float32))
    image.SetDirection(q.ravel().tolist())
    image.SetSpacing((1 / 3, 0.7, np.pi))
    image.SetOrigin((100 / 7, -22.123456789012, 3))
    return image


def put(folder, suffix, packed, image=None):
    path = folder / f"a{suffix}"
    SimpleITK.WriteImage(image or oblique(), str(path), packed)
    return path


def test_a_header_that_came_from_nifti(tmp_path):
    """SimpleITK writes the NIfTI fields with brackets, and an empty line after a matrix."""
    SimpleITK.WriteImage(oblique(), str(tmp_path / "a.nii"))
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii"))
    image.SetMetaData("qfac", "[UNKNOWN_PRINT_CHARACTERISTICS]\n")
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    header = (tmp_path / "a.mha").read_bytes().partition(b"LOCAL")[0]
    assert b"dim[0] = " in header
    assert b"\n\n" in header
    found = load(tmp_path / "a.mha", None, None)
    assert np.array_equal(found.voxels, SimpleITK.GetArrayFromImage(image).T)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_voxels_and_places_are_those_of_simpleitk(tmp_path, suffix, packed):
    path = put(tmp_path, suffix, packed)
    loaded = load(path, None, None)
    image = SimpleITK.ReadImage(str(path))
    assert np.array_equal(loaded.voxels, SimpleITK.GetArrayFromImage(image).T)
    lps = image.TransformIndexToPhysicalPoint((5, 4, 3))
    assert np.allclose((loaded.affine @ [5, 4, 3, 1])[:3], np.array(lps) * [-1, -1, 1])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_grid_comes_back(tmp_path, suffix):
    loaded = load(put(tmp_path, suffix, True), None, None)
    goal = output_path(loaded.source, "t1-to-t2")
    assert goal.suffix in (".mha", ".nrrd")
    out, sidecar = write_volume(loaded.voxels, goal, loaded.source, provenance())
    again = load(out, None, None)
    assert np.array_equal(again.voxels, loaded.voxels)
    if suffix in (".mha", ".mhd"):
        assert again.source.header == loaded.source.header
    assert np.abs(again.affine - loaded.affine).max() < 1e-14
    assert b"SYNTHETIC t1-to-t2 by medtrans" in out.read_bytes()
    assert sidecar.exists()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncation_is_refused(tmp_path, suffix, packed):
    path = put(tmp_path, suffix, packed)
    data = path if suffix in (".mha", ".nrrd") else next(p for p in tmp_path.iterdir() if p != path)
    whole = data.read_bytes()
    for end in np.random.default_rng(0).integers(0, len(whole), 50):
        data.write_bytes(whole[:end])
        with pytest.raises(MedtransError):
            load(path, None, None)
    data.write_bytes(whole + b"\0" * 3 + b"x")
    with pytest.raises(UnreadableFileError):
        load(path, None, None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_in_packed_voxels_is_refused(tmp_path, suffix):
    path = put(tmp_path, suffix, True)
    data = path if suffix in (".mha", ".nrrd") else next(p for p in tmp_path.iterdir() if p != path)
    content = bytearray(data.read_bytes())
    content[-60] ^= 4
    data.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="damaged"):
        load(path, None, None)


def test_volumes_flat_images_and_vectors(tmp_path):
    rng = np.random.default_rng(0)
    four = SimpleITK.GetImageFromArray(rng.normal(size=(2, 3, 4, 5)), isVector=False)
    path = put(tmp_path, ".nrrd", True, four)
    with pytest.raises(GeometryError, match="the file has 2"):
        load(path, None, None)
    picked = load(path, None, 1)
    assert np.allclose(picked.voxels, SimpleITK.GetArrayFromImage(four)[1].T)
    assert picked.source.shape == (5, 4, 3)
    flat = load(
        put(tmp_path, ".mha", False, SimpleITK.Image(5, 4, SimpleITK.sitkInt16)), None, None
    )
    assert flat.voxels.shape == (5, 4, 1)
    out, _ = write_volume(flat.voxels, tmp_path / "o.mha", flat.source, provenance())
    assert SimpleITK.ReadImage(str(out)).GetSize() == (5, 4)
    for kind in (SimpleITK.sitkVectorFloat32, SimpleITK.sitkComplexFloat32):
        image = SimpleITK.Image([3, 3, 3], kind)
        for suffix in (".mha", ".nrrd"):
            with pytest.raises(MedtransError):
                load(put(tmp_path, suffix, False, image), None, None)


def test_a_header_cannot_point_elsewhere(tmp_path):
    path = put(tmp_path, ".mhd", False)
    (tmp_path / "inner").mkdir()
    moved = tmp_path / "inner" / "a.mhd"
    for name in ("../a.raw", str(tmp_path / "a.raw"), "LIST", "a%d.raw"):
        moved.write_text(path.read_text().replace("a.raw", name))
        with pytest.raises(UnreadableFileError, match="one file beside it"):
            load(moved, None, None)


def test_crossing_over_from_nifti(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(packed=False))
    loaded = load(tmp_path / "a.nii", None, None)
    out, _ = write_volume(
        loaded.voxels, tmp_path / "o.mha", loaded.source, provenance(), kind="itk"
    )
    again = load(out, None, None)
    assert np.array_equal(again.affine, loaded.affine)
    assert np.array_equal(again.voxels, loaded.voxels)
    with pytest.raises(OutputError, match=r"\.mha or \.nrrd"):
        write_volume(loaded.voxels, tmp_path / "o.mhd", loaded.source, provenance(), kind="itk")


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("name", ["scan", "scan.mha", "scan.nrrd"])
def test_the_content_tells_the_kind_whatever_the_name(tmp_path, suffix, name):
    expected = load(put(tmp_path, suffix, True), None, None)
    (tmp_path / f"a{suffix}").rename(tmp_path / name)
    found = load(tmp_path / name, None, None)
    assert np.array_equal(found.voxels, expected.voxels)
    assert np.array_equal(found.affine, expected.affine)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("type: short", "type: block"),
        ("sizes: 2 2 2", "sizes: 2 2"),
        ("sizes: 2 2 2", "sizes: 2 2 -2"),
        ("dimension: 3", "dimension: 4"),
        ("encoding: raw", "encoding: bzip2"),
    ],
)
def test_a_header_that_declares_another_thing_is_refused(tmp_path, old, new):
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nendian: little\n\n"
    path = tmp_path / "a.nrrd"
    path.write_bytes(header.encode() + bytes(16))
    assert load(path, None, None).shape == (2, 2, 2)
    path.write_bytes(header.replace(old, new).encode() + bytes(16))
    with pytest.raises(UnreadableFileError, match="damaged or unusual"):
        load(path, None, None)


@pytest.mark.parametrize("axes", [1, 5])
def test_a_header_of_other_than_two_to_four_axes_is_refused(tmp_path, axes):
    sizes = " ".join(["2"] * axes)
    header = f"NRRD0004\ntype: short\ndimension: {axes}\nsizes: {sizes}\nencoding: raw\n"
    (tmp_path / "a.nrrd").write_bytes(f"{header}endian: little\n\n".encode() + bytes(2 * 2**axes))
    with pytest.raises(GeometryError, match="2 or 3 axes, or 4 with time"):
        load(tmp_path / "a.nrrd", None, None)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    loaded = load(put(tmp_path, ".mha", True), None, None)
    out, sidecar = write_volume(loaded.voxels, tmp_path / "o.mha", loaded.source, provenance())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(image, name, useCompression):
        Path(name).write_bytes(b"half")
        raise RuntimeError("itk::ERROR: could not write")

    monkeypatch.setattr(SimpleITK, "WriteImage", fail)
    with pytest.raises(OutputError, match="SimpleITK could not write"):
        write_volume(loaded.voxels * 2, tmp_path / "o.mha", loaded.source, provenance())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert {out, sidecar} <= before.keys()
