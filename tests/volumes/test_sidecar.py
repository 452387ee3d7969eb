"""A file that medtrans did not write for this result is never replaced unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medtrans.errors import OutputError
from medtrans.volumes import Source, read_volume, write_volume
from medtrans.volumes.marks import HTML, require_page
from medtrans.volumes.sidecar import Claim, earlier_result, read_sidecar
from tests import helpers
from tests.volumes.builders import dicom_series, provenance

PROVENANCE = provenance()
GOALS = ["o.nii.gz", "o.nii", "o.img", "o.mha"]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    path = helpers.write_nifti(tmp_path / "t1.nii.gz", helpers.marked_head(), np.eye(4))
    return read_volume(path).meta["source"]


def write(goal: Path, source: Source, value: int = 1, **options: object) -> list[Path]:
    kind = "itk" if goal.suffix == ".mha" else "nifti"
    voxels = np.full(source.shape, value, dtype=np.int16)
    label = options.pop("provenance", PROVENANCE)
    return write_volume(voxels, goal, source, label, kind=kind, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in helpers.files_below(folder)}


def refused(goal: Path, source: Source, **options: object) -> None:
    before = contents(goal.parent)
    with pytest.raises(OutputError, match=r"did not write it for this result.*--overwrite"):
        write(goal, source, 2, **options)
    assert contents(goal.parent) == before


@pytest.mark.parametrize("goal", GOALS)
class TestEveryKindOfFile:
    def test_a_sidecar_of_the_user_stays(self, tmp_path: Path, source: Source, goal: str) -> None:
        (tmp_path / "o.json").write_text('{"EchoTime": 0.08}')
        refused(tmp_path / goal, source)

    def test_an_image_of_the_user_stays(self, tmp_path: Path, source: Source, goal: str) -> None:
        (tmp_path / goal).write_text("mine")
        refused(tmp_path / goal, source)

    def test_an_own_result_is_replaced(self, tmp_path: Path, source: Source, goal: str) -> None:
        first = write(tmp_path / goal, source, 1)
        before = contents(tmp_path)
        assert write(tmp_path / goal, source, 2) == first
        assert contents(tmp_path).keys() == before.keys()
        assert contents(tmp_path) != before

    def test_an_own_result_that_was_changed_stays(
        self, tmp_path: Path, source: Source, goal: str
    ) -> None:
        image = write(tmp_path / goal, source, 1)[0]
        image.write_bytes(image.read_bytes() + b"mine")
        refused(tmp_path / goal, source)

    def test_what_is_asked_for_is_replaced(self, tmp_path: Path, source: Source, goal: str) -> None:
        (tmp_path / "o.json").write_text('{"EchoTime": 0.08}')
        (tmp_path / goal).write_text("mine")
        written = write(tmp_path / goal, source, 2, overwrite=True)
        assert json.loads(written[-1].read_text())["Synthetic"] is True


class TestWhoseResult:
    def test_of_another_task(self, tmp_path: Path, source: Source) -> None:
        write(tmp_path / "o.nii.gz", source)
        refused(tmp_path / "o.nii.gz", source, provenance=replace(PROVENANCE, task="t1-to-flair"))

    def test_of_another_content(self, tmp_path: Path, source: Source) -> None:
        write(tmp_path / "o.nii.gz", source)
        spread = replace(PROVENANCE, extra={"Content": "standard deviation over samples"})
        refused(tmp_path / "o.nii.gz", source, provenance=spread)

    def test_of_another_volume(self, tmp_path: Path, source: Source) -> None:
        write(tmp_path / "o.nii.gz", source)
        refused(
            tmp_path / "o.nii.gz",
            source,
            provenance=replace(PROVENANCE, extra={"SourceVolume": 1}),
        )

    def test_with_another_suffix(self, tmp_path: Path, source: Source) -> None:
        """o.nii.gz and o.nii would share o.json."""
        write(tmp_path / "o.nii.gz", source)
        refused(tmp_path / "o.nii", source)
        refused(tmp_path / "o.mha", source)

    def test_of_another_input(self, tmp_path: Path, source: Source) -> None:
        write(tmp_path / "o.nii.gz", source)
        (tmp_path / "other").mkdir()
        other = replace(source, path=tmp_path / "other" / "t1.nii.gz", sha256="1" * 64)
        refused(tmp_path / "o.nii.gz", other)

    @pytest.mark.parametrize(
        "same",
        [
            pytest.param(lambda s: replace(s, sha256="1" * 64), id="changed in its place"),
            pytest.param(lambda s: replace(s, path=s.path.with_name("new.nii.gz")), id="moved"),
        ],
    )
    def test_of_the_same_input(
        self, tmp_path: Path, source: Source, same: Callable[[Source], Source]
    ) -> None:
        label = replace(PROVENANCE, source_sha256=source.sha256)
        write(tmp_path / "o.nii.gz", source, provenance=label)
        assert write(tmp_path / "o.nii.gz", same(source), provenance=label)

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", '"medtrans"', '{"GeneratedBy": []}', "[" * 10_000, "x" * (1 << 21),
         '{"GeneratedBy": [{"Name": "fmriprep"}]}', '{"GeneratedBy": {"Name": "medtrans"}}'],
    )  # fmt: skip
    def test_text_that_is_no_sidecar_of_ours(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "o.json").write_text(text)
        assert read_sidecar(tmp_path / "o.json") is None

    def test_no_path_is_written_down(self, tmp_path: Path, source: Source) -> None:
        sidecar = write(tmp_path / "o.nii.gz", source)[-1]
        assert str(tmp_path) not in sidecar.read_text()
        assert "t1.nii.gz" not in sidecar.read_text()


def test_a_dataset_may_move_as_a_whole(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "out").mkdir(parents=True)
    helpers.write_nifti(old / "t1.nii.gz", helpers.marked_head(), np.eye(4))
    source = read_volume(old / "t1.nii.gz").meta["source"]
    write(old / "out" / "o.nii.gz", source)
    shutil.move(old, new)
    moved = replace(source, path=new / "t1.nii.gz", sha256="1" * 64)
    assert write(new / "out" / "o.nii.gz", moved)


class TestDicom:
    @pytest.fixture
    def series(self, tmp_path: Path) -> Source:
        return read_volume(dicom_series(tmp_path / "source")).meta["source"]

    def derive(self, folder: Path, source: Source, **options: bool) -> list[Path]:
        voxels = np.zeros(source.shape, dtype=np.int16)
        return write_volume(voxels, folder, source, PROVENANCE, **options)

    def test_an_own_series_is_replaced(self, tmp_path: Path, series: Source) -> None:
        out, _ = self.derive(tmp_path / "out", series)
        before = contents(out)
        self.derive(tmp_path / "out", series)
        assert contents(out).keys() == before.keys()
        assert contents(out) != before  # with UIDs of its own

    def test_an_own_series_that_grew_stays(self, tmp_path: Path, series: Source) -> None:
        out, _ = self.derive(tmp_path / "out", series)
        (out / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match="new or empty folder"):
            self.derive(tmp_path / "out", series)
        assert (out / "notes.txt").read_text() == "mine"

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_folder_of_the_user_stays_even_when_told_to_overwrite(
        self, tmp_path: Path, series: Source, overwrite: bool
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match="new or empty folder"):
            self.derive(tmp_path / "out", series, overwrite=overwrite)
        assert (tmp_path / "out" / "notes.txt").read_text() == "mine"

    def test_a_folder_that_holds_the_input_stays(self, tmp_path: Path, series: Source) -> None:
        with pytest.raises(OutputError, match="replace its input"):
            self.derive(tmp_path, series, overwrite=True)

    def test_a_sidecar_of_the_user_stays(self, tmp_path: Path, series: Source) -> None:
        (tmp_path / "out.json").write_text("{}")
        with pytest.raises(OutputError, match="--overwrite"):
            self.derive(tmp_path / "out", series)

    def test_another_series_of_the_same_folder(self, tmp_path: Path, series: Source) -> None:
        self.derive(tmp_path / "out", series)
        other = replace(series, series="1.2.3.5", sha256="1" * 64)
        with pytest.raises(OutputError, match="new or empty folder"):
            self.derive(tmp_path / "out", other)


class TestEarlierResult:
    """What a rerun may leave as it is."""

    @pytest.fixture
    def pair(self, tmp_path: Path, source: Source) -> list[Path]:
        return write(tmp_path / "o.hdr", source)

    def found(self, source: Source) -> bool:
        claim = Claim.of(source, PROVENANCE)
        return earlier_result(source.path.with_name("o.hdr"), "nifti", claim) is not None

    def test_is_whole_and_unchanged(self, pair: list[Path], source: Source) -> None:
        assert self.found(source)

    @pytest.mark.parametrize("half", [0, 1])
    def test_a_half_is_none(self, pair: list[Path], source: Source, half: int) -> None:
        pair[half].unlink()
        assert not self.found(source)

    @pytest.mark.parametrize("half", [0, 1])
    def test_a_changed_one_is_none(self, pair: list[Path], source: Source, half: int) -> None:
        pair[half].write_bytes(pair[half].read_bytes() + b"x")
        assert not self.found(source)

    def test_nor_is_one_without_its_label(self, pair: list[Path], source: Source) -> None:
        pair[-1].unlink()
        assert not self.found(source)


@pytest.mark.parametrize("content", [b"<p>mine</p>", b"\x1f\x8bno gzip", b""])
def test_a_page_that_carries_no_mark_of_ours_stays(tmp_path: Path, content: bytes) -> None:
    page = tmp_path / "a.html"
    page.write_bytes(content)
    with pytest.raises(OutputError, match="medtrans did not write it"):
        require_page(page)
    require_page(page, overwrite=True)
    page.write_bytes(b"<html>" + HTML)
    require_page(page)
    require_page(tmp_path / "new.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
