"""A cohort's outputs as a BIDS derivative."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from medtrans.config.terms import Task
from medtrans.errors import OutputError, UsageError
from medtrans.inference.bids import DESCRIPTION, bids_jobs, save_description
from medtrans.inference.cohort import Unchanged, translate_cohort
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.volumes.contrast import from_bids, to_bids
from tests import helpers

T2 = Task("t1", "t2")


def manifest(folder: Path, *rows: str) -> Path:
    path = folder / "cohort.csv"
    path.write_text("\n".join(("subject,session,contrast,path", *rows)) + "\n")
    return path


def names(tmp_path: Path, *rows: str, task: Task = T2) -> list[str]:
    jobs = bids_jobs(manifest(tmp_path, *rows), task, tmp_path / "out")
    assert all(job.kind == "nifti" and job.out.parent.is_dir() for job in jobs)
    return [job.out.relative_to(tmp_path / "out").as_posix() for job in jobs]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ("IXI_002,,t1,a.mha", "sub-IXI002/anat/sub-IXI002_desc-synth_T2w.nii.gz"),
        ("sub-01,ses-2,t1,dicom", "sub-01/ses-2/anat/sub-01_ses-2_desc-synth_T2w.nii.gz"),
        (
            "sub-01,2,t1,sub-01_ses-2_acq-iso_ce-gd_rec-norm_run-3_echo-1_T1w.nii.gz",
            "sub-01/ses-2/anat/sub-01_ses-2_acq-iso_rec-norm_run-3_desc-synth_T2w.nii.gz",
        ),
    ],
    ids=["plain", "session", "bids"],
)
def test_names(tmp_path: Path, row: str, name: str) -> None:
    assert names(tmp_path, row) == [name]


def test_an_agent_is_an_entity(tmp_path: Path) -> None:
    [name] = names(tmp_path, "a,,t1,sub-a_acq-x_run-1_T1w.nii", task=Task("t1", "t1c"))
    assert name.endswith("/sub-a_acq-x_ce-synthetic_run-1_desc-synth_T1w.nii.gz")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("a_1,,t1,x.nii", "a1,,t1,y.nii"), "'a1' and 'a_1' .* would both be sub-a1 "),
        (("a,s1,t1,x.nii", "a,s-1,t1,y.nii"), "'a s-1' and 'a s1' .* both be sub-a ses-s1 "),
        (("--,,t1,x.nii",), "'--' of the manifest has neither a letter nor a digit"),
        (("a,,t2,x.nii",), "lists no t1 volume"),
    ],
    ids=["subjects", "sessions", "empty", "none"],
)
def test_what_has_no_name_of_its_own(tmp_path: Path, rows: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        names(tmp_path, *rows)


@pytest.mark.parametrize("target", ["ct", "mr"])
def test_what_bids_has_no_name_for(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError, match=f"no name for images of the contrast {target}"):
        names(tmp_path, "a,,t1,x.nii", task=Task("t1", target))


@pytest.mark.parametrize("contrast", ["t1", "t1c", "t2", "flair", "pd"])
def test_a_contrast_is_read_as_it_is_written(contrast: str) -> None:
    suffix, agent = to_bids(contrast)
    assert from_bids(suffix, agent=agent) == contrast


def test_a_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub-a").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="leads out of"):
        names(tmp_path, "a,,t1,x.nii")


class TestDescription:
    def sources(self, tmp_path: Path, *, overwrite: bool = False) -> list[dict[str, str]]:
        table = manifest(tmp_path, "a,,t1,raw/sub-a/anat/x.nii", "b,,t1,x.nii")
        jobs = bids_jobs(table, T2, tmp_path / "out")
        save_description(tmp_path / "out", table, jobs, overwrite=overwrite)
        return json.loads((tmp_path / "out" / DESCRIPTION).read_text())["SourceDatasets"]

    def describe(self, folder: Path, text: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DESCRIPTION).write_text(text)

    def test_a_source_that_is_no_data_set(self, tmp_path: Path) -> None:
        assert self.sources(tmp_path) == [{"URL": tmp_path.as_uri()}]

    @pytest.mark.parametrize("doi", ["10.1/x", "doi:10.1/x", "https://doi.org/10.1/x"])
    def test_a_data_set_with_a_doi(self, tmp_path: Path, doi: str) -> None:
        self.describe(tmp_path / "raw", json.dumps({"Name": "x", "DatasetDOI": doi}))
        expected = {"DOI": "10.1/x", "URL": "https://doi.org/10.1/x"}
        assert expected in self.sources(tmp_path)
        assert len(self.sources(tmp_path)) == 2  # what is known is not said twice

    @pytest.mark.parametrize("text", ["{}", "[]", "{", '{"GeneratedBy": [{"Name": "other"}]}'])
    def test_a_description_of_somebody_else(self, tmp_path: Path, text: str) -> None:
        self.describe(tmp_path / "out", text)
        with pytest.raises(OutputError, match=r"medtrans did not write it.*--overwrite"):
            self.sources(tmp_path)
        assert (tmp_path / "out" / DESCRIPTION).read_text() == text
        assert self.sources(tmp_path, overwrite=True)

    def test_a_readme_of_somebody_else_stays(self, tmp_path: Path) -> None:
        self.sources(tmp_path)
        readme = tmp_path / "out" / "README"
        assert "NOT FOR DIAGNOSIS" in readme.read_text()
        readme.write_text("mine")
        self.sources(tmp_path)
        assert readme.read_text() == "mine"


@pytest.fixture
def derivative(identity_model: Path, tmp_path: Path) -> Path:
    """Two subjects, one of them with two sessions; the second session has air around the head."""
    data = tmp_path / "data"
    data.mkdir()
    stripped = helpers.write_nifti(data / "a.nii.gz", *helpers.head())
    whole = helpers.write_nifti(
        data / "sub-b_run-1_T1w.nii.gz", *helpers.head(skull_stripped=False)
    )
    table = manifest(
        data,
        *(f"a,{session},t1,{stripped.name}" for session in (1, 2)),
        f"b,,t1,{whole.name}",
    )
    jobs = bids_jobs(table, T2, tmp_path / "out")
    save_description(tmp_path / "out", table, jobs, overwrite=False)
    translator = Translator.load(identity_model, "cpu")
    for _ in range(2):
        results = translate_cohort(
            translator, jobs, Settings(), strict=True, on_done=lambda *_: None
        )
    assert all(isinstance(result, Unchanged) for result in results)
    return tmp_path / "out"


def test_sidecars_say_whether_the_source_was_stripped(derivative: Path) -> None:
    found = {
        path.name.partition("_desc")[0]: json.loads(path.read_text())["SkullStripped"]
        for path in derivative.rglob("sub-*.json")
    }
    assert found == {"sub-a_ses-1": True, "sub-a_ses-2": True, "sub-b_run-1": False}


def test_the_validator_accepts_it(derivative: Path) -> None:
    if find_spec("bids_validator_deno") is None:
        pytest.skip("bids-validator-deno is not installed")
    accepted, issues = validated(derivative)
    assert accepted, issues
    (derivative / "sub-a" / "ses-1" / "anat" / "sub-a_desc-synth_ses-1_T2w.nii.gz").touch()
    assert not validated(derivative)[0]  # the validator looks


def validated(folder: Path) -> tuple[bool, list[object]]:
    ask = "import sys; from bids_validator_deno import cli; sys.exit(cli())"
    command = [sys.executable, "-c", ask, str(folder), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    errors = [issue for issue in issues if issue["severity"] == "error"]
    assert bool(done.returncode) == bool(errors)
    return not errors, errors
