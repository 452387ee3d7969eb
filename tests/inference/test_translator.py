"""Volumes in, volumes out: on the same grid, from the same seed, whatever the batch."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

import medtrans
from medtrans.diffusion.randomness import correlated_slice_noise
from medtrans.errors import (
    FileError,
    GeometryError,
    MedtransError,
    OutputError,
    PackageError,
    UsageError,
)
from medtrans.inference.jobs import Job
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator
from medtrans.preprocessing.foreground import find_foreground
from medtrans.volumes import read_volume
from tests import helpers

MODES = {"fidelity": (1, 0), "balanced": (1, 1), "realistic": (1, 3)}


@pytest.fixture(scope="module")
def identity(identity_model: Path) -> Translator:
    return Translator.load(identity_model, "cpu")


@pytest.fixture(scope="module")
def random(random_model: Path) -> Translator:
    translator = Translator.load(random_model, "cpu")
    translator.sampler.precision = torch.float32  # bf16 rounds differently from batch to batch
    return translator


@pytest.fixture
def head() -> MetaTensor:
    return helpers.volume(*helpers.head())


@pytest.fixture
def head_file(tmp_path: Path) -> Path:
    return helpers.write_nifti(tmp_path / "t1.nii.gz", *helpers.head())


class Calls:
    """What a network was called with, while it is watched."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.inputs: list[torch.Tensor] = []
        self.hook = network.register_forward_pre_hook(self.note)

    def note(self, _: Any, arguments: tuple[Any, ...]) -> None:
        self.inputs.append(arguments[0].clone())

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


GRIDS = [
    pytest.param(spacing, tilt, id=f"{'oblique' if tilt else 'straight'}-{name}")
    for tilt in (False, True)
    for name, spacing in (("isotropic", (1.0, 1.0, 1.0)), ("anisotropic", (0.7, 1.3, 4.0)))
]
STORED = [
    pytest.param(order, signs, id="".join("-+"[s > 0] + "xyz"[o] for o, s in zip(order, signs)))  # noqa: B905
    for order, signs in helpers.orientations()
]


@pytest.mark.parametrize(("spacing", "tilt"), GRIDS)
@pytest.mark.parametrize(("order", "signs"), STORED)
def test_identity_gives_back_voxels_and_grid(
    identity: Translator,
    tmp_path: Path,
    order: tuple[int, ...],
    signs: tuple[int, ...],
    spacing: tuple[float, ...],
    tilt: bool,
) -> None:
    grid = np.diag([*spacing, 1.0])
    grid[:3, 3] = [-31.5, 12.25, 7.0]
    grid = helpers.tilted(grid) if tilt else grid
    voxels, affine = helpers.stored_as(helpers.marked_head(), grid, order, signs)
    path = helpers.write_nifti(tmp_path / "t1.nii", voxels, affine, qform_code=3, sform_code=4)
    written = identity.translate_file(Job(path, out=tmp_path / "out.nii"), Settings())
    source, result = nib.load(path), nib.load(written.outputs[0])
    np.testing.assert_allclose(result.get_fdata(), voxels, atol=2e-4)
    assert np.argmax(result.get_fdata()) == np.argmax(voxels)  # the marker is still on the right
    assert np.array_equal(result.affine, source.affine)
    for form in ("qform", "sform"):
        (a, a_code), (b, b_code) = (
            getattr(i.header, f"get_{form}")(coded=True) for i in (source, result)
        )
        assert a_code == b_code
        assert np.array_equal(a, b)
    for field in ("pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_y"):
        assert np.array_equal(source.header[field], result.header[field])
    assert result.header.get_xyzt_units() == source.header.get_xyzt_units()
    assert result.get_data_dtype() == np.float32


