"""What the networks are trained on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medtrans.config.schema import Pipeline
from medtrans.errors import TrainingError, UnreadableFileError
from medtrans.preprocessing.intensity import Profile
from medtrans.training import data
from medtrans.training.augment import Augmentation, bias_field, resampled, tone_curve
from medtrans.training.cache import CachedVolume
from medtrans.training.data import (
    RandomSlices,
    StageExamples,
    _random_corner,
    batches,
    pair_example,
    readers_errors,
    target_example,
)
from medtrans.training.stages import noise_stage, residual_stage
from tests import helpers
from tests.faults.children import in_child

Cached = dict[str, dict[str, CachedVolume]]
KINDS = ("flip", "affine", "tone_curve", "gamma", "lift", "bias_field", "noise", "cut")
STILL = dict.fromkeys(KINDS, 0.0)
EYE = tuple(map(tuple, np.eye(4).tolist()))


def numbered(
    folder: Path, occupied: tuple[int, ...], axis: int = 2, box: Any = ((2, 10), (3, 15))
) -> CachedVolume:
    """A volume of 11 slices whose voxels are the slice's number / 10 - 0.5."""
    path = folder / "numbered.npy"
    shape = (11, 12, 18)
    voxels = np.broadcast_to(np.arange(11)[:, None, None] / 10 - 0.5, shape)
    np.save(path, voxels.astype(np.float32))
    return CachedVolume(path, shape, box, occupied, Profile(0, 1), EYE, axis, True)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a
    )


def paired(cached: Cached, pipeline: Pipeline, seed: int = 0) -> RandomSlices:
    train = cached["train"]
    example = pair_example(train["t1"], train["t2"], 0, pipeline.slices.context)
    return RandomSlices([example], pipeline, "residual", seed)


