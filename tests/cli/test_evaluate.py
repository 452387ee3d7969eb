"""`medtrans evaluate` from the command line: what it takes, writes and prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtrans.cli.console import Output
from medtrans.cli.evaluate import Evaluated, EvaluateRequest, evaluate
from medtrans.cli.evaluate_files import Files
from medtrans.errors import OutputError, UsageError
from medtrans.evaluate.headlines import headlines
from tests import helpers


def run(
    prediction: Path | None = None,
    reference: Path | None = None,
    *,
    manifest: Path | None = None,
    out: Path | None = None,
    mask: Path | None = None,
    region: Path | None = None,
    window: tuple[float, float] | None = None,
    **options: object,
) -> Evaluated:
    return evaluate(
        EvaluateRequest(
            manifest=manifest,
            model="none",
            device="cpu",
            task=None,
            split="test",
            modes=(),
            files=Files(prediction, reference, mask, region, window),
            out=out,
            seed=0,
            **options,
        )
    )


def printed(found: Evaluated, capsys: pytest.CaptureFixture[str]) -> str:
    Output(as_json=False).result(found.result, found.plain)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Real images of four subjects, and predictions of three: the images, scaled and noisy."""
    folder = tmp_path_factory.mktemp("others")
    image, affine = helpers.head("t2")
    for number in range(4):
        rng = np.random.default_rng(number)
        noise = rng.normal(0, 10 * (number + 1), image.shape) * (image > 0)
        for name, values in (("real", image), ("made", 0.8 * image + noise)):
            (folder / name).mkdir(exist_ok=True)
            if (name, number) != ("made", 3):
                path = folder / name / f"s{number}.nii.gz"
                helpers.write_nifti(path, values.astype(np.float32), affine)
    return folder / "made", folder / "real"


