"""`medtrans align`: known movements are found, and what is written says what it is."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medtrans.cli.align import AlignRequest, align_manifest
from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest, write_manifest
from medtrans.errors import GeometryError, ManifestError, OutputError, UsageError
from medtrans.phantom.heads import ScanProtocol, make_subject
from medtrans.registration import rigid
from medtrans.registration.placed import Placed
from medtrans.registration.resampling import resample
from medtrans.registration.rigid import register, without_bias_field
from medtrans.registration.similarity import similarity
from medtrans.volumes import nifti, read_volume, require_same_grid

LEVELS = (6.0, 3.0)  # of phantoms of 3 mm
HEAD = make_subject(1, 0, ScanProtocol(("t1", "t2"), (60, 74, 60), (3.0, 3.0, 3.0)))


def moved(shift_mm: tuple[float, float, float], turn_deg: tuple[float, float, float]) -> Any:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(turn_deg)).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


MOVE = moved((9.0, -6.0, 11.0), (4.0, -7.0, 5.0))


def request(manifest: Path, out: Path, **changes: Any) -> AlignRequest:
    given: dict[str, Any] = {"task": None, "to": None, "n4": False, "threshold": 0.015}
    return AlignRequest(manifest, out, **(given | changes))


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """One subject whose T1 was moved, and one whose "T1" is a ramp of no use."""
    folder = tmp_path / "in"
    folder.mkdir()
    flat = np.indices(HEAD.labels.shape)[0].astype(np.float32)
    rows = []
    for subject, t1 in (("a", HEAD.images["t1"]), ("b", flat)):
        nifti.save_array(folder / f"{subject}-t2.nii.gz", HEAD.images["t2"], HEAD.affine)
        nifti.save_array(folder / f"{subject}-t1.nii.gz", t1, MOVE @ HEAD.affine)
        for contrast in ("t1", "t2"):
            path = f"{subject}-{contrast}.nii.gz"
            rows.append({"subject": subject, "contrast": contrast, "path": path, "split": "train"})
    mask = (HEAD.labels > 0).astype(np.uint8)
    nifti.save_array(folder / "a-mask.nii.gz", mask, MOVE @ HEAD.affine)
    rows[0] |= {"mask": "a-mask.nii.gz", "site": "here"}
    write_manifest(folder / "in.csv", rows)
    return folder / "in.csv"


@pytest.mark.parametrize("turn_deg", [(0, 0, 0), (5, 3, -8)])
def test_a_known_movement_is_found(turn_deg: tuple[float, float, float]) -> None:
    fixed = Placed.of(HEAD.images["t2"], HEAD.affine)
    true = moved((12.0, 7.0, -9.0), turn_deg)
    moving = Placed.of(HEAD.images["t1"], true @ HEAD.affine)
    found = register(fixed, moving, LEVELS)
    centre = [*fixed.centre_mm, 1]
    assert np.linalg.norm(((found - true) @ centre)[:3]) < 0.5
    turn = Rotation.from_matrix(found[:3, :3] @ true[:3, :3].T).magnitude()
    assert np.degrees(turn) < 0.5


def test_the_same_images_give_the_same_movement() -> None:
    fixed = Placed.of(HEAD.images["t2"], HEAD.affine)
    moving = Placed.of(HEAD.images["t1"], MOVE @ HEAD.affine)
    once, again = (register(fixed, moving, (6.0,)) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_similarity_tells_a_pair_from_two_people() -> None:
    fixed = Placed.of(HEAD.images["t2"], HEAD.affine)
    right = similarity(fixed, Placed.of(HEAD.images["t1"], HEAD.affine), np.eye(4))
    wrong = similarity(fixed, Placed.of(HEAD.images["t1"][::-1, ::-1], HEAD.affine), np.eye(4))
    assert right.gain > 3 * wrong.gain
    assert right.doubt() is None
    assert "doubtful" in str(right.doubt(least_gain=1.0))
    assert right.overlap == 1
    apart = similarity(
        fixed, Placed.of(HEAD.images["t1"], moved((150, 0, 0), (0, 0, 0)) @ HEAD.affine), np.eye(4)
    )
    assert "share only" in str(apart.doubt())


def test_resampling_there_and_back() -> None:
    """A turned grid's voxels are where the movement says, and exact background stays exact."""
    voxels = np.where(HEAD.labels > 0, HEAD.images["t2"] + 50, -3).astype(np.float32)
    there = resample(voxels, MOVE @ HEAD.affine, MOVE, voxels.shape, HEAD.affine)
    np.testing.assert_allclose(there, voxels, atol=0.02 * voxels.max())
    assert there[0, 0, 0] == -3
    assert there.min() >= voxels.min() and there.max() <= voxels.max()
    coarse = np.diag([3.0, 3.0, 12.0, 1.0])
    coarse[:3, 3] = HEAD.affine[:3, 3]
    thick = resample(HEAD.images["t2"], HEAD.affine, np.eye(4), (60, 74, 15), coarse)
    assert thick.shape == (60, 74, 15)
    assert thick.std() < HEAD.images["t2"][:, :, ::4].std()  # smoothed, not picked


def test_the_bias_field_is_taken_out() -> None:
    slope = np.exp(np.linspace(-0.5, 0.5, 60))[:, None, None]
    region = HEAD.labels > 0
    biased = (HEAD.images["t2"] * slope).astype(np.float32)
    after = without_bias_field(biased, HEAD.affine, region)

    def unevenness(voxels: Any) -> float:
        ratio = voxels[region] / np.maximum(HEAD.images["t2"][region], 1)
        return float(ratio.std() / ratio.mean())

    assert unevenness(after) < 0.6 * unevenness(biased)


