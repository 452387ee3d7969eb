"""Slices to a stack, on numbers alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtrans.errors import GeometryError
from medtrans.volumes import geometry
from medtrans.volumes.dicom import stack


def rotation(seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q[:, 2] = np.cross(q[:, 0], q[:, 1])
    return q


def slices(seed, count, spacing, order=None):
    axes = rotation(seed)
    positions = np.array([5.0, -7, 11]) + np.arange(count)[:, None] * spacing * axes[:, 2]
    return axes, positions if order is None else positions[order]


@given(
    seed=st.integers(0, 10_000), count=st.integers(3, 60), spacing=st.floats(0.2, 20),
    pixel=st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)),
)  # fmt: skip
def test_any_shuffled_straight_stack_is_sorted_and_placed(seed, count, spacing, pixel):
    order = np.random.default_rng(seed).permutation(count)
    axes, positions = slices(seed, count, spacing, order)
    built = stack.build(positions, axes[:, :2].T.ravel(), np.array(pixel), "here")
    assert np.array_equal(order[list(built.order)], np.arange(count))
    lps = np.array([5.0, -7, 11]) + 2 * axes[:, 0] * pixel[1] + axes[:, 1] * pixel[0]
    lps = lps + (count - 1) * spacing * axes[:, 2]
    ras = (built.affine @ [2, 1, count - 1, 1])[:3]
    assert np.allclose(ras, lps * [-1, -1, 1], atol=1e-9 * count * spacing + 1e-9)


def build(positions, axes):
    return stack.build(positions, axes[:, :2].T.ravel(), np.ones(2), "here")


@given(seed=st.integers(0, 1000), missing=st.integers(1, 8), count=st.integers(1, 3))
def test_missing_slices_are_counted_and_placed(seed, missing, count):
    axes, positions = slices(seed, 14, 2.0)
    kept = np.delete(positions, np.arange(missing, missing + count), axis=0)
    words = rf"between slices {missing} and {missing + 1} .*is {2 * (count + 1)} mm.*{count} slice"
    with pytest.raises(GeometryError, match=words):
        build(kept, axes)


def test_faults_are_named():
    axes, positions = slices(1, 8, 2.0)
    uneven = positions.copy()
    uneven[5:] += 0.5 * axes[:, 2]
    with pytest.raises(GeometryError, match=r"is 2.5 mm.*unevenly spaced"):
        build(uneven, axes)
    near = positions.copy()
    near[4] -= 0.5 * axes[:, 2]
    with pytest.raises(GeometryError, match=r"between slices 4 and 5 .* is 1\.5 mm"):
        build(near[:5], axes)
    with pytest.raises(GeometryError, match="duplicate slices: images 3 and 4"):
        build(np.vstack([positions, positions[2]]), axes)
    with pytest.raises(GeometryError, match="too few slices: 2 image"):
        build(positions[:2], axes)
    tilted = positions + np.arange(8)[:, None] * 0.2 * axes[:, 1]
    with pytest.raises(GeometryError, match=r"gantry was tilted: the stack leans 5.7 degrees"):
        build(tilted, axes)
    drifting = positions + (np.arange(8) ** 2)[:, None] * 0.0055 * axes[:, 2]
    with pytest.raises(GeometryError, match="unevenly spaced"):
        build(drifting, axes)


def test_positions_rounded_to_two_decimals_are_accepted():
    axes, positions = slices(3, 40, 1.0)
    build(np.round(positions, 2), axes)


def common(orientations):
    return stack.common_orientation(orientations, np.array([200.0, 200.0]), 1.0, "here")[0]


def test_orientations_must_agree():
    axes = rotation(0)
    same = np.tile(axes[:, :2].T.ravel(), (4, 1))
    assert np.array_equal(common(same), same[0])
    assert np.array_equal(common(same + np.array([[0], [5e-5], [0], [0]])), same[0])
    mixed = same.copy()
    mixed[2] = rotation(1)[:, :2].T.ravel()
    with pytest.raises(GeometryError, match="not parallel"):
        common(mixed)
    with pytest.raises(GeometryError, match="two unit vectors"):
        common(same * 2)
    with pytest.raises(GeometryError, match="two unit vectors"):
        common(np.zeros((2, 6)))


@given(seed=st.integers(0, 10_000))
def test_orientation_letters_match_nibabel(seed):
    import nibabel as nib

    affine = np.eye(4)
    affine[:3, :3] = rotation(seed) * np.random.default_rng(seed).uniform(0.5, 3, 3)
    assert geometry.orientation(affine) == "".join(nib.aff2axcodes(affine))


def test_gaps_that_drift_are_refused_though_each_is_near_the_others():
    axes, _ = slices(1, 3, 2.0)
    steps = np.repeat([2.018, 2.0, 1.982], 10)  # 0.02 mm from the median would be refused
    along = np.concatenate([[0.0], np.cumsum(steps)])
    with pytest.raises(GeometryError, match=r"their gaps drift, so that one lies 0\.18 mm"):
        build(along[:, None] * axes[:, 2], axes)