class TestRandomSlices:
    def test_example_is_a_function_of_seed_and_position(
        self, cached: Cached, pipeline: Pipeline
    ) -> None:
        one, two, other = (paired(cached, pipeline, seed) for seed in (5, 5, 6))
        for position in (17, 3, 0):
            assert same(one[position], two[position])
            assert not same(one[position], other[position])
        assert not same(one[0], one[1])

    @pytest.mark.parametrize("workers", [1, 2])
    def test_workers_change_nothing(self, cached: Cached, pipeline: Pipeline, workers: int) -> None:
        slices = paired(cached, pipeline)
        alone = list(batches(slices, range(3), 2, workers=0))
        helped = list(batches(slices, range(3), 2, workers=workers))
        assert len(alone) == len(helped) == 3
        assert all(same(a, b) for a, b in zip(alone, helped, strict=True))

    def test_resumed_stream_goes_on_where_it_was(self, cached: Cached, pipeline: Pipeline) -> None:
        slices = paired(cached, pipeline)
        whole = list(batches(slices, range(4), 2, workers=0))
        rest = list(batches(slices, range(2, 4), 2, workers=0))
        assert all(same(a, b) for a, b in zip(whole[2:], rest, strict=True))

    def test_global_generators_change_nothing(self, cached: Cached, pipeline: Pipeline) -> None:
        slices = paired(cached, pipeline)
        before = slices[4]
        np_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        np.random.random(13)  # noqa: NPY002
        torch.rand(13)
        try:
            assert same(before, slices[4])
        finally:
            np.random.set_state(np_state)  # noqa: NPY002
            torch.set_rng_state(torch_state)

    def test_which_slice_it_is_does_not_decide_whether_it_is_flipped(
        self, tmp_path: Path, pipeline: Pipeline
    ) -> None:
        volume = numbered(tmp_path, tuple(range(11)))
        voxels = np.load(volume.path)
        np.save(volume.path, voxels + np.linspace(0, 0.01, voxels[0].size).reshape(voxels[0].shape))
        kept, changed = (
            RandomSlices(
                2 * [target_example(volume, 0)],  # with one the two streams would be shifted
                pipeline.model_copy(
                    update={
                        "augmentation": pipeline.augmentation.model_copy(
                            update={**STILL, "flip": share}
                        )
                    }
                ),
                "noise",
                0,
            )
            for share in (0.0, 0.5)
        )
        positions = range(300)
        upper = [float(kept[p]["target"].max()) > 0.0 for p in positions]
        flipped = [not same(kept[p], changed[p]) for p in positions]
        assert abs(np.corrcoef(upper, flipped)[0, 1]) < 0.2

    def test_shapes(self, cached: Cached, pipeline: Pipeline) -> None:
        example = paired(cached, pipeline)[0]
        assert example["source"].shape == (3, 16, 16)
        assert example["target"].shape == (1, 16, 16)
        assert example["source"].dtype == example["target"].dtype == torch.float32

    def test_values_stay_in_range(self, cached: Cached, pipeline: Pipeline) -> None:
        slices = paired(cached, pipeline)
        for position in range(20):
            example = slices[position]
            for key in ("source", "target"):
                assert float(example[key].min()) >= -1 - 1e-5
                assert float(example[key].max()) <= 1 + 1e-5

    def test_only_slices_with_foreground_are_drawn(self, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline(augmentation=STILL, noise={"patch": [4, 4]})
        example = target_example(numbered(tmp_path, (2, 3, 7)), 0)
        slices = RandomSlices([example], recipe, "noise", 0)
        drawn = {round((float(slices[i]["target"].max()) + 0.5) * 10) for i in range(60)}
        assert drawn == {2, 3, 7}

    def test_every_volume_is_drawn(self, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline(augmentation=STILL, noise={"patch": [4, 4]})
        volume = numbered(tmp_path, (2, 3))
        examples = [target_example(volume, label) for label in range(4)]
        slices = RandomSlices(examples, recipe, "noise", 0)
        labels = [slices[i]["label"] for i in range(200)]
        assert min(labels.count(label) for label in range(4)) > 25

    def test_stages_draw_different_streams(self, cached: Cached, pipeline: Pipeline) -> None:
        example = target_example(cached["train"]["t2"], 0)
        noise, residual = (
            RandomSlices([example], pipeline, name, 0) for name in ("noise", "residual")
        )
        assert not same(noise[0], residual[0])


class TestCorner:
    bounds = st.tuples(st.integers(0, 20), st.integers(1, 20)).map(lambda b: (b[0], sum(b)))

    @given(st.tuples(bounds, bounds), st.tuples(st.integers(1, 30), st.integers(1, 30)), st.data())
    def test_patch_in_the_box_or_the_box_in_the_patch(
        self, box: Any, patch: tuple[int, int], data: st.DataObject
    ) -> None:
        volume = CachedVolume(Path("none"), (1, 50, 50), box, (0,), Profile(0, 1), EYE, 2, True)
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        corner = _random_corner(volume, patch, rng)
        for (start, end), size, at in zip(box, patch, corner, strict=True):
            if size <= end - start:
                assert start <= at <= at + size <= end
            else:
                assert at <= start < end <= at + size


class TestAugmentation:
    def config(self, **changes: float) -> Any:
        return helpers.tiny_pipeline(augmentation={**STILL, **changes}).augmentation

    def slices(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        source = rng.uniform(-1, 1, (3, 16, 12)).astype(np.float32)
        source[:, :4] = -1
        return {"source": source, "target": source[1:2].copy()}

    def test_none(self) -> None:
        given = self.slices()
        out = Augmentation(("source", "target"), self.config(), 0)(given, seed=1)
        for key, value in given.items():
            np.testing.assert_allclose(out[key], value, atol=1e-6)

    @pytest.mark.parametrize("axis", [0, 1])
    def test_flip_is_left_right_for_all_slices(self, axis: int) -> None:
        given = self.slices()
        out = Augmentation(("source", "target"), self.config(flip=1.0), axis)(given, seed=1)
        for key, value in given.items():
            np.testing.assert_allclose(out[key], np.flip(value, axis + 1), atol=1e-6)

    def test_a_sagittal_slice_has_no_left_and_right(self) -> None:
        given = self.slices()
        out = Augmentation(("source", "target"), self.config(flip=1.0), None)(given, seed=1)
        np.testing.assert_allclose(out["source"], given["source"], atol=1e-6)

    def test_a_sagittal_volume_is_never_flipped(self, tmp_path: Path) -> None:
        """In-plane axis 0 of an axial or coronal slice is left-right."""
        voxels = np.linspace(-0.9, 0.9, 11 * 12 * 18, dtype=np.float32).reshape(11, 12, 18)
        recipe = helpers.tiny_pipeline(
            augmentation={**STILL, "flip": 1.0}, noise={"patch": [12, 16]}
        )
        for axis, flipped in ((0, False), (1, True), (2, True)):
            volume = numbered(tmp_path, (5,), axis, ((0, 12), (0, 16)))
            np.save(volume.path, voxels)
            found = RandomSlices([target_example(volume, 0)], recipe, "noise", 0)[0]["target"][0]
            plain = voxels[5, :, :16]
            expected = np.flip(plain, 0) if flipped else plain
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)

    def test_source_and_target_move_together(self) -> None:
        augment = Augmentation(("source", "target"), self.config(affine=1.0, flip=0.5), 0)
        given = self.slices()
        for seed in range(5):
            out = augment(given, seed)
            np.testing.assert_allclose(out["source"][1:2], out["target"], atol=1e-6)
            assert not np.allclose(out["target"], given["target"])

    @pytest.mark.parametrize("kind", ["tone_curve", "gamma", "lift", "bias_field", "noise"])
    def test_tone_changes_the_source_alone_and_not_its_background(self, kind: str) -> None:
        given = self.slices()
        augment = Augmentation(("source", "target"), self.config(**{kind: 1.0}), 0)
        changes = []
        for seed in range(4):
            out = augment(given, seed)
            np.testing.assert_allclose(out["target"], given["target"], atol=1e-6)
            changes.append(np.abs(out["source"] - given["source"]).max())
            assert (out["source"][:, :4] == -1).all()
            assert out["source"].min() >= -1
            assert out["source"].max() <= 1
        assert max(changes) > 0.01

    def test_lift_raises_the_darkest_tissue_and_leaves_the_brightest(self) -> None:
        given = self.slices()
        inside = given["source"] > -1
        augment = Augmentation(("source", "target"), self.config(lift=1.0, lift_max=0.5), 0)
        before = given["source"][inside]
        raised = [augment(given, seed)["source"][inside] for seed in range(20)]
        for after in raised:
            left = float((1 - after.min()) / (1 - before.min()))  # of the distance to white
            np.testing.assert_allclose(1 - after, left * (1 - before), atol=1e-5)
            assert 0.5 <= left <= 1
        assert np.std([after.min() for after in raised]) > 0.05

    def test_cut_takes_the_same_part_of_both(self) -> None:
        given = {key: np.maximum(value, -0.9) for key, value in self.slices().items()}
        augment = Augmentation(("source", "target"), self.config(cut=1.0, cut_share=0.4), 0)
        shares = []
        for seed in range(20):
            out = augment(given, seed)
            gone = out["source"][0] == -1
            assert all(((plane == -1) == gone).all() for v in out.values() for plane in v)
            for key, value in out.items():
                np.testing.assert_allclose(value[:, ~gone], given[key][:, ~gone], atol=1e-6)
            shares.append(gone.mean())
        assert 0.1 < np.mean(shares) < 0.3
        assert max(shares) < 0.42

    def test_seed_decides(self) -> None:
        config = self.config(**dict.fromkeys(KINDS, 1.0))
        augment = Augmentation(("source", "target"), config, 0)
        given = self.slices()
        one, other = augment(given, 8), augment(given, 2**40 + 9)
        again = augment(given, 8)
        assert np.array_equal(one["source"], again["source"])
        assert not np.array_equal(one["source"], other["source"])

    MATRIX = np.array([[0.96, -0.25, 1.5], [0.3, 1.05, -2.0]])

    def test_the_patch_turns_about_its_centre(self) -> None:
        """As the splines of SciPy turn a smooth image; in fine detail the two cubics differ."""
        noise = np.random.default_rng(0).normal(size=(2, 40, 56))
        image = ndimage.gaussian_filter(noise, (0, 4, 4)).astype(np.float32)
        centre = (np.array(image.shape[1:]) - 1) / 2
        offset = centre + self.MATRIX[:, 2] - self.MATRIX[:, :2] @ centre
        expected = np.stack([
            ndimage.affine_transform(plane, self.MATRIX[:, :2], offset, order=3, mode="nearest")
            for plane in image
        ])  # fmt: skip
        inner = np.s_[:, 12:-12, 16:-16]
        found = resampled(image, self.MATRIX)
        np.testing.assert_allclose(found[inner], expected[inner], atol=0.01 * np.ptp(image))

    def test_a_quarter_turn_and_whole_pixels_are_exact(self) -> None:
        image = np.random.default_rng(0).normal(size=(2, 20, 20)).astype(np.float32)
        quarter = resampled(image, np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]))
        np.testing.assert_allclose(quarter, np.rot90(image, axes=(1, 2)), atol=1e-4)
        moved = resampled(image, np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]]))
        np.testing.assert_allclose(moved[:, :-3, 2:], image[:, 3:, :-2], atol=1e-4)

    def test_a_turned_patch_keeps_its_detail_and_its_range(self) -> None:
        """Detail of a few pixels, of which bilinear interpolation loses more."""
        noise = np.random.default_rng(0).normal(size=(1, 96, 96))
        fine = ndimage.gaussian_filter(noise, (0, 1, 1)).astype(np.float32)
        turned = resampled(fine, np.array([[0.99, 0.1, 0.5], [-0.1, 0.99, 0.5]]))
        bilinear = ndimage.affine_transform(
            fine[0], np.array([[0.99, 0.1], [-0.1, 0.99]]), [-4.5, 5.0], order=1, mode="nearest"
        )
        inner = np.s_[16:-16, 16:-16]
        assert turned[0][inner].std() > 0.95 * fine[0][inner].std()
        assert bilinear[inner].std() < 0.93 * fine[0][inner].std()
        assert fine.min() <= turned.min()
        assert turned.max() <= fine.max()

    def test_tone_curve_rises_and_keeps_the_range(self) -> None:
        ramp = np.linspace(0.1, 0.9, 200, dtype=np.float32)[None, None]
        for points in (3, 4, 8):
            out = tone_curve(ramp, points, np.random.default_rng(points))[0, 0]
            assert out[[0, -1]] == pytest.approx([0.1, 0.9], abs=1e-6)
            assert (np.diff(out) > -1e-6).all()
            assert np.abs(out - ramp[0, 0]).max() > 0.02

    def test_bias_field_is_smooth_and_around_one(self) -> None:
        for seed in range(5):
            field = bias_field((40, 30), 0.2, np.random.default_rng(seed))
            assert field.shape == (40, 30)
            assert np.exp(-2.0) < field.min() < 1 < field.max() < np.exp(2.0)
            assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.5


