from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtrans.config.schema import Pipeline, SlicesConfig
from medtrans.preprocessing.slices import (
    SlicePlan,
    cut,
    fitting_axes,
    neighbours,
    occupied,
    place,
    plan_slices,
    stacks,
)
from tests import helpers

SHAPES = st.tuples(*[st.integers(1, 7)] * 3)
PLANS = st.builds(SlicePlan, st.integers(0, 2), st.integers(0, 4))


def random_volume(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class TestIdentity:
    @given(SHAPES, PLANS, st.integers(1, 9))
    def test_cut_and_reassembled_is_the_same_bits(
        self, shape: tuple[int, ...], plan: SlicePlan, batch_size: int
    ) -> None:
        volume = random_volume(shape)
        indices = range(shape[plan.axis])
        middles = [s[:, plan.context] for _, s in stacks(volume, plan, indices, batch_size)]
        back = np.full(shape, -1, dtype=np.float32)
        place(np.concatenate(middles), indices, back, plan)
        assert np.array_equal(back, volume)

    @given(SHAPES, PLANS, st.data())
    def test_slices_not_sampled_are_background(
        self, shape: tuple[int, ...], plan: SlicePlan, data: st.DataObject
    ) -> None:
        volume = random_volume(shape)
        every = st.integers(0, shape[plan.axis] - 1)
        chosen = data.draw(st.lists(every, unique=True, min_size=1))
        back = np.full(shape, -7, dtype=np.float32)
        place(cut(volume, plan)[chosen], chosen, back, plan)
        for index, (found, original) in enumerate(
            zip(cut(back, plan), cut(volume, plan), strict=True)
        ):
            expected = original if index in chosen else np.full_like(original, -7)
            assert np.array_equal(found, expected)

    def test_nothing_sampled_is_all_background(self) -> None:
        back = np.full((3, 4, 5), -1, dtype=np.float32)
        place(np.empty((0, 3, 4), dtype=np.float32), [], back, SlicePlan(2, 1))
        assert (back == -1).all()


class TestNeighbours:
    def test_middle(self) -> None:
        assert neighbours(5, 11, 2) == [3, 4, 5, 6, 7]

    def test_ends_are_repeated(self) -> None:
        assert neighbours(0, 11, 2) == [0, 0, 0, 1, 2]
        assert neighbours(10, 11, 2) == [8, 9, 10, 10, 10]

    def test_plain_2d(self) -> None:
        assert neighbours(4, 11, 0) == [4]

    @given(st.integers(1, 6), st.integers(0, 8))
    def test_single_and_few_slices(self, count: int, context: int) -> None:
        for index in range(count):
            rows = neighbours(index, count, context)
            assert len(rows) == 2 * context + 1
            assert rows[context] == index
            assert all(0 <= row < count for row in rows)
            assert rows == sorted(rows)


class TestStacks:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_holds_each_slice_between_its_neighbours(self, axis: int) -> None:
        volume = random_volume((5, 6, 7))
        plan = SlicePlan(axis, 1)
        [(indices, stack)] = stacks(volume, plan, [0, 3], 8)
        assert indices == [0, 3]
        slices = np.moveaxis(volume, axis, 0)
        assert np.array_equal(stack[0], slices[[0, 0, 1]])
        assert np.array_equal(stack[1], slices[[2, 3, 4]])
        assert stack.flags.c_contiguous

    @given(st.integers(0, 12), st.integers(1, 14))
    def test_batches_cover_the_positions_in_order(self, count: int, batch_size: int) -> None:
        volume = random_volume((2, 3, 12))
        wanted = list(range(count))
        batches = list(stacks(volume, SlicePlan(2, 1), wanted, batch_size))
        assert [i for indices, _ in batches for i in indices] == wanted
        assert [len(s) for _, s in batches] == [len(i) for i, _ in batches]
        assert all(len(indices) == batch_size for indices, _ in batches[:-1])
        assert len(batches) == -(-count // batch_size)

    def test_batch_size_does_not_change_a_stack(self) -> None:
        volume = random_volume((4, 5, 9))
        plan = SlicePlan(2, 2)
        one = np.concatenate([s for _, s in stacks(volume, plan, range(9), 1)])
        many = np.concatenate([s for _, s in stacks(volume, plan, range(9), 4)])
        assert np.array_equal(one, many)


class TestOccupied:
    @pytest.mark.parametrize(("axis", "expected"), [(0, [1, 2]), (1, [0, 3]), (2, [4])])
    def test_lists_the_slices_with_foreground(self, axis: int, expected: list[int]) -> None:
        image = np.full((4, 4, 6), -1, dtype=np.float32)
        image[1, 0, 4], image[2, 3, 4] = -0.9, 1
        found = occupied(image, SlicePlan(axis, 1))
        assert found == expected
        assert all(type(i) is int for i in found)

    def test_empty(self) -> None:
        assert occupied(np.full((3, 3, 3), -1, dtype=np.float32), SlicePlan(2, 1)) == []


class TestPlan:
    def test_follows_the_recipe(self, pipeline: Pipeline) -> None:
        assert plan_slices(pipeline.slices, (10, 11, 12)) == [SlicePlan(2, 1)]

    @pytest.mark.parametrize(("name", "axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
    def test_axes(self, name: str, axis: int) -> None:
        recipe = helpers.tiny_pipeline(slices={"axis": name, "context": 3})
        assert plan_slices(recipe.slices, (10, 11, 12)) == [SlicePlan(axis, 3)]

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_single_slice_is_cut_across_itself(self, pipeline: Pipeline, axis: int) -> None:
        shape = [10, 11, 12]
        shape[axis] = 1
        assert [plan.axis for plan in plan_slices(pipeline.slices, shape)] == [axis]

    def test_several_axes_but_not_across_a_single_slice(self, pipeline: Pipeline) -> None:
        names = ("axial", "sagittal")
        assert [p.axis for p in plan_slices(pipeline.slices, (10, 11, 12), names)] == [2, 0]
        assert [p.axis for p in plan_slices(pipeline.slices, (10, 1, 12), names)] == [1]


class TestOtherAxes:
    """A recipe may name axes beside the leading one; which of them suit a volume."""

    @pytest.mark.parametrize(
        ("shape", "grid_mm", "expected"),
        [
            ((30, 30, 30), (1, 1, 1), ("axial", "coronal", "sagittal")),
            ((30, 30, 30), (1, 1, 1.4), ("axial", "coronal", "sagittal")),
            ((30, 30, 30), (1, 1, 3), ("axial",)),
            ((30, 30, 30), (1, 3, 1), ("axial", "coronal")),
            ((30, 30, 7), (1, 1, 1), ("axial",)),
            ((30, 7, 30), (1, 1, 1), ("axial", "coronal")),
            ((30, 1, 30), (1, 1, 1), ("axial",)),
        ],
        ids=["all", "nearly", "thick", "thick coronal", "slab", "coronal slab", "slice"],
    )
    def test_slices_that_would_look_unlike_those_of_the_training_are_left_out(
        self, shape: tuple[int, ...], grid_mm: tuple[float, ...], expected: tuple[str, ...]
    ) -> None:
        recipe = helpers.tiny_pipeline(
            slices={"also": ["coronal", "sagittal"]}, volume={"spacing_mm": [1.0, 1.0, 0.0]}
        )
        assert fitting_axes(recipe, shape, grid_mm) == expected

    def test_an_axis_is_named_once(self) -> None:
        with pytest.raises(ValueError, match="twice"):
            SlicesConfig(axis="axial", also=("coronal", "axial"), context=1)
