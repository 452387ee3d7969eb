"""The translation benchmark trains and scores every method, on phantoms."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.translation import report
from benchmarks.translation.__main__ import append, read
from benchmarks.translation.cells import BASELINES, Cell, run_cell
from benchmarks.translation.cohorts import Cohort, CohortData, leave_one_out, leave_site_out
from medtrans.config.terms import Task
from medtrans.data.manifest import Manifest
from medtrans.errors import TrainingError
from medtrans.training.checkpoint import read_tensors
from tests import helpers

TINY = {
    "volume": {"spacing_mm": [8.0, 8.0, 8.0]},
    "network": {"channels": [4, 4, 4], "norm_groups": 2},
    "noise": {"iterations": 2, "patch": [32, 32]},
    "residual": {"iterations": 2, "patch": [32, 32]},
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    manifest = helpers.write_cohort(
        tmp_path_factory.mktemp("phantoms"), 4, contrasts=("t1", "t2", "flair")
    )
    return Cohort("phantoms", Task("t1", "t2"), manifest, TINY)


@pytest.mark.parametrize("method", ["identity", "tone curve", *BASELINES, "rddm x4"])
def test_every_baseline_gives_a_row_for_each_subject(
    phantoms: Cohort, tmp_path: Path, method: str
) -> None:
    rows = run_cell(Cell(phantoms, method, {}, "all", 0), "test", tmp_path)
    assert [row["subject"] for row in rows] == sorted({row["subject"] for row in rows})
    assert all(np.isfinite(row["psnr_fit"]) for row in rows)


@pytest.mark.parametrize(
    ("method", "variant", "needs"),
    [
        ("cyclegan", {}, False),
        ("regression l2", {}, True),
        ("regression l2", {"start": {"iterations": 3}}, False),
        ("tone curve", {}, True),
        ("drdd", {}, False),
    ],
)
def test_who_needs_pairs(
    phantoms: Cohort, method: str, variant: dict[str, object], needs: bool
) -> None:
    assert Cell(phantoms, method, variant, "none", 0).needs_pairs is needs


@pytest.mark.parametrize("pairs", ["none", "4 slices", "1 subjects", "all"])
def test_drdd_gives_a_row_for_each_mode(phantoms: Cohort, tmp_path: Path, pairs: str) -> None:
    variant = {"noise": {"sees_source": True}}
    rows = run_cell(Cell(phantoms, "conditioned", variant, pairs, 0), "test", tmp_path)
    calls = {row["mode"]: row["network_calls"] for row in rows}
    assert calls == {"fidelity": 1, "balanced": 2, "realistic": 4}


@pytest.mark.parametrize("pairs", ["none", "4 slices"])
def test_a_variant_starts_from_pseudo_pairs_and_learns_related_tasks(
    phantoms: Cohort, tmp_path: Path, pairs: str
) -> None:
    cohort = replace(phantoms, related=("flair-to-t2",))
    variant = {"related": True, "start": {"iterations": 3}}
    cell = Cell(cohort, "drdd", variant, pairs, 0, ("fidelity",))
    assert cell.changes["residual"]["iterations"] == 2 * TINY["residual"]["iterations"]
    longer = replace(cell, method="drdd x4").changes
    assert longer["residual"]["iterations"] == 4 * cell.changes["residual"]["iterations"]
    rows = run_cell(cell, "test", tmp_path)
    assert all(np.isfinite(row["psnr_fit"]) for row in rows)
    trained = {path.parent.parent.name.partition("-")[0] for path in tmp_path.rglob("best.pt")}
    assert ("start" in trained) and (trained == {"start"}) == (pairs == "none")


@pytest.mark.parametrize("pairs", ["none", "4 slices"])
def test_regression_is_fed_alike(phantoms: Cohort, tmp_path: Path, pairs: str) -> None:
    cohort = replace(phantoms, related=("flair-to-t2",))
    variant = {"method": "regression l2", "related": True, "start": {"iterations": 3}}
    [row, *_] = run_cell(Cell(cohort, "l2 fed", variant, pairs, 0), "test", tmp_path)
    assert np.isfinite(row["psnr_fit"])
    assert row["network_calls"] == 1
    trained = [path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("best.pt")]
    assert any("regression-l2-start" in name for name in trained)
    assert len(trained) == (1 if pairs == "none" else 2)


def test_few_pairs_are_half_of_the_images_beside_related_tasks(
    phantoms: Cohort, tmp_path: Path
) -> None:
    cohort = replace(phantoms, related=("flair-to-t2",))
    pipeline = cohort.pipeline(Cell(cohort, "drdd", {"related": True}, "all", 0).changes)
    train = CohortData(cohort, pipeline, tmp_path).balanced("4 slices", 0).train
    own = [example for example in train if example.label == 0]
    assert len(own) * 2 == len(train) > 2
    assert all(len(example.lead.occupied) == 4 for example in own)
    assert all(len(e.lead.occupied) > 4 for e in train if e.label == 1)


def test_a_cell_that_was_trained_is_scored_again_the_same(phantoms: Cohort, tmp_path: Path) -> None:
    cell = Cell(phantoms, "regression l2", {}, "4 slices", 0)
    first, second = (run_cell(cell, "test", tmp_path) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert {k: v for k, v in one.items() if "seconds" not in k} == {
            k: v for k, v in two.items() if "seconds" not in k
        }


def test_weights_of_another_recipe_are_refused(phantoms: Cohort, tmp_path: Path) -> None:
    cell = Cell(phantoms, "variant", {"residual": {"loss": "l2"}}, "all", 0, ("fidelity",))
    run_cell(cell, "test", tmp_path)
    with pytest.raises(TrainingError, match="another recipe"):
        run_cell(replace(cell, variant={"residual": {"loss": "l1"}}), "test", tmp_path)


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan", "regression l1"])
def test_a_stopped_training_goes_on_only_if_its_checkpoint_is_whole(
    phantoms: Cohort, tmp_path: Path, method: str
) -> None:
    """The weights that are left are another seed's: they show whether they were used."""
    cell = Cell(phantoms, method, {}, "all", 0)
    for number, seed in enumerate((0, 1)):
        run_cell(replace(cell, seed=seed), "test", tmp_path / str(number))
    other = tmp_path / "1" / replace(cell, seed=1).name
    stopped = tmp_path / "2" / cell.name
    stopped.mkdir(parents=True)
    for name in ("last.pt", "recipe.json"):
        (stopped / name).write_bytes((other / name).read_bytes())
    run_cell(cell, "test", tmp_path / "2")
    fresh, left, found = (
        read_tensors(f / "best.pt") for f in (tmp_path / "0" / cell.name, other, stopped)
    )
    expected = left if method == "regression l1" else fresh
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_slices_limit_what_is_paired_not_what_is_unpaired(phantoms: Cohort, tmp_path: Path) -> None:
    data = CohortData(phantoms, phantoms.pipeline(), tmp_path)
    [few] = data.residual("4 slices", 0).train
    assert len(few.lead.occupied) == 4
    whole = data.residual("all", 0).train
    assert len(data.noise("4 slices", 0).train) == len(whole) > 1
    assert len(whole[0].lead.occupied) > 4