class TestStages:
    def test_noise_stage_is_given_targets_alone(self, cached: Cached, pipeline: Pipeline) -> None:
        examples = [target_example(cached["train"]["t2"], 0)]
        stage = noise_stage(pipeline, StageExamples(examples, examples), seed=0)
        for batch in batches(stage.slices, range(2), 2, workers=0):
            assert set(batch) == {"target", "label"}
            assert batch["target"].shape == (2, 1, 16, 16)

    def test_losses_are_functions_of_their_generator(
        self, cached: Cached, pipeline: Pipeline
    ) -> None:
        train = cached["train"]
        noise = noise_stage(pipeline, StageExamples([target_example(train["t2"], 0)]), 0)
        pair = pair_example(train["t1"], train["t2"], 0, 1)
        for stage in (noise, residual_stage(pipeline, StageExamples([pair]), 0)):
            batch = next(batches(stage.slices, range(1), 2, workers=0))
            network = helpers.randomise(stage.network, 0)
            losses = [
                stage.loss(network, batch, torch.Generator().manual_seed(s)).item()
                for s in (1, 1, 2)
            ]
            assert losses[0] == losses[1] != losses[2]

    def test_ct_is_monitored_in_its_own_unit(self, cached: Cached, pipeline: Pipeline) -> None:
        pair = pair_example(cached["train"]["t1"], cached["train"]["t2"], 0, 1)
        pairs = StageExamples([pair])
        assert residual_stage(pipeline, pairs, 0).monitored == "fidelity_psnr_fit"
        ct = helpers.tiny_pipeline("mr-to-ct")
        assert residual_stage(ct, pairs, 0).monitored == "fidelity_psnr"


