"""`medtrans translate` with --workers, --scheduler and --bids, as a person meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medtrans.cli.crew import CrewRequest, shared_model
from medtrans.inference import cluster
from medtrans.inference.translator import Translator
from tests import helpers
from tests.helpers import Run


@pytest.fixture
def translate(medtrans: Run) -> Run:
    return partial(medtrans, "translate")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as one:
        yield one.scheduler_address


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", 2, "--scheduler", "tcp://a:1"), "give one"),
        (("--workers", 0), "must be 1 or more, not 0"),
        (("--bids",), "--bids goes with --manifest"),
    ],
    ids=["both", "none", "bids"],
)
def test_what_does_not_go_together(
    translate: Run, tmp_path: Path, options: tuple[object, ...], words: str
) -> None:
    code, _, said = translate(tmp_path / "t1.nii.gz", *options)
    assert code == 2
    assert words in said


def test_bids_is_nifti(translate: Run, cohort: Path, tmp_path: Path) -> None:
    arguments = ("--manifest", cohort, "--out-dir", tmp_path / "out", "--bids")
    code, _, said = translate(*arguments, "--output-kind", "itk")
    assert code == 2
    assert "writes NIfTI" in said


def test_the_workers_of_a_scheduler(
    translate: Run, scheduler: str, identity_model: Path, tmp_path: Path
) -> None:
    """The same rows in the same order, and the same bytes, as without; a failure among them."""
    manifest = helpers.write_cohort(tmp_path / "data", 3)
    (manifest.parent / "sub-002" / "t1.nii.gz").write_text("no image")
    rows = {}
    for out, extra in (("here", ()), ("there", ("--scheduler", scheduler))):
        code, answer, said = translate(
            *("--manifest", manifest, "--out-dir", tmp_path / out, "--model", identity_model),
            *("--device", "cpu", "--json", *extra),
        )
        assert code == 2, said
        assert "t1.nii.gz" in said
        told: dict[str, Any] = json.loads(answer)
        assert (told["translated"], told["failed"]) == (2, 1)
        assert told["device"] == (f"the workers of {scheduler}" if extra else "cpu")
        rows[out] = [(row["input"], row["result"]) for row in told["volumes"]]
    assert "volumes: 3/3" in said
    assert rows["here"] == rows["there"]
    files = [path.relative_to(tmp_path / "here") for path in helpers.files_below(tmp_path / "here")]
    assert len(files) == 4
    for file in files:
        assert helpers.digest(tmp_path / "here" / file) == helpers.digest(tmp_path / "there" / file)


def test_pages_of_what_workers_translated(
    translate: Run, scheduler: str, identity_model: Path, cohort: Path, tmp_path: Path
) -> None:
    code, _, said = translate(
        *("--manifest", cohort, "--out-dir", tmp_path / "out", "--model", identity_model, "--bids"),
        *("--scheduler", scheduler, "--device", "cpu", "--report", tmp_path / "pages"),
    )
    assert code == 0, said
    assert len(list((tmp_path / "pages" / "cases").iterdir())) == 3
    assert (tmp_path / "out" / "dataset_description.json").is_file()
    out = tmp_path / "out" / "sub-001" / "anat"
    assert (out / "sub-001_desc-synth_T2w.nii.gz").is_file()


def test_a_single_volume_needs_no_workers(
    translate: Run, identity_model: Path, tmp_path: Path
) -> None:
    file = helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())
    code, _, said = translate(file, "--workers", 2, "--model", identity_model, "--device", "cpu")
    assert code == 0, said
    assert " on cpu." in said


def test_local_workers_are_those_asked_for(
    identity_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(cluster, "workers_here", lambda *crew: asked.append(crew))
    monkeypatch.setattr(cluster, "translate_on_workers", lambda *_, **__: None)
    translator = Translator.load(identity_model, "cpu")
    model = shared_model(str(identity_model), translator, "auto")
    CrewRequest(workers=3).translate(model, [], None, strict=False, on_done=lambda *_: None)
    assert asked == [(3, "auto")]
    assert (str(CrewRequest(workers=3)), str(CrewRequest(workers=1))) == ("3 workers", "1 worker")


def test_a_model_is_named_so_that_any_machine_finds_it(
    identity_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = Translator.load(identity_model, "cpu")
    monkeypatch.chdir(identity_model.parent)
    assert shared_model("identity", translator, "auto").name == str(identity_model)
    assert shared_model("brain_mri", translator, "auto").name == "brain_mri"