def test_leaving_one_out_tests_on_another_train_subject_for_every_number(
    phantoms: Cohort, tmp_path: Path
) -> None:
    given = Manifest.read(phantoms.manifest)
    train, val = (given.subjects(split) for split in ("train", "val"))
    for number, subject in enumerate(sorted(train)):
        left = Manifest.read(leave_one_out(phantoms.manifest, number, tmp_path))
        assert left.subjects("test") == [subject]
        assert sorted(left.subjects("train")) == sorted({*train, *val} - {subject})
        assert left.subjects("val") == []


@pytest.mark.parametrize("its_targets", [False, True])
def test_a_site_left_out_is_seen_in_its_targets_alone(tmp_path: Path, its_targets: bool) -> None:
    rows = [
        {"subject": f"{site}{i}", "contrast": c, "path": f"{site}{i}-{c}.nii.gz", "site": site}
        for site in "AB"
        for i in range(4)
        for c in ("mr", "ct")
    ]
    for row in rows:
        (tmp_path / row["path"]).touch()
    pd.DataFrame(rows).to_csv(tmp_path / "all.csv", index=False)
    written = leave_site_out(
        tmp_path / "all.csv", "B", "mr", tmp_path / "out", its_targets=its_targets
    )
    manifest, task = Manifest.read(written), Task("mr", "ct")
    assert [p.source.subject for p in manifest.pairs(*task, "test")] == ["B0", "B2"]
    assert [p.source.subject for p in manifest.pairs(*task, "train")] == ["A0", "A1", "A2", "A3"]
    others = {e.subject for e in manifest.targets("ct", "train")} - {"A0", "A1", "A2", "A3"}
    assert others == ({"B1", "B3"} if its_targets else set())


