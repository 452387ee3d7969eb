"""A volume as the networks see it, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from medtrans.config.schema import Pipeline
from medtrans.errors import FileError
from medtrans.preprocessing.model_space import to_input_space
from medtrans.volumes.geometry import spacing_mm
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
        space = helpers.in_model_space(helpers.volume(voxels, affine), linear)
        expected = np.where(head == 0, -1, head / 500 - 1)
        np.testing.assert_allclose(space.image, expected, atol=1e-6)
        np.testing.assert_allclose(space.placement.affine, grid, atol=1e-9)
        assert np.argmax(space.image) == np.argmax(head)  # the marker is on the right

        cropped = space.cropped([2], linear.volume.divisible)
        back = to_input_space(cropped.image, cropped.placement)
        expected, _ = helpers.stored_as(space.image, grid, order, signs)
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
        space = helpers.in_model_space(helpers.volume(voxels, affine), pipeline).cropped(
            [2], pipeline.volume.divisible
        )
        new = spacing_mm(space.placement.affine)
        assert new[:2] == pytest.approx((1.1, 0.9))
        assert new[2] == pytest.approx(spacing[2])
        back = to_input_space(space.image, space.placement)
        assert back.shape == voxels.shape
        inside = voxels > 0
        marker = voxels == 900
        assert back[marker].mean() > back[inside & ~marker].mean() + 0.3
        assert np.abs(back[inside] - (voxels[inside] / 500 - 1)).mean() < 0.35


class TestModelSpace:
    def test_background_is_minus_one_whatever_it_was(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        head[head == 0] = 350  # in the middle of the tissue's range
        space = helpers.in_model_space(helpers.volume(head), pipeline)
        outside = helpers.marked_head() == 0
        assert (space.image[outside] == -1).all()
        assert space.image.min() == -1
        assert space.image.max() == 1

    def test_profile_is_the_foregrounds(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        space = helpers.in_model_space(helpers.volume(head), pipeline)
        low, high = np.percentile(head[head > 0], [0.5, 99.5])
        assert (space.profile.low, space.profile.high) == pytest.approx((low, high))

    def test_support_is_the_dilated_foreground(self) -> None:
        pipeline = helpers.tiny_pipeline(volume={"dilation_mm": 2.0})
        head = np.zeros((12, 12, 12), dtype=np.float32)
        head[5:7, 5:7, 5:7] = np.arange(1, 9).reshape(2, 2, 2)
        space = helpers.in_model_space(helpers.volume(head, np.diag([1.0, 2, 3, 1])), pipeline)
        where = np.argwhere(space.margin)
        assert where.min(0).tolist() == [3, 4, 5]
        assert where.max(0).tolist() == [8, 7, 6]

    def test_a_given_mask_replaces_the_foreground(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        mask = np.zeros(head.shape, dtype=bool)
        mask[4:7, 5:8, 3:6] = True
        space = helpers.in_model_space(helpers.volume(head), pipeline, mask)
        image = space.image
        assert (image[~mask] == -1).all()
        low, high = np.percentile(head[mask], [0.5, 99.5])
        assert (space.profile.low, space.profile.high) == pytest.approx((low, high))

    @pytest.mark.parametrize("recipe", ["linear", "percentile"])
    def test_an_empty_mask_is_refused(self, pipeline: Pipeline, recipe: str) -> None:
        used = pipeline if recipe == "percentile" else helpers.linear_pipeline()
        head = helpers.marked_head()
        with pytest.raises(FileError, match="mask"):
            helpers.in_model_space(helpers.volume(head), used, np.zeros(head.shape, dtype=bool))

    def test_nearly_the_wanted_spacing_is_not_interpolated(self) -> None:
        pipeline = helpers.linear_pipeline(volume={"spacing_mm": [1.0, 1.0, 1.0]})
        head = helpers.marked_head()
        affine = np.diag([1.0004, 0.9997, 1.0, 1.0])
        image = helpers.in_model_space(helpers.volume(head, affine), pipeline).image
        np.testing.assert_allclose(image, np.where(head == 0, -1, head / 500 - 1), atol=1e-6)

    def test_does_not_change_its_input(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        given = helpers.volume(head.copy(), np.diag([-1.0, 1, 1, 1]))
        space = helpers.in_model_space(given, pipeline).cropped([2], pipeline.volume.divisible)
        to_input_space(space.image, space.placement)
        assert np.array_equal(given.numpy(), head)
        assert given.shape == head.shape


class TestCrop:
    def space(self, pipeline: Pipeline, head: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
        space = helpers.in_model_space(helpers.volume(head), pipeline).cropped(
            [axis], pipeline.volume.divisible
        )
        return space.image, space.margin

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_in_plane_sizes_are_divisible(self, pipeline: Pipeline, axis: int) -> None:
        head = np.zeros((30, 31, 29), dtype=np.float32)
        head[12:17, 12:18, 11:14] = np.random.default_rng(0).random((5, 6, 3)) + 1
        image, mask = self.space(helpers.tiny_pipeline(volume={"dilation_mm": 0.0}), head, axis)
        assert image.shape == mask.shape
        for a, size in enumerate(image.shape):
            assert size % 4 == 0 if a != axis else size == (5, 6, 3)[axis]
        assert mask.sum() == 90
        assert (image[~mask] == -1).all()
        uncut = helpers.in_model_space(
            helpers.volume(head), helpers.tiny_pipeline(volume={"dilation_mm": 0.0})
        )
        assert np.array_equal(np.sort(image[mask]), np.sort(uncut.image[uncut.margin]))

    def test_keeps_every_voxel_of_the_support(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()
        _, mask = self.space(pipeline, head, 2)
        assert mask.sum() == helpers.in_model_space(helpers.volume(head), pipeline).margin.sum()

    def test_foreground_at_the_edge_of_the_volume(self, pipeline: Pipeline) -> None:
        head = np.random.default_rng(0).random((6, 7, 5)).astype(np.float32)
        head[0] = 0
        space = helpers.in_model_space(helpers.volume(head), pipeline).cropped(
            [2], pipeline.volume.divisible
        )
        assert space.image.shape == (8, 8, 5)
        assert to_input_space(space.image, space.placement).shape == head.shape

    def test_single_slice(self, pipeline: Pipeline) -> None:
        head = helpers.marked_head()[:, 6:7, :]
        space = helpers.in_model_space(helpers.volume(head), pipeline).cropped(
            [1], pipeline.volume.divisible
        )
        assert space.image.shape[1] == 1
        assert to_input_space(space.image, space.placement).shape == head.shape


def test_what_lies_outside_the_crop_comes_back_as_background() -> None:
    """The dilated foreground on the input's finer grid can reach beyond the crop's box."""
    pipeline = helpers.linear_pipeline(volume={"spacing_mm": [1.0, 1.0, 1.0], "dilation_mm": 0.0})
    head = np.zeros((40, 40, 40), dtype=np.float32)
    head[11:27, 11:27, 11:27] = 1000
    head[11:27, 11:27, 12] = 500
    affine = np.diag([0.45, 0.45, 0.45, 1])
    space = helpers.in_model_space(helpers.volume(head, affine), pipeline).cropped(
        [2], pipeline.volume.divisible
    )
    back = to_input_space(np.full(space.image.shape, -1, dtype=np.float32), space.placement)
    np.testing.assert_allclose(back, -1, atol=1e-5)