def test_a_sheared_image_and_one_far_away_are_refused() -> None:
    fixed = Placed.of(HEAD.images["t2"], HEAD.affine)
    shear = np.eye(4)
    shear[0, 1] = 0.3
    with pytest.raises(GeometryError, match="right angles"):
        register(fixed, fixed._replace(affine=HEAD.affine @ shear), LEVELS)


def test_a_cohort_is_aligned(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = align_manifest(request(cohort, out))
    assert (result["onto"], result["resampled"], result["exit_code"]) == ("t2", 2, 0)
    rows = list(csv.DictReader((out / "manifest.csv").read_text("utf-8").splitlines()))
    by = {(row["subject"], row["contrast"]): row for row in rows}
    good, bad = by["a", "t1"], by["b", "t1"]
    assert good["aligned"] == "resampled" and not good["unpaired"] and good["site"] == "here"
    assert bad["unpaired"] and result["marked_as_unpaired"] == 1
    # The T1 lies on the T2, as its phantom was made.
    t1, t2 = read_volume(out / good["path"]), read_volume(out / by["a", "t2"]["path"])
    require_same_grid(t1, t2, "The two")
    brain = HEAD.labels > 5
    assert np.corrcoef(t1.numpy()[brain], HEAD.images["t1"][brain])[0, 1] > 0.95
    mask = read_volume(out / good["mask"]).numpy() > 0
    assert (mask == (HEAD.labels > 0)).mean() > 0.97
    # It says what it is.
    record = json.loads((out / "a/t1_on-t2_resampled.json").read_text())
    assert (
        record["Resampled"] and not record["Synthetic"] and "not the original" in record["Notice"]
    )
    np.testing.assert_allclose(np.array(record["Movement"])[:3, :3], MOVE[:3, :3], atol=0.01)
    header = gzip.decompress((out / good["path"]).read_bytes())[:348]
    assert b"not the original" in header
    # Train does not pair what is marked, and says so.
    listed = Manifest.read(out / "manifest.csv")
    assert [pair.source.subject for pair in listed.pairs("t1", "t2", "train")] == ["a"]
    assert "subject b" in listed.left_out("t1", "t2", "train")
    assert listed.left_out("t1", "t2", "val") == ""
    # A rerun leaves what is there; a file that was changed is made anew.
    before = (out / good["path"]).stat().st_mtime_ns
    again = align_manifest(request(cohort, out))
    assert all("done before" in row["result"] for row in again["pairs"])
    assert (out / good["path"]).stat().st_mtime_ns == before
    (out / good["path"]).write_bytes(b"")
    third = align_manifest(request(cohort, out))
    assert [row["result"] for row in third["pairs"]] == ["resampled", "resampled (done before)"]


def test_the_same_grid_is_left_alone_and_n4_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rigid, "_N4_ITERATIONS", (2,))
    for contrast, image in HEAD.images.items():
        nifti.save_array(tmp_path / f"{contrast}.nii.gz", image, HEAD.affine)
    rows = [
        {"subject": "a", "contrast": c, "path": f"{c}.nii.gz", "sha256": ""} for c in ("t1", "t2")
    ]
    write_manifest(tmp_path / "in.csv", rows)
    task = Task("t2", "t1")
    plain = align_manifest(request(tmp_path / "in.csv", tmp_path / "plain", task=task))
    assert (plain["onto"], plain["on_the_same_grid"]) == ("t1", 1)
    [t2] = Manifest.read(tmp_path / "plain/manifest.csv").entries(contrast="t2")
    assert t2.path.resolve() == tmp_path / "t2.nii.gz"
    align_manifest(request(tmp_path / "in.csv", tmp_path / "n4", n4=True))
    listed = Manifest.read(tmp_path / "n4/manifest.csv")
    assert sorted(e.path.name for e in listed.entries()) == ["t1_on-t2_n4.nii.gz", "t2_n4.nii.gz"]
    assert listed.verify() == 2
    again = align_manifest(request(tmp_path / "in.csv", tmp_path / "n4", n4=True))
    assert "done before" in again["pairs"][0]["result"]


def test_what_cannot_be_aligned_is_marked(tmp_path: Path) -> None:
    nifti.save_array(tmp_path / "t2.nii.gz", HEAD.images["t2"], HEAD.affine)
    nifti.save_array(tmp_path / "t1.nii.gz", HEAD.images["t1"][:, :, 30:31], HEAD.affine)
    rows = [{"subject": "a", "contrast": c, "path": f"{c}.nii.gz"} for c in ("t1", "t2")]
    write_manifest(tmp_path / "in.csv", rows)
    result = align_manifest(request(tmp_path / "in.csv", tmp_path / "out"))
    assert (result["failed"], result["exit_code"]) == (1, 2)
    with pytest.raises(ManifestError, match="unpaired says"):
        Manifest.read(tmp_path / "out/manifest.csv").require_pairs("t1", "t2", None)


def test_wrong_requests(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown contrast"):
        align_manifest(request(cohort, tmp_path / "out", to="t3"))
    with pytest.raises(ManifestError, match="no volume of another contrast"):
        align_manifest(request(cohort, tmp_path / "out", to="ct"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.csv").write_text("mine")
    with pytest.raises(OutputError, match="did not write it"):
        align_manifest(request(cohort, tmp_path / "out"))
    own = tmp_path / "in" / "manifest.csv"
    own.write_text(cohort.read_text())
    with pytest.raises(OutputError, match="another folder"):
        align_manifest(request(own, tmp_path / "in"))
