"""The commands of docs/own-data.md as they stand: a folder of scans becomes a translated cohort."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medtrans.volumes import read_volume
from tests.cli.messy import MOVED_DEG, MOVED_MM, write_messy
from tests.helpers import Run
from tests.test_docs import ROOT
from tests.test_docs_run import commands

RECIPE = """
extends = "t1-to-t2"
[volume]
spacing_mm = [0.0, 0.0, 0.0]
divisible = 4
[network]
channels = [4, 4]
blocks = 1
attention = [false, false]
norm_groups = 2
[noise]
iterations = 4
batch_size = 2
patch = [16, 16]
[residual]
iterations = 4
batch_size = 2
patch = [16, 16]
[error]
iterations = 0
[look]
examples = 0
"""
Typed = Callable[[str], tuple[int, Any]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medtrans: Run) -> Typed:
    """Type a command in the folder of the test; gives the exit code and what --json says."""
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> tuple[int, Any]:
        program, *words = command.split()
        assert program == "medtrans"
        code, out, err = medtrans(*words, "--json")
        return code, json.loads(out) if out else err

    return run


def test_six_commands(typed: Typed, tmp_path: Path) -> None:
    write_messy(tmp_path / "DATA")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    page = commands(ROOT / "docs" / "own-data.md")
    manifest, first_check, align, second_check, train, translate, evaluate = page

    code, listed = typed(manifest)
    assert code == 0
    assert listed["volumes"] == 16
    table = pd.read_csv(tmp_path / "data.csv", dtype=str)
    assert table["subject"].nunique() == 7
    assert set(table["split"]) == {"train", "val", "test"}
    assert "Doe" not in (tmp_path / "data.csv").read_text()
    [patient] = [name for name in table["subject"] if not name.startswith("sub-")][:1]

    code, refused = typed(f"{first_check} --pipeline tiny.toml")
    assert code == 2
    refused = refused if isinstance(refused, str) else json.dumps(refused)
    assert "Training would stop at 2 problem(s)" in refused
    assert "medtrans align" in refused

    code, aligned = typed(align)
    assert code == 0
    result = {row["subject"]: row for row in aligned["pairs"]}
    resampled = {name for name, row in result.items() if row["result"] == "resampled"}
    assert resampled == {"sub-04", patient}
    moved = result["sub-04"]
    assert moved["turned_deg"] == pytest.approx(MOVED_DEG, abs=1)
    assert moved["moved_mm"] == pytest.approx(np.linalg.norm(MOVED_MM), abs=2.25)  # half a voxel
    again = pd.read_csv(tmp_path / "aligned" / "manifest.csv", dtype=str).fillna("")
    assert len(again) == 16
    assert not again["unpaired"].any()
    archive = again[again["subject"] == patient].set_index("contrast")
    assert (archive.loc["t1", "series"], archive.loc["t2", "series"]) == ("", "1.2.3.2")
    assert archive.loc["t1", "path"].endswith("t1_on-t2_resampled.nii.gz")

    code, checked = typed(f"{second_check} --pipeline tiny.toml --steps 2")
    assert code == 0
    assert checked["train_pairs"] == {"t1-to-t2": 6}
    assert [row["stage"] for row in checked["estimated_without_validation"]] == [
        "noise",
        "residual",
    ]

    code, trained = typed(f"{train} --pipeline tiny.toml")
    assert (code, trained["model"]) == (0, "run/model")

    code, cohort = typed(translate)
    assert (code, cohort["translated"], cohort["failed"]) == (0, 8, 0)
    for row in cohort["volumes"]:
        source, made = read_volume(tmp_path / row["input"]), read_volume(tmp_path / row["output"])
        assert made.shape == source.shape
        np.testing.assert_allclose(made.affine, source.affine, atol=1e-3)

    code, scored = typed(evaluate)
    assert code == 0
    assert scored["page"] == "scores/index.html"
    assert (tmp_path / "scores" / "scores.csv").is_file()
