"""Whatever numbers an image holds: a right result, or a refusal that says what and how many."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medtrans.errors import FileError, OutputError
from medtrans.inference import translator as translators
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.volumes import read_volume, write_volume
from tests import helpers
from tests.volumes.builders import dicom_series, provenance

HEAD = helpers.marked_head()
WIDE = HEAD.astype(np.float64)
SIZE = HEAD.size
INTEGERS = (
    np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64,
)  # fmt: skip
FINITE = "finite"  # a result of finite numbers that follows the input


def with_one(value: float) -> np.ndarray:
    voxels = HEAD.copy()
    voxels[5, 5, 5] = value
    return voxels


def with_share(value: float, share: float) -> np.ndarray:
    voxels = HEAD.copy()
    voxels.flat[: int(share * SIZE)] = value
    return voxels


def zero_slices() -> np.ndarray:
    voxels = HEAD.copy()
    voxels[:, :, 3], voxels[4], voxels[:, 6] = 0, 0, 0
    return voxels


def over_all_of(dtype: type[np.integer]) -> np.ndarray:
    limits = np.iinfo(dtype)
    share = HEAD.astype(np.float64) / HEAD.max()
    voxels = (share * float(limits.max // 2)).astype(dtype)
    voxels[0, 0, 0], voxels[HEAD.max() == HEAD] = limits.min, limits.max
    return voxels


# Name: voxels, what the window model makes of them, what the percentile model does, the warning.
# A text that is not `FINITE` is part of the refusal.
TABLE: dict[str, tuple[np.ndarray, str, str, str]] = {
    "one NaN": (with_one(np.nan), FINITE, FINITE, "1 of 2184 voxels were NaN"),
    "one infinity": (with_one(np.inf), FINITE, FINITE, "1 of 2184 voxels were NaN or infinite"),
    "one -infinity": (with_one(-np.inf), FINITE, FINITE, "1 of 2184 voxels were NaN or infinite"),
    "NaN, 40 %": (with_share(np.nan, 0.4), FINITE, FINITE, f"{int(0.4 * SIZE)} of 2184"),
    "NaN, 60 %": (with_share(np.nan, 0.6), "1310 of 2184 voxels are NaN", "1310 of 2184", ""),
    "NaN alone": (np.full_like(HEAD, np.nan), "2184 of 2184", "2184 of 2184", ""),
    "zeros": (np.zeros_like(HEAD), "All 2184 voxels have the value 0", "All 2184", ""),
    "one value": (np.full_like(HEAD, 7), "All 2184 voxels have the value 7", "All 2184", ""),
    "one voxel": (HEAD[5:6, 5:6, 5:6], "All 1 voxels", "All 1 voxels", ""),
    "zero slices": (zero_slices(), FINITE, FINITE, ""),
    "one voxel along x": (HEAD[5:6], FINITE, FINITE, ""),
    "one voxel along y": (HEAD[:, 6:7], FINITE, FINITE, ""),
    "one voxel along z": (HEAD[:, :, 4:5], FINITE, FINITE, ""),
    "a line": (HEAD[5:6, 6:7], FINITE, FINITE, "as a label map does"),
    "1e30": (HEAD * np.float32(1e30), FINITE, FINITE, ""),
    "1e-30": (HEAD * np.float32(1e-30), "nothing to translate", FINITE, ""),
    "1e-41": (HEAD * np.float32(1e-41), "nothing to translate", "32 bits. Multiply", ""),
    "beyond 32 bits": (WIDE * 1e300, "294 of 2184 voxels are beyond 3.4e+38", "294 of 2184", ""),
    "one beyond 32 bits": (WIDE * 3.8e35, "1 of 2184", "1 of 2184", ""),
    "far from 0": (WIDE + 1e9, FINITE, FINITE, "32 bits leave about 14 steps"),
    "one huge voxel": (with_one(3e38), FINITE, FINITE, ""),
    "one huge negative voxel": (with_one(-3e38), FINITE, FINITE, "it seems to be ct"),
    "two values": ((HEAD > 0).astype(np.uint8), FINITE, "both 1", "2 different values"),
    **{
        f"limits of {kind.__name__}": (
            over_all_of(kind), FINITE, FINITE, "" if np.iinfo(kind).min > -500 else "to be ct",
        )
        for kind in INTEGERS
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def window(identity_model: Path) -> Translator:
    """Identity on 0 ... 1000."""
    return Translator.load(identity_model, "cpu")


@pytest.fixture(scope="module")
def percentile(random_model: Path) -> Translator:
    return Translator.load(random_model, "cpu")


def translate(translator: Translator, voxels: np.ndarray, folder: Path) -> tuple[np.ndarray, str]:
    path = folder / "scan.nii.gz"
    nib.Nifti1Image(voxels, np.eye(4), dtype=voxels.dtype).to_filename(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # neither overflow nor a mean of nothing goes unseen
        written = translator.translate_file(Job(path, out=folder / "o.nii.gz"), Settings())
    return nib.load(written.outputs[0]).get_fdata(), " ".join(written.translation.warnings)


@pytest.mark.parametrize("name", TABLE)
class TestTable:
    def test_on_a_window(self, window: Translator, tmp_path: Path, name: str) -> None:
        voxels, expected, _, said = TABLE[name]
        if expected != FINITE:
            self.refused(window, voxels, tmp_path, expected)
            return
        found, warned = translate(window, voxels, tmp_path)
        known = np.where(np.isfinite(voxels), voxels, 0).astype(np.float64)
        if name == "far from 0":
            assert np.isfinite(found).all()  # the warning says why it can be no more
        else:
            np.testing.assert_allclose(found, np.clip(known, 0, 1000), atol=1e-2)
        assert said in warned
        assert bool(said) == bool(warned)

    def test_on_percentiles(self, percentile: Translator, tmp_path: Path, name: str) -> None:
        voxels, _, expected, said = TABLE[name]
        if expected != FINITE:
            self.refused(percentile, voxels, tmp_path, expected)
            return
        found, warned = translate(percentile, voxels, tmp_path)
        assert np.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1000
        assert found.std() > 0
        assert said in warned

    def refused(self, translator: Translator, voxels: np.ndarray, folder: Path, words: str) -> None:
        with pytest.raises(FileError) as caught:
            translate(translator, voxels, folder)
        assert words in str(caught.value)
        assert [path.name for path in folder.iterdir()] == ["scan.nii.gz"]


@pytest.mark.parametrize(
    ("spacing_mm", "said"),
    [(1e-3, None), (0.05, None), (50.0, None), (1e3, None), (5e-4, "spacing"), (2e3, "spacing")],
)
def test_spacings(window: Translator, tmp_path: Path, spacing_mm: float, said: str | None) -> None:
    affine = np.diag([spacing_mm] * 3 + [1.0])
    path = helpers.write_nifti(tmp_path / "t1.nii.gz", HEAD, affine)
    job = Job(path, out=tmp_path / "o.nii.gz")
    if said is not None:
        with pytest.raises(FileError, match=said):
            window.translate_file(job, Settings())
        return
    result = nib.load(window.translate_file(job, Settings()).outputs[0])
    np.testing.assert_allclose(result.get_fdata(), HEAD, atol=1e-2)
    np.testing.assert_allclose(result.affine, affine, rtol=1e-6)


@pytest.mark.parametrize("slope", ["1e300", "1e39"])
def test_a_rescale_slope_that_overflows_is_refused(tmp_path: Path, slope: str) -> None:
    series = dicom_series(tmp_path / "s", RescaleSlope=slope, RescaleIntercept=0)
    with pytest.raises(FileError, match=r"NaN or infinite|RescaleSlope"):
        read_volume(series)


class TestNoNaNReachesAFile:
    @pytest.fixture
    def broken(self, window: Translator, monkeypatch: pytest.MonkeyPatch) -> Translator:
        original: Callable = translators.restore

        def restored(*arguments: object) -> object:
            result = original(*arguments)
            result.voxels[3, 3, 3:5] = np.nan, np.inf
            return result

        monkeypatch.setattr(translators, "restore", restored)
        return window

    def test_from_a_file(self, broken: Translator, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="2 of 2184 voxels that are NaN or infinite"):
            translate(broken, HEAD, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]

    def test_from_an_array(self, broken: Translator) -> None:
        with pytest.raises(OutputError, match="2 of 2184"):
            broken.translate((HEAD, np.eye(4)))

    @pytest.mark.parametrize("kind", ["nifti", "itk"])
    def test_whoever_writes(self, tmp_path: Path, kind: str) -> None:
        path = helpers.write_nifti(tmp_path / "t1.nii.gz", HEAD, np.eye(4))
        source, goal = read_volume(path).meta["source"], {"nifti": "o.nii", "itk": "o.mha"}[kind]
        with pytest.raises(OutputError, match="1 of 2184"):
            write_volume(with_one(np.nan), tmp_path / goal, source, provenance(), kind=kind)
        assert [path.name for path in tmp_path.iterdir()] == ["t1.nii.gz"]