class TestFolders:
    def test_tables_and_what_is_left_out(
        self, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = run(*folders, out=tmp_path / "out")
        assert "1 of the files in" in capsys.readouterr().err
        table = pd.read_csv(tmp_path / "out" / "scores.csv")
        assert table["subject"].tolist() == ["s0", "s0", "s1", "s1", "s2", "s2"]
        assert table["region"].tolist() == ["foreground", "whole"] * 3
        summary = pd.read_csv(tmp_path / "out" / "summary.csv")
        psnr = summary[(summary["score"] == "psnr_fit") & (summary["region"] == "foreground")]
        inside = table[table["region"] == "foreground"]
        assert psnr["mean"].item() == pytest.approx(inside["psnr_fit"].mean())
        assert psnr["low"].item() < psnr["mean"].item() < psnr["high"].item()
        assert psnr["subjects"].item() == 3
        written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        assert written.pop("evaluated_by").startswith("medtrans ")
        assert written == json.loads(json.dumps(found.result))

    def test_the_object(self, folders: tuple[Path, Path]) -> None:
        result = run(*folders).result
        assert [row["subject"] for row in result["subjects"]] == ["s0", "s1", "s2"]
        assert [row["subject"] for row in result["regions"]["whole"]] == ["s0", "s1", "s2"]
        assert [row["method"] for row in result["mean"]] == ["prediction"]
        assert result["scale"]["data_range"] == 1
        assert "99.5th percentile" in result["scale"]["normalisation"]
        rows = [row for row in result["summary"] if row["score"] == "ncc"]
        assert {row["subjects"] for row in rows} == {3}
        assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
        assert "NaN" not in json.dumps(result)

    def test_what_a_person_reads(
        self, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        text = printed(run(*folders), capsys)
        head, row = text.splitlines()[1:3]
        assert head.split() == [
            "method", "region", "n", "psnr", "psnr_fit", "ssim", "high_frequency_ratio",
        ]  # fmt: skip
        assert row.split()[:3] == ["prediction", "foreground", "3"]
        assert row.count("[") == 4
        assert max(map(len, text.splitlines())) < 140

    def test_two_subjects_have_no_interval(
        self, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("s0", "s1"):
            (tmp_path / f"{name}.nii.gz").write_bytes((folders[0] / f"{name}.nii.gz").read_bytes())
        found = run(tmp_path, folders[1])
        assert {row["subjects"] for row in found.result["summary"]} == {2}
        assert not any({"low", "high"} & row.keys() for row in found.result["summary"])
        table = printed(found, capsys).partition("\n")[2]
        assert "[" not in table

    def test_pages(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        found = run(*folders, out=tmp_path)
        assert found.plain["page"] == str(tmp_path / "index.html")
        index = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert re.findall(r"<b>(.*?)</b>", index) == ["s2", "s1", "s0"]
        assert {f"{name}.html" for name in ("s0", "s1", "s2")} == {
            path.name for path in (tmp_path / "cases").iterdir()
        }
        for cell in (row["psnr_fit"] for row in headlines(pd.read_csv(tmp_path / "summary.csv"))):
            assert f"<td>{cell}</td>" in index

    def test_pages_can_be_left_out(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        found = run(*folders, out=tmp_path, pages=False)
        assert "page" not in found.result
        assert {path.name for path in tmp_path.iterdir()} == {
            "scores.csv", "summary.csv", "evaluation.json",
        }  # fmt: skip

    def test_a_folder_and_a_file(self, folders: tuple[Path, Path]) -> None:
        with pytest.raises(UsageError, match="two files or two folders"):
            run(folders[0], folders[1] / "s0.nii.gz")


def test_a_score_of_fewer_subjects_says_so() -> None:
    names = {"task": "", "method": "m", "region": "foreground"}
    ends = {"low": np.nan, "high": np.nan}
    summary = pd.DataFrame(
        [
            {**names, "score": "mae_hu", "subjects": 3, "mean": 5.0, "low": 4.0, "high": 6.0},
            {**names, "score": "bias_bone_hu", "subjects": 2, "mean": 1.0, **ends},
        ]
    )
    [row] = headlines(summary)
    assert (row["n"], row["mae_hu"], row["bias_bone_hu"]) == (3, "5 [4, 6]", "1 (n 2)")
    assert row["psnr"] == "-"


class TestPair:
    def test_regions_and_files(
        self, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made, real = (folder / "s1.nii.gz" for folder in folders)
        image, affine = helpers.head("t2")
        lesion = (image > np.percentile(image, 95)).astype(np.uint8)
        region = helpers.write_nifti(tmp_path / "lesion.nii.gz", lesion, affine)
        found = run(made, real, region=region, out=tmp_path / "out")
        assert list(found.result["regions"]) == ["whole", "region"]
        assert found.result["psnr"] != found.result["regions"]["region"]["psnr"]
        table = pd.read_csv(tmp_path / "out" / "scores.csv")
        assert table["region"].tolist() == ["foreground", "whole", "region"]
        assert table["psnr"][0] == pytest.approx(found.result["psnr"])
        text = printed(found, capsys)
        assert "psnr fit: " in text
        assert "whole" in text
        assert "percentile of its foreground" in text

    def test_a_window_is_stated(self, folders: tuple[Path, Path]) -> None:
        path = folders[1] / "s0.nii.gz"
        scale = run(path, path, window=(0.0, 1000.0)).result["scale"]["normalisation"]
        assert scale == "0 becomes 0 and 1000 becomes 1; what is beyond is clipped"


class TestCsv:
    def test_predictions(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        made, real = folders
        rows = [f"s{n},{made}/s{n}.nii.gz,{real}/s{n}.nii.gz,blur" for n in range(3)]
        rows += [f"s{n},{real}/s{n}.nii.gz,{real}/s{n}.nii.gz,perfect" for n in range(3)]
        csv = tmp_path / "list.csv"
        csv.write_text("\n".join(["subject,prediction,reference,method", *rows]))
        result = run(manifest=csv).result
        assert [row["method"] for row in result["mean"]] == ["blur", "perfect"]
        assert result["mean"][1]["ssim"] == pytest.approx(1)

    def test_options_of_files_do_not_go_with_a_model(self, cohort: Path) -> None:
        with pytest.raises(UsageError, match="--mask and --window are for files"):
            run(manifest=cohort, window=(0.0, 1.0))


def test_files_do_not_go_with_a_manifest(cohort: Path) -> None:
    with pytest.raises(UsageError, match="leave out --manifest"):
        run(cohort, cohort, manifest=cohort)


@pytest.mark.parametrize("name", ["scores.csv", "summary.csv", "evaluation.json", "index.html"])
def test_a_users_file_is_kept(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    pair = [folder / "s0.nii.gz" for folder in folders]
    with pytest.raises(OutputError, match=name):
        run(*pair, out=tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    run(*pair, out=tmp_path, overwrite=True)
    run(*pair, out=tmp_path)