class TestModes:
    @pytest.mark.parametrize("mode", MODES)
    def test_calls_the_networks_as_often_as_documented(
        self, random: Translator, head: MetaTensor, mode: str
    ) -> None:
        with Calls(random.sampler.residual) as residual, Calls(random.sampler.noise) as noise:
            result = random.translate_volume(head, Settings(mode=mode, batch_size=100))
        assert (len(residual.inputs), len(noise.inputs)) == MODES[mode]
        assert result.steps[:2] == MODES[mode]

    def test_steps_can_be_chosen(self, random: Translator, head: MetaTensor) -> None:
        settings = Settings(residual_steps=3, noise_steps=4, batch_size=100)
        with Calls(random.sampler.residual) as residual, Calls(random.sampler.noise) as noise:
            random.translate_volume(head, settings)
        assert (len(residual.inputs), len(noise.inputs)) == (3, 4)

    def test_averages_are_means_of_their_passes(self, random: Translator, head: MetaTensor) -> None:
        names = ("axial", "coronal", "sagittal")
        alone = [random.translate_volume(head, Settings(axes=(name,))) for name in names]
        together = random.translate_volume(head, Settings(axes=names))
        assert together.slices == sum(one.slices for one in alone)
        assert not np.allclose(alone[0].voxels, alone[1].voxels)
        lowest, highest = (f([one.voxels for one in alone], axis=0) for f in (np.min, np.max))
        inside = alone[0].voxels > 0
        tolerance = 1e-3 * highest.max()
        assert (together.voxels >= lowest - tolerance)[inside].mean() > 0.95
        assert (together.voxels <= highest + tolerance)[inside].mean() > 0.95

    def test_a_mirrored_input_gives_the_mirrored_mean(
        self, random: Translator, head: MetaTensor
    ) -> None:
        mirrored = helpers.volume(head.numpy()[::-1].copy(), np.asarray(head.affine))

        def asymmetry(flips: bool) -> float:
            settings = Settings(flips=flips, samples=4)
            one, other = (random.translate_volume(v, settings).voxels for v in (head, mirrored))
            return float(np.abs(one - other[::-1]).mean())

        assert asymmetry(flips=True) < 0.8 * asymmetry(flips=False)

    def test_every_pass_has_noise_of_its_own(self, head: MetaTensor, random: Translator) -> None:
        """Means gain less from passes that share their noise."""
        with Calls(random.sampler.residual) as residual:
            random.translate_volume(head, Settings(axes=("axial", "coronal"), batch_size=1))
        noises = [x[0, 0] - x[0, 2] for x in residual.inputs]  # y + sigma eps, less y
        first = torch.stack([noise[0, :4] for noise in noises])
        assert torch.pdist(first).min() > 1e-4

    def test_modes_differ(self, random: Translator, head: MetaTensor) -> None:
        results = [random.translate_volume(head, Settings(mode=mode)).voxels for mode in MODES]
        assert not np.allclose(results[0], results[1])
        assert not np.allclose(results[1], results[2])

    @pytest.mark.parametrize("mode", ["balanced", "realistic"])
    def test_no_noise_stage_can_only_do_fidelity(self, tmp_path: Path, mode: str) -> None:
        model = helpers.save_model(tmp_path / "m", helpers.tiny_pipeline(), noise=False)
        translator = Translator.load(model, "cpu")
        head = helpers.volume(*helpers.head())
        with pytest.raises(PackageError, match=r"no noise stage.*--mode fidelity"):
            translator.translate_volume(head, Settings(mode=mode))
        assert translator.translate_volume(head, Settings()).voxels.std() > 0


