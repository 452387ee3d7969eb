"""The shape that a header declares."""

from pathlib import Path

import numpy as np
import pytest

from medtrans.errors import UnreadableFileError
from medtrans.volumes.header import shape_of
from tests import helpers


def test_of_a_volume_without_its_voxels(tmp_path: Path) -> None:
    whole = helpers.write_nifti(tmp_path / "t1.nii", np.ones((5, 6, 7), np.float32), np.eye(4))
    cut = tmp_path / "cut.nii"
    cut.write_bytes(whole.read_bytes()[:400])
    assert shape_of(whole) == shape_of(cut) == (5, 6, 7)


@pytest.mark.parametrize("name", ["notes", "slice.dcm"])
def test_of_what_declares_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("This is no image." * 30)
    with pytest.raises(UnreadableFileError, match=r"expected NIfTI.*something else"):
        shape_of(path)
