"""The phantom: its physics, its anatomy, and that it is the same every time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from medtrans.data.manifest import CONTRASTS, Manifest
from medtrans.errors import OutputError, UsageError
from medtrans.phantom.heads import (
    LABELS,
    SEQUENCES,
    TISSUES,
    Phantom,
    PulseSequence,
    ScanProtocol,
    Tissue,
    make_subject,
    signal,
    write_subjects,
)
from medtrans.volumes import nifti

TINY = ScanProtocol(shape=(2, 2, 2))
WITH_LESION = 0  # a subject of seed 1 that has one


def small(contrasts: Sequence[str] = ("t1", "t2"), **options: Any) -> ScanProtocol:
    return ScanProtocol(contrasts, shape=(32, 40, 16), spacing_mm=(6.0, 5.6, 12.0), **options)


@pytest.fixture(scope="module")
def head() -> Phantom:
    protocol = ScanProtocol(CONTRASTS, shape=(64, 75, 64), spacing_mm=(3.0, 3.0, 3.0))
    return make_subject(1, WITH_LESION, protocol)


def level(head: Phantom, contrast: str, tissue: str) -> float:
    """Median in the middle of a tissue, away from partial volume where it is thick enough."""
    mask = head.labels == LABELS[tissue]
    inner = binary_erosion(mask)
    return float(np.median(head.images[contrast][inner if inner.sum() > 20 else mask]))


# Physics -----------------------------------------------------------------------------------------


def test_spin_echo_and_inversion_recovery_in_their_limits() -> None:
    tissue = Tissue("x", t1_ms=800, t2_ms=90, pd=0.7, hu=0)
    assert signal(tissue, PulseSequence(1e9, 0)) == pytest.approx(0.7)
    assert signal(tissue, PulseSequence(1e9, 90)) == pytest.approx(0.7 / math.e)
    assert signal(tissue, PulseSequence(800, 0)) == pytest.approx(0.7 * (1 - 1 / math.e))
    assert signal(tissue, PulseSequence(1e9, 0, 800 * math.log(2))) == pytest.approx(0, abs=1e-9)
    assert signal(tissue, PulseSequence(1e9, 0, 1e-9)) == pytest.approx(-0.7)


def test_gadolinium_changes_only_the_tissues_that_take_it_up() -> None:
    for tissue in TISSUES:
        plain, enhanced = signal(tissue, SEQUENCES["t1"]), signal(tissue, SEQUENCES["t1c"])
        if tissue.enhanced_t1_ms is None:
            assert enhanced == plain
        else:
            assert enhanced > 2 * plain


def test_flair_nulls_csf() -> None:
    csf, grey = TISSUES[LABELS["csf"]], TISSUES[LABELS["grey"]]
    assert abs(signal(csf, SEQUENCES["flair"])) < 0.05 * signal(grey, SEQUENCES["flair"])


@pytest.mark.parametrize(
    ("contrast", "order"),
    [
        ("t1", ["scalp", "white", "deep_grey", "grey", "csf", "air"]),
        ("mr", ["scalp", "white", "deep_grey", "grey", "csf", "air"]),
        ("t1c", ["lesion", "white", "grey", "oedema", "csf"]),
        ("t2", ["csf", "oedema", "grey", "white", "muscle", "bone"]),
        ("flair", ["oedema", "grey", "white", "csf"]),
        ("pd", ["grey", "white", "marrow", "bone", "air"]),
        ("ct", ["bone", "marrow", "grey", "white", "csf", "scalp", "air"]),
    ],
)
def test_tissues_are_ordered_as_radiology_knows_them(
    head: Phantom, contrast: str, order: list[str]
) -> None:
    levels = [level(head, contrast, tissue) for tissue in order]
    assert levels == sorted(levels, reverse=True), dict(zip(order, levels, strict=True))


def test_ct_is_in_hounsfield_units(head: Phantom) -> None:
    assert level(head, "ct", "air") == pytest.approx(-1000, abs=5)
    assert 25 < level(head, "ct", "white") < level(head, "ct", "grey") < 45
    assert 0 < level(head, "ct", "csf") < 20
    assert np.percentile(head.images["ct"][head.labels == LABELS["bone"]], 90) > 900


def test_mr_is_a_magnitude_in_scanner_units(head: Phantom) -> None:
    for contrast in SEQUENCES:
        image = head.images[contrast]
        assert image.min() >= 0
        assert 200 < np.percentile(image, 99) < 5000
        assert 0 < image[head.labels == LABELS["air"]].mean() < 60  # Rician: never a mean of 0


def test_air_noise_is_rician() -> None:
    protocol = ScanProtocol(["t2"], shape=(30, 30, 30), spacing_mm=(20.0, 1.0, 1.0))
    corner = make_subject(3, 0, protocol)
    noise = corner.images["t2"][:4]
    assert noise.mean() / noise.std() == pytest.approx(math.sqrt(math.pi / (4 - math.pi)), rel=0.05)


# Sameness ----------------------------------------------------------------------------------------


def test_the_same_arguments_make_the_same_subject() -> None:
    first, again = make_subject(7, 2, small()), make_subject(7, 2, small())
    assert first.labels.tobytes() == again.labels.tobytes()
    for contrast in ("t1", "t2"):
        assert first.images[contrast].tobytes() == again.images[contrast].tobytes()


def test_seed_and_index_each_make_another_head() -> None:
    labels = [make_subject(*key, small()).labels for key in ((0, 0), (0, 1), (1, 0))]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0.02 < np.mean(labels[a] != labels[b]) < 0.6


def test_a_contrast_does_not_depend_on_its_company() -> None:
    together = make_subject(0, 0, small(("ct", "t1", "t2")))
    for contrast in ("t2", "ct"):
        alone = make_subject(0, 0, small((contrast,)))
        assert np.array_equal(alone.images[contrast], together.images[contrast])
        assert np.array_equal(alone.labels, together.labels)


def test_mr_is_another_acquisition_of_t1() -> None:
    images = make_subject(0, 0, small(("t1", "mr"))).images
    assert not np.array_equal(images["t1"], images["mr"])
    assert np.corrcoef(images["t1"].ravel(), images["mr"].ravel())[0, 1] > 0.95


def test_the_head_does_not_depend_on_the_grid() -> None:
    fine = make_subject(0, 0, ScanProtocol(shape=(41, 49, 41), spacing_mm=(4.0, 4.0, 4.0)))
    coarse = make_subject(0, 0, ScanProtocol(shape=(21, 25, 21), spacing_mm=(8.0, 8.0, 8.0)))
    assert np.mean(fine.labels[::2, ::2, ::2] == coarse.labels) > 0.999


# Form --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(32, 40, 16), (20, 20, 1), (1, 1, 1)])
def test_any_grid_works_and_is_centred(shape: tuple[int, int, int]) -> None:
    phantom = make_subject(0, 0, ScanProtocol(shape=shape, spacing_mm=(3.0, 2.0, 5.0)))
    assert phantom.images["t1"].shape == phantom.labels.shape == shape
    assert phantom.images["t1"].dtype == np.float32
    assert phantom.labels.dtype == np.uint8
    assert phantom.affine.dtype == np.float64
    middle = phantom.affine @ [*((n - 1) / 2 for n in shape), 1]
    assert middle == pytest.approx([0, 0, 0, 1])
    assert np.diag(phantom.affine).tolist() == [3, 2, 5, 1]


def test_values_are_whole_numbers_that_fit_int16(head: Phantom) -> None:
    for image in head.images.values():
        assert np.array_equal(image, image.astype(np.int16))


def test_every_tissue_is_there(head: Phantom) -> None:
    assert set(np.unique(head.labels)) == set(LABELS.values())


def test_some_subjects_have_a_lesion_and_some_none() -> None:
    has = [(make_subject(1, i, small(("ct",))).labels >= LABELS["oedema"]).any() for i in range(6)]
    assert has[WITH_LESION]
    assert not all(has)


def test_skull_stripping_only_takes_away() -> None:
    whole = make_subject(0, 0, small(("t1", "ct")))
    bare = make_subject(0, 0, small(("t1", "ct"), skull_stripped=True))
    brain = bare.labels != LABELS["air"]
    assert 0.1 < brain.mean() < 0.5
    assert not np.isin(bare.labels, [LABELS["bone"], LABELS["scalp"]]).any()
    for contrast, outside in (("t1", 0), ("ct", -1000)):
        assert np.array_equal(bare.images[contrast][brain], whole.images[contrast][brain])
        assert (bare.images[contrast][~brain] == outside).all()


@pytest.mark.parametrize(
    ("seed", "index", "options", "fragment"),
    [
        (0, 0, {"contrasts": ("t1", "t9")}, "Unknown contrast 't9'"),
        (0, 0, {"contrasts": ()}, "No contrast"),
        (0, 0, {"shape": (8, 8)}, "three sizes"),
        (0, 0, {"shape": (8, 0, 8)}, "above 0"),
        (0, 0, {"spacing_mm": (1.0, -1.0, 1.0)}, "above 0"),
        (-1, 0, {}, "0 or more"),
        (0, -1, {}, "0 or more"),
    ],
)
def test_what_cannot_be_made(seed: int, index: int, options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(UsageError, match=fragment):
        make_subject(seed, index, ScanProtocol(**options))


# Writing -----------------------------------------------------------------------------------------

Saved = dict[Path, tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Saved:
    """Catch what would be written, and leave an empty file where it would be."""
    files: Saved = {}

    def save_array(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
        path.touch()
        files[path] = array, affine

    monkeypatch.setattr(nifti, "save_array", save_array, raising=False)
    return files


def test_a_cohort_is_written_with_its_manifest(tmp_path: Path, saved: Saved) -> None:
    calls: list[tuple[int, int]] = []
    csv = write_subjects(
        tmp_path / "new" / "cohort",
        3,
        small(("t1", "ct")),
        seed=5,
        on_subject=lambda *call: calls.append(call),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    manifest = Manifest.read(csv)
    assert [manifest.subjects(s) for s in ("train", "val", "test")] == [
        ["sub-001"],
        ["sub-002"],
        ["sub-003"],
    ]
    assert {entry.path for entry in manifest.entries()} == set(saved)
    made = make_subject(5, 1, small(("t1", "ct")))
    array, affine = saved[tmp_path / "new" / "cohort" / "sub-002" / "ct.nii.gz"]
    assert array.dtype == np.int16
    assert np.array_equal(array, made.images["ct"])
    assert np.array_equal(affine, made.affine)


@pytest.mark.parametrize(
    ("count", "splits"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (20, (14, 3, 3))]
)
@pytest.mark.usefixtures("saved")
def test_splits_by_subject(tmp_path: Path, count: int, splits: tuple[int, int, int]) -> None:
    csv = write_subjects(tmp_path, count, TINY)
    manifest = Manifest.read(csv)
    assert tuple(len(manifest.subjects(s)) for s in ("train", "val", "test")) == splits


@pytest.mark.usefixtures("saved")
def test_a_cohort_that_is_stopped_has_no_manifest(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_subjects(tmp_path, 2, TINY, on_subject=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["sub-001"]


def test_a_cohort_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        write_subjects(tmp_path, 0)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        write_subjects(tmp_path / "file", 1, TINY)


@pytest.mark.skipif(not hasattr(nifti, "save_array"), reason="nothing writes arrays yet")
def test_the_files_hold_the_subject(tmp_path: Path) -> None:
    csv = write_subjects(tmp_path, 1, small(("t1", "ct")))
    made = make_subject(0, 0, small(("t1", "ct")))
    for entry in Manifest.read(csv).entries():
        loaded = nifti.read(entry.path)
        assert np.array_equal(loaded.voxels, made.images[entry.contrast])
        assert np.allclose(loaded.affine, made.affine)