def test_rows_add_up(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for value in (1.0, 2.0):
        append(path, [{"method": "a", "psnr": value}])
    assert [row["psnr"] for row in read(path)] == ["1", "2"]
    with path.open() as file:
        assert next(csv.reader(file)) == ["method", "psnr"]


def test_the_report_reads_what_the_benchmark_writes(tmp_path: Path) -> None:
    row = {"cohort": "brain", "task": "t1-to-t2", "subject": "a", "realism": None}
    score = dict.fromkeys(set(report._COLUMNS) - {"realism"}, 1.0)
    for seed, split, method, mode in (
        (0, "test", "drdd", "fidelity"),
        (0, "val", "drdd", "fidelity"),
        (1, "val", "drdd", "fidelity"),
        (0, "val", "regression l2", ""),
    ):
        own = {"method": method, "mode": mode, "pairs": "none", "seed": seed, "split": split}
        append(tmp_path / "rows.csv", [{**row, **own, **score, "psnr_fit": 17.0 + seed}])
    table = report.load(tmp_path / "rows.csv", "test")
    assert table.name.tolist() == ["drdd fidelity"]
    assert table.pairs.tolist() == ["none"]
    assert table.realism.isna().all()
    [_, tried] = report._tried(report.load(tmp_path / "rows.csv", "val"))
    assert "| drdd fidelity | 2 | 17.5 ± 0.71 |" in tried
    assert "| regression l2 | 1 | 17 |" in tried


def test_the_report_says_what_training_again_changed(tmp_path: Path) -> None:
    row = {"cohort": "brain", "task": "t1-to-t2", "subject": "a", "split": "test", "mode": ""}
    for name, values in (("old.csv", (16.0, 17.0, 18.0)), ("new.csv", (16.3, 16.9))):
        for seed, value in enumerate(values):
            own = {"method": "regression l2", "pairs": "all", "seed": seed, "psnr_fit": value}
            append(tmp_path / name, [{**row, **own}])
    _, table, total = report._again(tmp_path / "old.csv", tmp_path / "new.csv")
    assert table.splitlines()[-1] == "| brain | t1-to-t2 | all | regression l2 | 2 | 16.5 | 16.6 |"
    assert total == "On average +0.100 dB over 2 cells and modes, at most 0.30."


def test_the_report_tables_one_model_beside_many(tmp_path: Path) -> None:
    path = tmp_path / "unified.csv"
    path.write_text(
        "task,model,subject,psnr_fit,ssim_fit\n"
        "t1-to-t2,single,a,16,0.4\nt1-to-t2,single,b,18,0.6\n"
        "t1-to-t2,unified,a,17,0.5\nt1-to-t2,unified,b,18,0.6\n"
        "t2-to-t1,single,a,20,0.7\nt2-to-t1,unified,a,21,0.8\n"
    )
    _, table = report._unified(path)
    assert table.splitlines()[2:] == [
        "| t1-to-t2 | 17 | 17.5 | 0.5 | 0.55 |",
        "| t2-to-t1 | 20 | 21 | 0.7 | 0.8 |",
        "| mean | 18.5 | 19.25 | 0.6 | 0.675 |",
    ]


def test_an_exact_prediction_scores_best(phantoms: Cohort, tmp_path: Path) -> None:
    from benchmarks.translation.scoring import score_subject

    data = CohortData(phantoms, phantoms.pipeline(), tmp_path)
    _, example = next(data.scored("test"))
    lead = example.lead
    corner = (lead.box[0][0], lead.box[1][0])

    def exact(source: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        volume, size = example.volumes["target"], source.shape[2:]
        patches = [volume.patch(i, corner, (size[0], size[1]), 0) for i in next(batches)]
        return torch.from_numpy(np.stack(patches))

    batches = iter([lead.occupied[i : i + 16] for i in range(0, len(lead.occupied), 16)])
    scores = score_subject(exact, example, 0)
    assert scores["psnr"] > 40
    assert scores["ssim"] > 0.99
