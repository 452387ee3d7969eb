"""The pages of many translations: what failed first, and after a rerun all of them again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from medtrans.inference.cohort import translate_cohort
from medtrans.inference.jobs import Job, jobs_from_inputs
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.report.cohort import CohortPages
from medtrans.report.index import require_pages
from tests import helpers


class Cohort(NamedTuple):
    jobs: list[Job]
    pages: Path
    translator: Translator


@pytest.fixture
def cohort(random_model: Path, tmp_path: Path) -> Cohort:
    """Four inputs: a warning, a T1, no image, a T1 in a folder of its own."""
    image, affine = helpers.head()
    folder = tmp_path / "in"
    (folder / "b").mkdir(parents=True)
    for name in ("a_flair", "b/c_t1", "b_t1"):
        helpers.write_nifti(folder / f"{name}.nii.gz", image, affine)
    (folder / "broken_t1.nii.gz").write_text("no image")
    names = ("b_t1", "broken_t1", "a_flair", "b/c_t1")
    jobs = jobs_from_inputs([folder / f"{name}.nii.gz" for name in names], tmp_path / "out")
    require_pages(tmp_path / "pages", overwrite=False)
    return Cohort(jobs, tmp_path / "pages", Translator.load(random_model, "cpu"))


def run(cohort: Cohort, jobs: list[Job] | None = None) -> str:
    """Translate the cohort, or a part of it; gives the index."""
    pages = CohortPages(cohort.pages, cohort.jobs, cohort.translator, Settings())
    translate_cohort(
        cohort.translator, jobs or cohort.jobs, Settings(), strict=False, on_done=pages.add
    )
    return pages.save().read_text(encoding="utf-8")


def listed(html: str) -> list[tuple[str, list[str]]]:
    """Headings, and the names of the cases below each."""
    parts = re.split(r"<h2>(.*?)</h2>", html)[1:]
    cases = [re.findall(r'<li class="case">.*?<b>(.*?)</b>', part) for part in parts[1::2]]
    return [(heading, names) for heading, names in zip(parts[::2], cases, strict=True) if names]


ORDER = [
    ("Failed (1)", ["broken_t1.nii.gz"]),
    ("With a warning (1)", ["a_flair.nii.gz"]),
    ("Translated (2)", ["b_t1.nii.gz", "b/c_t1.nii.gz"]),
]


def test_failures_then_warnings_then_the_rest(cohort: Cohort) -> None:
    html = run(cohort)
    assert listed(html) == ORDER
    assert "broken_t1.nii.gz: expected a NIfTI header" in html
    assert str(cohort.jobs[0].path.parent) not in html
    assert "it seems to be flair" in html
    assert html.count("data:image/jpeg") == 3
    assert "3 of 4 volumes are translated, 1 of them with a warning; 1 failed." in html
    links = re.findall(r'href="(.*?)"', html)
    assert len(set(links)) == 3
    for link in links:
        assert "SYNTHETIC T2" in (cohort.pages / link).read_text(encoding="utf-8")


def test_a_rerun_leaves_the_pages_and_lists_them_all(cohort: Cohort) -> None:
    first = run(cohort)
    before = {page: page.stat().st_mtime_ns for page in (cohort.pages / "cases").iterdir()}
    assert run(cohort) == first
    assert {page: page.stat().st_mtime_ns for page in before} == before


@pytest.mark.parametrize("damage", ["missing", "of another result", "damaged"])
def test_what_is_done_gets_the_page_that_it_lacks(cohort: Cohort, damage: str) -> None:
    first = run(cohort)
    page = cohort.pages / re.findall(r'href="(.*?)"', first)[0]
    made = rows(page)
    text = page.read_text(encoding="utf-8")
    if damage == "missing":
        page.unlink()
    elif damage == "damaged":
        page.write_text(text.replace("medtrans-facts", "facts"), encoding="utf-8")
    else:
        [digest] = set(re.findall(r"nii\.gz&quot;: &quot;([0-9a-f]{64})", text))
        page.write_text(text.replace(digest, "0" * 64), encoding="utf-8")
    assert run(cohort) == first
    again = rows(page)
    assert again.pop("Versions") in made.pop("Versions")  # of PyTorch it is not known any more
    assert made.pop("Time taken")
    assert {**again, "Page written": ""} == {**made, "Page written": ""}


def rows(page: Path) -> dict[str, str]:
    """Names and values of the tables on a page."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', text))


def test_what_was_not_reached_is_told(cohort: Cohort) -> None:
    html = run(cohort, cohort.jobs[:2])
    assert listed(html) == [ORDER[0], ("Translated (1)", ["b_t1.nii.gz"]),
        ("Not translated (2)", ["a_flair.nii.gz", "b/c_t1.nii.gz"])]  # fmt: skip


def test_a_page_that_cannot_be_written_does_not_stop_the_others(cohort: Cohort) -> None:
    (cohort.pages / "cases" / "b_t1.nii.gz.html").mkdir()
    html = run(cohort)
    assert listed(html)[0] == ("Failed (2)", ["b_t1.nii.gz", "broken_t1.nii.gz"])
    assert "Translated, but it has no page: " in html


def test_a_changed_input_gets_a_new_page(cohort: Cohort) -> None:
    run(cohort)
    voxels, affine = helpers.head()
    voxels = voxels.copy()
    voxels[12, 14, 10] = np.nan
    helpers.write_nifti(cohort.jobs[0].path, voxels, affine)
    assert ("With a warning (2)", ["b_t1.nii.gz", "a_flair.nii.gz"]) in listed(run(cohort))
