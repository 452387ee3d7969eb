"""A volume as the networks see it, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from monai.data import MetaTensor

from medtrans.config.schema import Pipeline
from medtrans.errors import FileError
from medtrans.preprocessing.model_space import crop, spacing_mm, to_input_space, to_model_space
from tests import helpers

ISOTROPIC = (1.0, 1.0, 1.0)
ANISOTROPIC = (0.7, 1.3, 4.0)
GRIDS = [
    pytest.param(spacing, tilt, id=f"{'oblique' if tilt else 'straight'}-{name}")
    for tilt in (False, True)
    for name, spacing in (("isotropic", ISOTROPIC), ("anisotropic", ANISOTROPIC))
]
STORED = [
    pytest.param(order, signs, id="".join("-+"[s > 0] + "xyz"[o] for o, s in zip(order, signs)))  # noqa: B905
    for order, signs in helpers.orientations()
]


def make_affine(spacing: tuple[float, ...], tilt: bool) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-31.5, 12.25, 7.0]
    return helpers.tilted(affine) if tilt else affine


@pytest.fixture(scope="module")
def linear() -> Pipeline:
    return helpers.linear_pipeline()


@pytest.mark.parametrize(("spacing", "tilt"), GRIDS)
@pytest.mark.parametrize(("order", "signs"), STORED)
class TestOrientations:
    def test_there_and_back_is_exact(
        self,
        linear: Pipeline,
        order: tuple[int, ...],
        signs: tuple[int, ...],
        spacing: tuple[float, ...],
        tilt: bool,
    ) -> None:
        head = helpers.marked_head()
        grid = make_affine(spacing, tilt)
        voxels, affine = helpers.stored_as(head, grid, order, signs)
        space = to_model_space(helpers.volume(voxels, affine), "t1", linear)
        expected = np.where(head == 0, -1, head / 500 - 1)
        np.testing.assert_allclose(space.image.numpy()[0], expected, atol=1e-6)
        np.testing.assert_allclose(np.asarray(space.image.affine), grid, atol=1e-9)
        assert np.argmax(space.image.numpy()[0]) == np.argmax(head)  # the marker is on the right

        cropped = crop(space, linear, [2])
        back = to_input_space(cropped.image.numpy()[0], cropped)
        expected, _ = helpers.stored_as(space.image.numpy()[0], grid, order, signs)
        assert back.shape == voxels.shape
        assert back.dtype == np.float32
        assert np.array_equal(back, expected)

    def test_resampled_there_and_back_has_the_shape_and_the_side(
        self,
        order: tuple[int, ...],
        signs: tuple[int, ...],
        spacing: tuple[float, ...],
        tilt: bool,
    ) -> None:
        pipeline = helpers.linear_pipeline(volume={"spacing_mm": [1.1, 0.9, 0.0]})
        head = np.repeat(np.repeat(helpers.marked_head(), 2, 0), 2, 1)
        voxels, affine = helpers.stored_as(head, make_affine(spacing, tilt), order, signs)
        space = crop(to_model_space(helpers.volume(voxels, affine), "t1", pipeline), pipeline, [2])
        new = spacing_mm(space.image)
        assert new[:2] == pytest.approx((1.1, 0.9))
        assert new[2] == pytest.approx(spacing[2])
        back = to_input_space(space.image.numpy()[0], space)
        assert back.shape == voxels.shape
        inside = voxels > 0
        marker = voxels == 900
        assert back[marker].mean() > back[inside & ~marker].mean() + 0.3
        assert np.abs(back[inside] - (voxels[inside] / 500 - 1)).mean() < 0.35


class TestModelSpace:
    def test_background_is_minus_one_whatever_it_was(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        head[head == 0] = 350  # in the middle of the tissue's range
        space = to_model_space(helpers.volume(head), "t1", pipeline)
        outside = helpers.marked_head() == 0
        assert (space.image.numpy()[0][outside] == -1).all()
        assert space.image.numpy().min() == -1
        assert space.image.numpy().max() == 1

    def test_profile_is_the_foregrounds(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        space = to_model_space(helpers.volume(head), "t1", pipeline)
        low, high = np.percentile(head[head > 0], [0.5, 99.5])
        assert (space.profile.low, space.profile.high) == pytest.approx((low, high))

    def test_support_is_the_dilated_foreground(self) -> None:
        pipeline = helpers.tiny_pipeline(volume={"dilation_mm": 2.0})
        head = np.zeros((12, 12, 12), dtype=np.float32)
        head[5:7, 5:7, 5:7] = np.arange(1, 9).reshape(2, 2, 2)
        space = to_model_space(helpers.volume(head, np.diag([1.0, 2, 3, 1])), "t1", pipeline)
        where = np.argwhere(space.mask.numpy()[0])
        assert where.min(0).tolist() == [3, 4, 5]
        assert where.max(0).tolist() == [8, 7, 6]

    def test_a_given_mask_replaces_the_foreground(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        mask = np.zeros(head.shape, dtype=bool)
        mask[4:7, 5:8, 3:6] = True
        space = to_model_space(helpers.volume(head), "t1", pipeline, mask)
        image = space.image.numpy()[0]
        assert (image[~mask] == -1).all()
        low, high = np.percentile(head[mask], [0.5, 99.5])
        assert (space.profile.low, space.profile.high) == pytest.approx((low, high))

    @pytest.mark.parametrize("recipe", ["linear", "percentile"])
    def test_an_empty_mask_is_refused(self, pipeline: Pipeline, recipe: str) -> None:
        used = pipeline if recipe == "percentile" else helpers.linear_pipeline()
        head = helpers.marked_head()
        with pytest.raises(FileError, match="mask"):
            to_model_space(helpers.volume(head), "t1", used, np.zeros(head.shape, dtype=bool))

    def test_nearly_the_wanted_spacing_is_not_interpolated(self) -> None:
        pipeline = helpers.linear_pipeline(volume={"spacing_mm": [1.0, 1.0, 1.0]})
        head = helpers.marked_head()
        affine = np.diag([1.0004, 0.9997, 1.0, 1.0])
        image = to_model_space(helpers.volume(head, affine), "t1", pipeline).image.numpy()[0]
        np.testing.assert_allclose(image, np.where(head == 0, -1, head / 500 - 1), atol=1e-6)

    def test_does_not_change_its_input(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        given = helpers.volume(head.copy(), np.diag([-1.0, 1, 1, 1]))
        space = crop(to_model_space(given, "t1", pipeline), pipeline, [2])
        to_input_space(space.image.numpy()[0], space)
        assert np.array_equal(given.numpy(), head)
        assert given.shape == head.shape


class TestCrop:
    def space(self, pipeline: Pipeline, head: np.ndarray, axis: int) -> tuple[MetaTensor, ...]:
        space = crop(to_model_space(helpers.volume(head), "t1", pipeline), pipeline, [axis])
        return space.image, space.mask

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_in_plane_sizes_are_divisible(self, pipeline: Pipeline, axis: int) -> None:
        head = np.zeros((30, 31, 29), dtype=np.float32)
        head[12:17, 12:18, 11:14] = np.random.default_rng(0).random((5, 6, 3)) + 1
        image, mask = self.space(helpers.tiny_pipeline(volume={"dilation_mm": 0.0}), head, axis)
        assert image.shape == mask.shape
        for a, size in enumerate(image.shape[1:]):
            assert size % 4 == 0 if a != axis else size == (5, 6, 3)[axis]
        assert mask.sum() == 90
        assert (image.numpy()[~mask.numpy()] == -1).all()
        assert np.allclose(np.sort(image.numpy()[mask.numpy()]), np.sort(image[mask].numpy()))

    def test_keeps_every_voxel_of_the_support(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        whole = to_model_space(helpers.volume(head), "t1", pipeline)
        _, mask = self.space(pipeline, head, 2)
        assert mask.sum() == whole.mask.sum()

    def test_foreground_at_the_edge_of_the_volume(self, pipeline: Pipeline) -> None:
        head = np.random.default_rng(0).random((6, 7, 5)).astype(np.float32)
        head[0] = 0
        space = crop(to_model_space(helpers.volume(head), "t1", pipeline), pipeline, [2])
        assert space.image.shape[1:] == (8, 8, 5)
        assert to_input_space(space.image.numpy()[0], space).shape == head.shape

    def test_single_slice(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()[:, 6:7, :]
        space = crop(to_model_space(helpers.volume(head), "t1", pipeline), pipeline, [1])
        assert space.image.shape[2] == 1
        assert to_input_space(space.image.numpy()[0], space).shape == head.shape


def test_what_lies_outside_the_crop_comes_back_as_background() -> None:
    """The dilated foreground on the input's finer grid can reach beyond the crop's box."""
    pipeline = helpers.linear_pipeline(volume={"spacing_mm": [1.0, 1.0, 1.0], "dilation_mm": 0.0})
    head = np.zeros((40, 40, 40), dtype=np.float32)
    head[11:27, 11:27, 11:27] = 1000
    head[11:27, 11:27, 12] = 500
    affine = np.diag([0.45, 0.45, 0.45, 1])
    space = crop(to_model_space(helpers.volume(head, affine), "t1", pipeline), pipeline, [2])
    back = to_input_space(np.full(space.image.shape[1:], -1, dtype=np.float32), space)
    np.testing.assert_allclose(back, -1, atol=1e-5)