class TestReaders:
    """What becomes of the processes that read ahead is told in a sentence."""

    def test_one_that_is_killed(self, cached: Cached, pipeline: Pipeline) -> None:
        """As the system does where memory or /dev/shm is short."""
        slices = paired(cached, pipeline)
        [(axis, augmentation)] = slices.augmentations.items()

        def killed(read: Any, seed: int) -> Any:
            if torch.utils.data.get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return augmentation(read, seed)

        slices.augmentations = {axis: killed}  # type: ignore[dict-item]
        with (
            pytest.raises(TrainingError, match=r"has died: [^.]*\. Memory .*--shm-size") as caught,
            readers_errors(),
        ):
            list(batches(slices, range(4), 2))
        assert "\n" not in str(caught.value)

    def test_one_ignores_a_jobs_signal_but_not_pythons_exit(self) -> None:
        """Else a process with an error that still holds its readers would never end."""

        def reader() -> None:
            data._quiet_worker(0)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
            os.write(write, b"alive")
            signal.raise_signal(signal.SIGTERM)

        read, write = os.pipe()
        assert in_child(reader) == -signal.SIGTERM
        assert os.read(read, 5) == b"alive"
        for end in (read, write):
            os.close(end)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_volume_that_is_gone_or_damaged_is_named(
        self, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data, "_fit_shared_memory", lambda *_: True)  # reads here, too
        recipe = helpers.tiny_pipeline()
        for spoil in (Path.unlink, lambda path: path.write_bytes(b"no array")):
            volume = numbered(tmp_path, (3, 4))
            slices = RandomSlices([target_example(volume, 0)], recipe, "noise", 0)
            spoil(volume.path)
            expected = rf"^{volume.path}: the prepared volume is gone, damaged .*--resume.*again\.$"
            with pytest.raises(UnreadableFileError, match=expected), readers_errors():
                list(batches(slices, range(2), 2, workers))

    def test_shared_memory_that_is_too_small_is_not_used(
        self, cached: Cached, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        slices = paired(cached, pipeline)
        wanted = list(batches(slices, range(2), 2))
        assert capsys.readouterr().err == ""
        # A patch has 16 x 16 pixels in five planes, a batch two of them; six batches may wait.
        free = 16 * 16 * (2 * pipeline.slices.context + 2) * 4 * 2 * 6 - 1
        monkeypatch.setattr(shutil, "disk_usage", lambda _: mock.Mock(free=free))
        monkeypatch.setattr(data, "_quiet_worker", None)  # no process may be started
        read = list(batches(slices, range(2), 2))
        assert all(same(a, b) for a, b in zip(read, wanted, strict=True))
        assert "/dev/shm is too small" in capsys.readouterr().err

    def test_an_error_of_ours_stays_as_it_is(self) -> None:
        with pytest.raises(RuntimeError, match="shapes"), readers_errors():
            raise RuntimeError("shapes")
        with pytest.raises(TrainingError, match=r"^a sentence$"), readers_errors():
            raise TrainingError("a sentence")