class TestRandomness:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("batch_size", [1, 7, 100])
    def test_batch_size_changes_nothing(
        self, random: Translator, head: MetaTensor, mode: str, batch_size: int
    ) -> None:
        settings = Settings(mode=mode, eta=1.0, batch_size=4)
        base = random.translate_volume(head, settings)
        other = random.translate_volume(head, Settings(mode=mode, eta=1.0, batch_size=batch_size))
        np.testing.assert_allclose(base.voxels, other.voxels, atol=0.02)  # of 1000

    def test_batch_size_changes_no_bit_of_the_noise(
        self, random: Translator, head: MetaTensor
    ) -> None:
        starts = []
        for size in (1, 5, 100):
            with Calls(random.sampler.residual) as calls:
                random.translate_volume(head, Settings(batch_size=size))
            starts.append(torch.cat(calls.inputs))
        assert torch.equal(starts[0], starts[1])
        assert torch.equal(starts[0], starts[2])

    def test_noise_belongs_to_the_slice(self, random: Translator, head: MetaTensor) -> None:
        with Calls(random.sampler.residual) as calls:
            random.translate_volume(head, Settings(seed=5, batch_size=100))
        x, y = calls.inputs[0][:, 0], calls.inputs[0][:, 2]
        found = (x - y) / random.sampler.schedule.sigma
        occupied = np.flatnonzero(head.numpy().any((0, 1)))
        first = int(occupied[0])  # the crop starts there
        length = random.package.pipeline.sampling.correlation_length
        places = [int(i) - first for i in occupied]
        expected = correlated_slice_noise(5, places, x.shape[1:], "start 0", length)
        torch.testing.assert_close(found, expected[:, 0], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("mode", MODES)
    def test_seed_decides(self, random: Translator, head: MetaTensor, mode: str) -> None:
        one, same, other = (
            random.translate_volume(head, Settings(mode=mode, seed=seed)).voxels
            for seed in (3, 3, 4)
        )
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)

    def test_global_generator_is_left_alone(self, random: Translator, head: MetaTensor) -> None:
        before = torch.get_rng_state()
        random.translate_volume(head, Settings(mode="realistic", eta=1.0))
        assert torch.equal(before, torch.get_rng_state())

    def test_eta_needs_more_than_one_noise_step_to_matter(
        self, random: Translator, head: MetaTensor
    ) -> None:
        def run(**settings: Any) -> np.ndarray:
            return random.translate_volume(head, Settings(**settings)).voxels

        assert np.array_equal(run(mode="balanced", eta=0.0), run(mode="balanced", eta=1.0))
        assert not np.allclose(run(mode="realistic", eta=0.0), run(mode="realistic", eta=1.0))


