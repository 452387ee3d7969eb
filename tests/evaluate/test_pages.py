"""The pages of an evaluation: the worst case first, methods side by side, the right volumes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medtrans.data.manifest import Manifest
from medtrans.evaluate.case_scene import Naming, scene_of
from medtrans.evaluate.compare import evaluate_model
from medtrans.evaluate.compared import Compared
from medtrans.evaluate.pages import EvaluationPages
from medtrans.evaluate.regions import regions_of
from medtrans.evaluate.result import Evaluation
from medtrans.evaluate.scores import Reference, score_regions
from medtrans.evaluate.table import rows_of, table_of
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.report.index import require_pages
from tests import helpers

NAMING = Naming("T1", "T2", {"Model": "m <1>"})


def case(name: str, noise: float, *, ct: bool = False, source: bool = True) -> Compared:
    """A case with two methods: one as noisy as is said, one half as noisy."""
    image, affine = helpers.head("t2")
    if ct:
        image = np.where(image > 0, image - 200, -1000).astype(np.float32)
    target = helpers.volume(image, affine)
    truth = Reference(image, regions_of(target, None, None))
    rng = np.random.default_rng(0)
    wrong = rng.normal(0, noise, image.shape).astype(np.float32) * truth.foreground
    predicted = {"first": image + wrong, "second": image + wrong / 2}
    rows = [
        row
        for method, voxels in predicted.items()
        for row in rows_of(
            {"subject": name, "session": "", "task": "", "method": method},
            score_regions(voxels, truth),
        )
    ]
    return Compared(name, target if source else None, target, truth, predicted, rows)


def saved(folder: Path, cases: list[Compared], naming: Naming = NAMING) -> str:
    require_pages(folder, overwrite=False)
    pages = EvaluationPages(folder, len(cases), naming)
    for one in cases:
        pages.add(one)
    table = table_of([row for one in cases for row in one.rows])
    return pages.save(Evaluation(table, None)).read_text(encoding="utf-8")


def names(html: str) -> list[str]:
    return re.findall(r'<li class="case">.*?<b>(.*?)</b>', html)


@pytest.mark.parametrize("ct", [False, True])
def test_the_worst_comes_first_by_a_stated_score(tmp_path: Path, ct: bool) -> None:
    html = saved(tmp_path, [case(f"s{n:g}", n, ct=ct) for n in (20, 60, 40)])
    assert names(html) == ["s60", "s40", "s20"]
    score = "mae_hu" if ct else "psnr_fit"
    assert f"the worst by {score} of first in the foreground" in html


def test_the_index_has_the_table_of_the_console(tmp_path: Path) -> None:
    html = saved(tmp_path, [case(f"s{n}", n) for n in (20, 60, 40)])
    cells = re.findall(r'<th scope="(?:row|col)">([^<]*)</th>', html)
    assert cells[:7] == [
        "method", "region", "n", "psnr", "psnr_fit", "ssim", "high_frequency_ratio",
    ]  # fmt: skip
    assert cells[7:11] == ["first", "first", "second", "second"]
    assert re.search(r"<td>3</td><td>[\d.]+ \[[\d.]+, [\d.]+\]</td>", html)
    assert "m &lt;1&gt;" in html
    assert "99.5th percentile" in html


def test_a_cases_own_page(tmp_path: Path) -> None:
    html = saved(tmp_path, [case("s 1", 20)])
    [link] = re.findall(r'href="(.*?)"', html)
    page = (tmp_path / link).read_text(encoding="utf-8")
    assert "<h1>s 1: synthetic T2 from T1 beside the real image</h1>" in page
    heads = re.findall(r'<th scope="col">([^<]*)</th>', page)
    assert heads == ["score", "first", "second"] * 2
    psnr = re.search(r'<th scope="row">psnr_fit</th><td>([\d.]+)</td><td>([\d.]+)</td>', page)
    assert float(psnr[2]) == pytest.approx(float(psnr[1]) + 6, abs=0.2)
    for text in ("SYNTHETIC, second", "Reference T2", "Error, first", "m &lt;1&gt;"):
        assert text in page


def test_two_cases_of_one_name_have_two_pages(tmp_path: Path) -> None:
    html = saved(tmp_path, [case("s", 20), case("s", 10), case("s", 5)])
    assert names(html) == ["s", "s (2)", "s (3)"]
    assert len(set(re.findall(r'href="(.*?)"', html))) == 3


def test_what_is_shown_are_the_volumes(tmp_path: Path) -> None:
    one = case("s", 20)
    scene = scene_of(one, NAMING)
    assert [shown.layer.role for shown in scene.shown] == [
        "source", "synthetic", "synthetic", "reference", "error",
    ]  # fmt: skip
    error = scene.shown[-1].layer.volume.numpy()
    inside = one.truth.foreground
    left = np.abs(one.predicted["first"] - one.truth.voxels)
    assert not error[~inside].any()
    assert np.corrcoef(error[inside], left[inside])[0, 1] > 0.95


def test_without_a_source_the_real_image_leads() -> None:
    scene = scene_of(case("s", 20, ct=True, source=False), Naming("", "", {}))
    assert [shown.layer.name for shown in scene.shown] == [
        "Reference", "SYNTHETIC, first", "SYNTHETIC, second", "Error, first",
    ]  # fmt: skip
    assert {shown.layer.unit for shown in scene.shown} == {"HU"}


def test_pages_of_very_many_cases_are_small(tmp_path: Path) -> None:
    few, many = (EvaluationPages(tmp_path, n, NAMING).max_bytes for n in (3, 10_000))
    assert many == 1_500_000
    assert few > 9_000_000


def test_a_model_hands_over_its_volumes_and_all_rows(random_model: Path, cohort: Path) -> None:
    translator = Translator.load(random_model, "cpu")
    seen: list[Compared] = []
    settings = [Settings(mode="fidelity"), Settings(mode="realistic")]
    found = evaluate_model(
        translator, Manifest.read(cohort), "test", settings, on_compared=seen.append
    )
    [one] = seen
    assert one.name == "sub-003"
    assert list(one.predicted) == ["fidelity", "realistic"]
    assert len(one.rows) == len(found.table)
    assert one.source is not None
    again = translator.translate_volume(one.source, Settings(mode="realistic", task="t1-to-t2"))
    assert np.array_equal(one.predicted["realistic"], again.voxels)
