"""What a package keeps of its model's error, and what calibration makes of answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medtrans.config.schema import Pipeline
from medtrans.errors import PackageError
from medtrans.package.bundle_files import Documents
from medtrans.package.error import LEVELS, Calibration
from medtrans.package.folder import ERROR, METADATA, error_entries
from medtrans.package.store import export_package, load_package
from tests import helpers


def laplace(scale: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(scale).astype(np.float32)


class TestCalibration:
    def test_finds_how_far_answers_are_off(self) -> None:
        answers = np.random.default_rng(1).uniform(0.02, 0.5, 200_000).astype(np.float32)
        learnt = Calibration.fit([(answers, laplace(2 * answers))], 1)
        assert learnt(answers) == pytest.approx(2 * answers, rel=0.15, abs=0.02)
        assert learnt.within[0.5] == pytest.approx(np.log(2), rel=0.03)
        assert learnt.within[0.9] == pytest.approx(np.log(10), rel=0.03)
        assert learnt.subjects == 1

    @given(st.integers(0, 2**32 - 1), st.integers(400, 3000))
    def test_rises_and_holds_the_shares_it_was_fitted_to(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        answers = rng.uniform(0.01, 1, count).astype(np.float32)
        errors = rng.uniform(0.01, 1, count).astype(np.float32)  # which answers say nothing of
        learnt = Calibration.fit([(answers, errors)], 1)
        assert list(learnt.answered) == sorted(learnt.answered)
        assert list(learnt.seen) == sorted(learnt.seen)
        expected = learnt(answers)
        for level in LEVELS:
            share = (errors <= learnt.within[level] * expected).mean()
            assert share == pytest.approx(level, abs=0.03)

    def test_pairs_count_alike(self) -> None:
        rng = np.random.default_rng(0)
        many, few = (rng.uniform(0.05, 0.15, n).astype(np.float32) for n in (90_000, 3000))
        learnt = Calibration.fit([(many, many), (few, 3 * few)], 2)
        assert learnt(np.array([0.1])) == pytest.approx([0.2], rel=0.05)
        assert learnt.subjects == 2

    def test_beyond_what_was_answered_it_stays(self) -> None:
        answers = np.linspace(0.1, 0.2, 1000, dtype=np.float32)
        learnt = Calibration.fit([(answers, answers)], 1)
        low, high = learnt(np.array([0.0, 2.0]))
        assert (low, high) == (pytest.approx(0.1, abs=0.01), pytest.approx(0.2, abs=0.01))

    def test_without_subjects_it_changes_nothing(self) -> None:
        answers = np.linspace(0, 2, 50, dtype=np.float32)
        assert Calibration.unseen()(answers) == pytest.approx(answers)
        assert Calibration.unseen().subjects == 0


class TestPackage:
    @pytest.fixture
    def folder(self, pipeline: Pipeline, tmp_path: Path) -> Path:
        known = helpers.known_error(pipeline)
        return helpers.save_model(tmp_path / "model", pipeline, error=known)

    def test_comes_back(self, folder: Path, pipeline: Pipeline, tmp_path: Path) -> None:
        known, loaded = helpers.known_error(pipeline), load_package(folder).error
        assert loaded is not None
        assert loaded.calibration == known.calibration
        assert loaded.entries == error_entries(folder)
        x, time = torch.randn(1, 1 + pipeline.slices.stack, 8, 8), torch.zeros(1)
        assert torch.allclose(loaded.network(x, time), known.network(x, time), atol=2e-3)
        export_package(folder, tmp_path / "exported", Documents())
        again = load_package(tmp_path / "exported").error
        assert again is not None
        assert again.entries == loaded.entries

    def test_a_package_of_before_has_none(self, random_model: Path) -> None:
        assert load_package(random_model).error is None
        assert error_entries(random_model) is None

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda folder: (folder / ERROR).unlink(), "cannot be read"),
            (lambda folder: (folder / ERROR).write_bytes(b"x"), "changed or damaged"),
            (lambda folder: edit(folder, seen=[0.2, 0.1]), "do not fit together"),
            (lambda folder: edit(folder, seen=[0.1]), "do not fit together"),
            (lambda folder: edit(folder, answered=[0.0, float("nan")]), "do not fit together"),
            (lambda folder: edit(folder, within={"0.5": 1.0}), "do not fit together"),
            (lambda folder: edit(folder, within={"0.5": -1.0, "0.9": 1.0}), "do not fit together"),
            (lambda folder: edit(folder, subjects="few"), "do not fit together"),
        ],
        ids=["gone", "damaged", "falls", "short", "nan", "level", "negative", "word"],
    )
    def test_what_does_not_fit_is_refused(
        self, folder: Path, damage: Callable[[Path], object], words: str
    ) -> None:
        damage(folder)
        with pytest.raises(PackageError, match=words):
            load_package(folder)


def edit(folder: Path, **changes: object) -> None:
    metadata = json.loads((folder / METADATA).read_text())
    metadata["medtrans"]["error"] |= changes
    (folder / METADATA).write_text(json.dumps(metadata))