class TestSamples:
    def test_one_sample_has_no_spread(self, random: Translator, head: MetaTensor) -> None:
        assert random.translate_volume(head, Settings()).spread is None

    def test_mean_and_spread_are_of_the_draws(
        self, random: Translator, head: MetaTensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = random.translate_volume(head, Settings(samples=1)).voxels
        two = random.translate_volume(head, Settings(samples=2))
        assert two.spread.shape == one.shape
        second = 2 * two.voxels - one  # mean of two draws, both clipped to the profile
        inside = head.numpy() > 0
        expected = np.abs(second - one) / np.sqrt(2)
        np.testing.assert_allclose(two.spread[inside], expected[inside], atol=0.02)
        assert two.spread[inside].mean() > 1
        assert (two.spread[~inside] == 0).all()

    def test_identity_has_no_spread(self, identity: Translator, head: MetaTensor) -> None:
        result = identity.translate_volume(head, Settings(samples=3))
        assert result.spread.max() < 1e-3

    def test_uncertainty_file(self, random: Translator, head_file: Path, tmp_path: Path) -> None:
        spread = tmp_path / "spread.nii.gz"
        written = random.translate_file(
            Job(head_file, out=tmp_path / "o.nii.gz", uncertainty=spread), Settings(samples=2)
        )
        assert spread in written.outputs
        assert np.array_equal(nib.load(spread).affine, nib.load(head_file).affine)
        assert nib.load(spread).get_fdata().max() > 0
        sidecar = json.loads((tmp_path / "spread.json").read_text())
        assert sidecar["Content"] == "standard deviation over samples"
        assert sidecar["Samples"] == 2

    def test_outputs_that_would_replace_each_other_or_an_input(
        self, random: Translator, head_file: Path, tmp_path: Path
    ) -> None:
        mask = helpers.write_nifti(tmp_path / "mask.nii.gz", *helpers.head())
        out = tmp_path / "o.nii.gz"
        before = {path: path.read_bytes() for path in (head_file, mask)}
        for goal, spread in ((out, out), (out, head_file), (out, mask), (mask, out)):
            with pytest.raises(OutputError, match="would replace"):
                job = Job(head_file, out=goal, uncertainty=spread, mask=mask)
                random.translate_file(job, Settings(samples=2))
        assert {path: path.read_bytes() for path in (head_file, mask)} == before
        assert not out.exists()

    @pytest.mark.parametrize("out", ["o.txt", "o.mha"])
    def test_a_name_of_another_kind_is_refused_before_any_work(
        self, random: Translator, head_file: Path, tmp_path: Path, out: str
    ) -> None:
        seen: list[Any] = []
        with pytest.raises(OutputError, match="NIfTI output"):
            random.translate_file(
                Job(head_file, out=tmp_path / out), Settings(), on_slices=lambda *a: seen.append(a)
            )
        assert not seen

    def test_a_name_without_a_suffix_is_a_folder(
        self, random: Translator, head_file: Path, tmp_path: Path
    ) -> None:
        found = random.translate_file(Job(head_file, out=tmp_path / "new" / "folder"), Settings())
        assert found.outputs[0] == tmp_path / "new" / "folder" / "t1_t2-synthetic.nii.gz"

    def test_the_sidecar_says_which_mask(
        self, random: Translator, head_file: Path, tmp_path: Path
    ) -> None:
        mask = helpers.write_nifti(tmp_path / "mask.nii.gz", *helpers.head())
        found = random.translate_file(Job(head_file, mask=mask), Settings())
        label = json.loads(found.outputs[-1].read_text())
        assert label["MaskSHA256"] == helpers.digest(mask)
        assert "SourceVolume" not in label

    def test_uncertainty_needs_samples(
        self, random: Translator, head_file: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="--samples"):
            random.translate_file(Job(head_file, uncertainty=tmp_path / "u.nii.gz"), Settings())
        assert sorted(p.name for p in tmp_path.iterdir()) == ["t1.nii.gz"]


class TestBackground:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("spacing", [0.0, 3.0])
    def test_outside_the_dilated_foreground(
        self, tmp_path: Path, mode: str, spacing: float
    ) -> None:
        """-1000 outside, also where the recipe resamples; inside is above it."""
        recipe = helpers.tiny_pipeline(
            "mr-to-ct", volume={"spacing_mm": [spacing] * 3, "dilation_mm": 8.0, "divisible": 4}
        )
        translator = Translator.load(helpers.save_model(tmp_path / "m", recipe), "cpu")
        image = np.zeros((20, 22, 18), dtype=np.float32)
        image[6:14, 7:15, 6:11] = np.random.default_rng(0).integers(1, 99, (8, 8, 5))
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        result = translator.translate_volume(helpers.volume(image, affine), Settings(mode=mode))
        margin = np.zeros(image.shape, dtype=bool)
        margin[4:16, 5:17, 4:13] = True
        assert (result.voxels[~margin] == -1000).all()
        assert (result.voxels[image > 0] >= 0).all()  # the package's profile is 0 ... 1000

    def test_identity_leaves_no_rim(self, tmp_path: Path) -> None:
        """Around a foreground that just fills its crop, resampling finds background, not grey."""
        recipe = helpers.linear_pipeline(
            volume={"spacing_mm": [1.0, 1.0, 1.0], "dilation_mm": 2.0, "divisible": 4}
        )
        model = helpers.save_model(tmp_path / "m", recipe, identity=True)
        translator = Translator.load(model, "cpu")
        affine = np.diag([0.45, 0.45, 0.45, 1])
        for start in range(10, 14):
            image = np.zeros((46, 46, 46), dtype=np.float32)
            inside = np.s_[start : start + 18, start : start + 18, start : start + 18]
            image[inside] = 400
            image[start + 5, start + 5, start + 5] = 300
            found = translator.translate_volume(helpers.volume(image, affine), Settings()).voxels
            distant = np.ones(image.shape, dtype=bool)
            grown = slice(start - 3, start + 21)
            distant[grown, grown, grown] = False  # more than one model voxel from the foreground
            assert np.abs(found[distant]).max() < 1e-3

    @pytest.mark.parametrize("spacing", [0.0, 3.0])
    def test_a_brain_does_not_grow(self, tmp_path: Path, spacing: float) -> None:
        """No rim of the profile's low end, which is above the background, around a masked brain."""
        recipe = helpers.tiny_pipeline(volume={"spacing_mm": [spacing] * 3, "dilation_mm": 9.0})
        model = helpers.save_model(tmp_path / "m", recipe, profile=(14.4, 900.0))
        translator = Translator.load(model, "cpu")
        head = helpers.volume(*helpers.head())
        brain = find_foreground(head.numpy())
        once = translator.translate_volume(head, Settings()).voxels
        assert np.array_equal(once != 0, brain)
        again = translator.translate_volume(
            helpers.volume(once, np.asarray(head.affine)), Settings()
        ).voxels
        assert np.array_equal(again != 0, brain)

    @pytest.mark.parametrize("mode", MODES)
    def test_empty_slices_are_not_sampled(
        self, random: Translator, head: MetaTensor, mode: str
    ) -> None:
        occupied = int(head.numpy().any((0, 1)).sum())
        assert occupied < head.shape[2]
        result = random.translate_volume(head, Settings(mode=mode))
        assert result.slices == occupied


def test_a_mask_of_a_region_is_said(identity: Translator) -> None:
    head = helpers.volume(*helpers.head())
    foreground = find_foreground(head.numpy())
    region = np.zeros_like(foreground)
    region.flat[np.flatnonzero(foreground)[: int(0.05 * foreground.sum())]] = True
    assert identity.translate_volume(head, Settings(), foreground).warnings == ()
    [warning] = identity.translate_volume(head, Settings(), region).warnings
    assert "of the foreground" in warning


def test_nothing_above_the_window_is_refused(identity: Translator) -> None:
    head = helpers.marked_head()
    with pytest.raises(FileError, match="nothing to translate"):
        identity.translate_volume(helpers.volume(-head - 1), Settings())


class TestMask:
    def mask(self, folder: Path, shape: tuple[int, ...] = helpers.SHAPE) -> tuple[Path, np.ndarray]:
        inside = np.zeros(shape, dtype=np.uint8)
        inside[8:14, 9:17, 7:12] = 1
        _, affine = helpers.head()
        return helpers.write_nifti(folder / "mask.nii.gz", inside, affine), inside > 0

    def test_only_inside_is_translated(
        self, identity: Translator, head_file: Path, tmp_path: Path
    ) -> None:
        path, inside = self.mask(tmp_path)
        written = identity.translate_file(Job(head_file, mask=path), Settings())
        found = nib.load(written.outputs[0]).get_fdata()
        source = np.clip(nib.load(head_file).get_fdata(), 0, 1000)
        np.testing.assert_allclose(found[inside], source[inside], atol=1e-3)
        assert (found[~inside] == 0).all()
        assert written.translation.slices == 5

    def test_on_another_grid_is_refused(
        self, identity: Translator, head_file: Path, tmp_path: Path
    ) -> None:
        path, _ = self.mask(tmp_path, (24, 28, 19))
        with pytest.raises(GeometryError, match=r"mask\.nii\.gz"):
            identity.translate_file(Job(head_file, mask=path), Settings())

    def test_empty_is_refused(self, identity: Translator, head_file: Path, tmp_path: Path) -> None:
        _, affine = helpers.head()
        empty = np.zeros(helpers.SHAPE, dtype=np.uint8)
        path = helpers.write_nifti(tmp_path / "mask.nii.gz", empty, affine)
        with pytest.raises(MedtransError, match="mask"):
            identity.translate_file(Job(head_file, mask=path), Settings())
        assert sorted(p.name for p in tmp_path.iterdir()) == ["mask.nii.gz", "t1.nii.gz"]


class TestKinds:
    def expected(self, head: MetaTensor) -> np.ndarray:
        return np.clip(head.numpy(), 0, 1000)

    def test_array_and_affine(self, identity: Translator, head: MetaTensor) -> None:
        affine = np.asarray(head.affine)
        voxels, out_affine = identity.translate((head.numpy().astype(np.int16), affine))
        np.testing.assert_allclose(voxels, self.expected(head), atol=1e-3)
        assert np.array_equal(out_affine, affine)

    def test_metatensor(self, identity: Translator, head: MetaTensor) -> None:
        out = identity.translate(head)
        assert isinstance(out, MetaTensor)
        np.testing.assert_allclose(out.numpy(), self.expected(head), atol=1e-3)
        assert torch.equal(out.affine, head.affine)

    def test_nibabel(self, identity: Translator, head: MetaTensor, head_file: Path) -> None:
        image = nib.load(head_file)
        out = identity.translate(image, mode="balanced", seed=3)
        assert type(out) is nib.Nifti1Image
        assert out.get_data_dtype() == np.float32
        assert np.array_equal(out.affine, image.affine)
        assert out.header["sform_code"] == image.header["sform_code"]
        assert b"SYNTHETIC" in bytes(out.header["descrip"].tobytes())

    def test_simpleitk(self, identity: Translator, head: MetaTensor, head_file: Path) -> None:
        image = sitk.ReadImage(str(head_file))
        out = identity.translate(image)
        assert isinstance(out, sitk.Image)
        assert out.GetSize() == image.GetSize()
        assert out.GetSpacing() == image.GetSpacing()
        assert out.GetOrigin() == image.GetOrigin()
        assert out.GetDirection() == image.GetDirection()
        voxels = sitk.GetArrayFromImage(out).transpose(2, 1, 0)
        np.testing.assert_allclose(voxels, self.expected(head), atol=1e-3)

    def test_path_is_answered_beside_it(self, identity: Translator, head_file: Path) -> None:
        out = identity.translate(head_file, seed=5)
        assert out == head_file.with_name("t1_t2-synthetic.nii.gz")
        assert sorted(p.name for p in head_file.parent.iterdir()) == [
            "t1.nii.gz", "t1_t2-synthetic.json", "t1_t2-synthetic.nii.gz",
        ]  # fmt: skip
        sidecar = json.loads(out.with_name("t1_t2-synthetic.json").read_text())
        assert sidecar["Synthetic"] is True
        assert sidecar["Task"] == "t1-to-t2"
        assert sidecar["Model"] == "identity"
        assert sidecar["ModelSHA256"] == identity.package.sha256
        assert sidecar["Mode"] == "fidelity"
        assert (sidecar["ResidualSteps"], sidecar["NoiseSteps"]) == (1, 0)
        assert sidecar["Seed"] == 5
        assert sidecar["SourceSHA256"] == helpers.digest(head_file)
        assert b"SYNTHETIC" in nib.load(out).header["descrip"].tobytes()

    def test_text_is_a_path(self, identity: Translator, head_file: Path) -> None:
        assert identity.translate(str(head_file)).is_file()

    @pytest.mark.parametrize("image", [None, 3, np.zeros((3, 3, 3)), {"image": 1}])
    def test_anything_else_is_refused(self, identity: Translator, image: Any) -> None:
        with pytest.raises(UsageError, match="Expected"):
            identity.translate(image)

    @pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2), (0, 4, 4)])
    def test_other_dimensions_are_refused(self, identity: Translator, shape: tuple) -> None:
        with pytest.raises(UsageError, match="three dimensions"):
            identity.translate((np.zeros(shape), np.eye(4)))

    def test_public_names(self) -> None:
        assert medtrans.Translator is Translator
        assert medtrans.Settings is Settings
        assert issubclass(UsageError, medtrans.MedtransError)
        with pytest.raises(AttributeError, match="Nothing"):
            medtrans.Nothing  # noqa: B018


