"""Files of any tool against real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtrans.data.predictions import Prediction
from medtrans.errors import GeometryError
from medtrans.evaluate import reading
from medtrans.evaluate.files import evaluate_predictions
from tests import helpers


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [helpers.write_nifti(tmp_path / f"{c}.nii.gz", *helpers.head(c)) for c in ("t1", "t2")]


def scores(one: Prediction) -> dict[str, float]:
    return evaluate_predictions([one]).of_one()


def test_against_itself(pair: list[Path]) -> None:
    found = scores(Prediction("s", pair[0], pair[0]))
    assert found["ssim"] == found["ms_ssim"] == found["ncc"] == pytest.approx(1)
    assert found["nrmse"] == 0


def test_in_a_mask(pair: list[Path], tmp_path: Path) -> None:
    image, affine = helpers.head("t2")
    inside = (image > np.median(image[image > 0])).astype(np.uint8)
    mask = helpers.write_nifti(tmp_path / "mask.nii.gz", inside, affine)
    whole, part = scores(Prediction("s", *pair)), scores(Prediction("s", *pair, foreground=mask))
    assert whole["psnr"] != part["psnr"]


def test_other_grids_are_refused(pair: list[Path], tmp_path: Path) -> None:
    image, affine = helpers.head()
    small = helpers.write_nifti(tmp_path / "small.nii.gz", image[1:], affine)
    with pytest.raises(GeometryError, match=r"prediction .*small.nii.gz and the reference .*t2"):
        evaluate_predictions([Prediction("s", small, pair[1])])


def test_methods_and_subjects(pair: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference that several methods share is read once."""
    seen: list[Path] = []
    read = reading.read_volume
    monkeypatch.setattr(reading, "read_volume", lambda path: (seen.append(path), read(path))[1])
    one, two = pair
    told: list[tuple[int, int]] = []
    table = evaluate_predictions(
        [
            Prediction("a", one, two, method="x"),
            Prediction("a", two, two, method="y"),
            Prediction("b", one, one, method="x"),
        ],
        on_case=lambda *n: told.append(n),
    ).table
    names = table[["subject", "method", "region"]].to_numpy().tolist()
    assert names[::2] == [
        ["a", "x", "foreground"],
        ["a", "y", "foreground"],
        ["b", "x", "foreground"],
    ]
    assert seen == [two, one, two, one, one]
    assert told == [(1, 3), (2, 3), (3, 3)]