class TestFiles:
    def test_2d(self, identity: Translator, tmp_path: Path) -> None:
        plane = helpers.marked_head()[:, :, 4]
        path = helpers.write_nifti(tmp_path / "t1.nii.gz", plane, np.diag([0.75, 0.75, 1, 1]))
        out = nib.load(identity.translate(path))
        assert out.shape == plane.shape == (13, 14)
        np.testing.assert_allclose(out.get_fdata(), plane, atol=1e-3)

    def test_a_thin_volume_keeps_its_slices(self, identity: Translator) -> None:
        for axis in range(3):
            head = np.take(helpers.marked_head(), [5, 6], axis)
            found, _ = identity.translate((head, np.eye(4)))
            np.testing.assert_allclose(found, head, atol=1e-3)

    def test_goal_may_be_a_folder(
        self, identity: Translator, head_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        written = identity.translate_file(Job(head_file, out=tmp_path / "out"), Settings())
        assert written.outputs[0] == tmp_path / "out" / "t1_t2-synthetic.nii.gz"

    def test_input_is_never_overwritten(self, identity: Translator, head_file: Path) -> None:
        before = helpers.digest(head_file)
        with pytest.raises(OutputError, match="replace its input"):
            identity.translate_file(Job(head_file, out=head_file), Settings())
        assert helpers.digest(head_file) == before

    def test_progress_is_told(self, identity: Translator, head_file: Path) -> None:
        told: list[tuple[int, int]] = []
        identity.translate_file(
            head_file,
            Settings(samples=2, batch_size=5),
            on_slices=lambda done, total: told.append((done, total)),
        )
        dones = [done for done, _ in told]
        assert dones == sorted(set(dones))
        assert told[-1][0] == told[-1][1]

    def test_constant_image(self, identity: Translator, tmp_path: Path) -> None:
        flat = np.full((6, 6, 6), 8, dtype=np.int16)
        path = helpers.write_nifti(tmp_path / "t1.nii.gz", flat, np.eye(4))
        with pytest.raises(FileError, match="value 8"):
            identity.translate_file(path, Settings())
        assert list(tmp_path.iterdir()) == [path]


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"mode": "fast"},
            {"samples": 0},
            {"batch_size": 0},
            {"residual_steps": 0},
            {"noise_steps": -1},
            {"eta": -0.1},
            {"eta": 1.5},
            {"eta": float("nan")},
        ],
    )
    def test_impossible_ones_are_named(self, wrong: dict[str, Any]) -> None:
        [(key, value)] = wrong.items()
        with pytest.raises(UsageError, match=key) as caught:
            Settings(**wrong)
        assert str(value) in str(caught.value)

    @pytest.mark.parametrize("key", ["residual_steps", "noise_steps"])
    def test_more_steps_than_the_schedule_has(
        self, random: Translator, head: MetaTensor, key: str
    ) -> None:
        with pytest.raises(UsageError, match="1000"):
            random.translate_volume(head, Settings(**{key: 1001}))
        steps = random.package.steps("fidelity", **{key.removesuffix("_steps"): 1000})
        assert getattr(steps, key.removesuffix("_steps")) == 1000

    @pytest.mark.parametrize("axes", [("axial", "axial"), ("transverse",)])
    def test_axes(self, axes: tuple[str, ...]) -> None:
        with pytest.raises(UsageError, match="axes are one or more of"):
            Settings(axes=axes)

    def test_unknown_task(self, random: Translator, head: MetaTensor) -> None:
        with pytest.raises(PackageError, match="not trained for t2-to-t1"):
            random.translate_volume(head, Settings(task="t2-to-t1"))


class TestDevices:
    def test_unknown(self, random_model: Path) -> None:
        with pytest.raises(UsageError, match="'tpu' is unknown"):
            Translator.load(random_model, "tpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_cuda_where_there_is_none(self, random_model: Path) -> None:
        with pytest.raises(UsageError, match="sees no GPU"):
            Translator.load(random_model, "cuda")
        assert Translator.load(random_model).device.type == "cpu"


class TestRealVolumes:
    @pytest.fixture(scope="class")
    @staticmethod
    def wide(tmp_path_factory: pytest.TempPathFactory) -> Translator:
        """Identity for whatever intensities the files hold."""
        window = {"scale": "window", "window_hu": [-4096.0, 12288.0], "background": 0.0}
        recipe = helpers.linear_pipeline(contrasts={"t1": window, "t2": window})
        model = helpers.save_model(
            tmp_path_factory.mktemp("wide") / "m", recipe, identity=True, profile=(-4096.0, 12288.0)
        )
        return Translator.load(model, "cpu")

    @pytest.mark.parametrize("axes", ["LAS", "LPS", "RAS"])
    def test_orientations(
        self, shared_data: Path, tmp_path: Path, wide: Translator, axes: str
    ) -> None:
        with (shared_data / "brain.csv").open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if r["axes"] == axes and r["contrast"] == "t1"]
        if not rows:
            pytest.skip(f"no {axes} volume among the real images")
        path = shared_data / rows[0]["path"]
        image = nib.load(path)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        some = np.zeros(voxels.shape, dtype=np.uint8)
        some[..., voxels.shape[2] // 2 : voxels.shape[2] // 2 + 3] = 1  # three slices are quick
        mask = tmp_path / "mask.nii.gz"
        nib.Nifti1Image(some, image.affine).to_filename(mask)
        written = wide.translate_file(Job(path, out=tmp_path / "o.nii.gz", mask=mask), Settings())
        result = nib.load(written.outputs[0])
        assert "".join(nib.aff2axcodes(result.affine)) == axes
        assert np.array_equal(result.affine, image.affine)
        assert np.array_equal(result.header["pixdim"], image.header["pixdim"])
        for code in ("qform_code", "sform_code", "xyzt_units"):
            assert result.header[code] == image.header[code]
        found = result.get_fdata()
        np.testing.assert_allclose(found[some > 0], voxels[some > 0], atol=0.01)
        assert (found[some == 0] == 0).all()

    def test_coronal_2d(self, shared_data: Path, tmp_path: Path, wide: Translator) -> None:
        path = shared_data / "coronal_t1t2/S1/t1.nii.gz"
        image = nib.load(path)
        written = wide.translate_file(Job(path, out=tmp_path / "o.nii.gz"), Settings())
        result = nib.load(written.outputs[0])
        assert result.shape == image.shape
        assert np.array_equal(result.affine, image.affine)
        found, source = result.get_fdata(), image.get_fdata()
        inside = found > 0
        assert inside.mean() > 0.2
        np.testing.assert_allclose(found[inside], source[inside], atol=0.01)

    def test_z_scored(self, shared_data: Path, tmp_path: Path) -> None:
        recipe = helpers.tiny_pipeline("t1c-to-flair")
        translator = Translator.load(helpers.save_model(tmp_path / "m", recipe), "cpu")
        volume = read_volume(shared_data / "flair_t1c/brats13-1/t1c.nii.gz")
        part = volume.numpy()[:, :, 70:76]
        result = translator.translate_volume(
            helpers.volume(part, np.asarray(volume.affine)), Settings(batch_size=3)
        )
        outside = part == part[0, 0, 0]
        edge = np.zeros(outside.shape, dtype=bool)
        edge[:10] = edge[-10:] = True
        assert (result.voxels[outside & edge] == 0).all()
        assert result.voxels[~outside].std() > 10


def test_a_copied_model_translates_the_same(
    random_model: Path, random: Translator, head: MetaTensor, tmp_path: Path
) -> None:
    shutil.copytree(random_model, tmp_path / "copy")
    copy = Translator.load(tmp_path / "copy", "cpu")
    copy.sampler.precision = torch.float32
    one, two = (t.translate_volume(head, Settings()).voxels for t in (random, copy))
    assert np.array_equal(one, two)
