"""Random changes of training slices, a function of the seed alone.

Written out in NumPy, with one torch call for the motion, because the loader has to stay ahead of
the training step on one core: the same changes by MONAI's transforms, which the ranges and formulas
follow (RandAffine, RandHistogramShift, RandAdjustContrast, RandBiasField, RandGaussianNoise), took
five times as long, most of it in bookkeeping for each slice.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from medtrans.config.schema import AugmentationConfig
from medtrans.volumes.voxels import Voxels

Slices = dict[str, Voxels]
SOURCE = "source"
_CUT_KNOTS = 4  # random values across a patch: boundaries as smooth as a skull's
_ONE, _TWO = np.float32(1), np.float32(2)
_BIAS_DEGREE = 3  # of the polynomials of a coil's sensitivity


class Augmentation:
    """Augments the slices of one example.

    All slices of an example move together; only the one named `source` also changes its
    intensities, as another scanner would change them, so that the networks do not lean on one
    scanner's tone.

    Parameters
    ----------
    keys : tuple of str
        The slices of an example, each (channels, height, width) in [-1, 1].
    config : AugmentationConfig
    flip_axis : int or None
        Which in-plane axis runs from left to right; None when the plane has none.
    """

    def __init__(
        self, keys: tuple[str, ...], config: AugmentationConfig, flip_axis: int | None
    ) -> None:
        self.keys = keys
        self.config = config
        self.flip_axis = flip_axis

    def __call__(self, example: Slices, seed: int) -> Slices:
        """Return the changed slices, shapes and range as they were; a function of the seed."""
        rng = np.random.default_rng(seed)
        moved = self._moved(self._flipped(example, rng), rng)
        if SOURCE not in moved:
            return moved
        return self._cut({**moved, SOURCE: self._toned(moved[SOURCE], rng)}, rng)

    def _flipped(self, example: Slices, rng: Generator) -> Slices:
        flip = rng.random() < self.config.flip
        if self.flip_axis is None or not flip:
            return example
        axis = self.flip_axis + 1
        return {key: np.flip(value, axis).copy() for key, value in example.items()}

    def _moved(self, example: Slices, rng: Generator) -> Slices:
        """Rotate about the patch's centre, scale each axis and shift, all slices by one matrix."""
        if rng.random() >= self.config.affine:
            return example
        stack = np.concatenate([example[key] for key in self.keys])
        moved = resampled(stack, _random_affine(self.config, rng))
        ends = np.cumsum([len(example[key]) for key in self.keys])
        return dict(zip(self.keys, np.split(moved, ends[:-1]), strict=True))

    def _toned(self, source: Voxels, rng: Generator) -> Voxels:
        if source.max() <= -1:  # a patch beside the patient: no tone to change
            return source
        config = self.config
        toned: Voxels = (source + _ONE) / _TWO  # the field multiplies, so 0 must be dark
        if rng.random() < config.tone_curve:
            points = int(rng.integers(*config.tone_control_points, endpoint=True))
            toned = tone_curve(toned, points, rng)
        if rng.random() < config.gamma:
            toned = _power(toned, rng.uniform(*config.gamma_range))
        if rng.random() < config.lift:
            darkest = np.float32(rng.uniform(0, config.lift_max))
            toned = darkest + (_ONE - darkest) * toned
        if rng.random() < config.bias_field:
            toned = toned * bias_field(toned.shape[1:], config.bias_coefficient, rng)
        if rng.random() < config.noise:
            spread = np.float32(rng.uniform(0, config.noise_std))
            toned = toned + spread * rng.standard_normal(toned.shape, dtype=np.float32)
        toned = np.clip(toned * _TWO - _ONE, -_ONE, _ONE)
        toned[source <= -1] = -1
        return toned

    def _cut(self, example: Slices, rng: Generator) -> Slices:
        """Cut along a random smooth boundary, so that what lies at the rim is not always the same.

        Some skull strippers leave the fluid around the brain and others do not; a network that
        only ever saw cortex at the rim takes fluid there for cortex.
        """
        if rng.random() >= self.config.cut:
            return example
        rows, columns = (_cubic_weights(length) for length in example[SOURCE].shape[1:])
        coarse = rng.standard_normal((_CUT_KNOTS, _CUT_KNOTS), dtype=np.float32)
        field = rows @ coarse @ columns.T
        kept = field > np.quantile(field, rng.uniform(0, self.config.cut_share))
        return {key: np.where(kept, value, np.float32(-1)) for key, value in example.items()}


def _random_affine(config: AugmentationConfig, rng: Generator) -> NDArray[np.float64]:
    """Draw the (2, 3) matrix from pixels of the result to pixels of the image, from the centre."""
    angle = np.deg2rad(rng.uniform(-config.rotation_deg, config.rotation_deg))
    scale = 1 + rng.uniform(-config.scaling, config.scaling, 2)
    shift = rng.uniform(-config.shift_px, config.shift_px, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn * scale, shift])


def resampled(image: Voxels, matrix: NDArray[np.float64]) -> Voxels:
    """Resample by cubics, which keep fine detail; beyond the image its border goes on.

    Of a real T2's detail finer than about 8 pixels, bilinear interpolation loses a quarter.

    Parameters
    ----------
    image : array of float32
        Shape (C, H, W).
    matrix : array
        Shape (2, 3), on (row, column) in pixels from the centre: result -> image.

    Returns
    -------
    array of float32
        Shape (C, H, W).
    """
    half = np.array(image.shape[1:]) / 2
    unit = np.column_stack([matrix[:, :2] * half / half[:, None], matrix[:, 2] / half])
    theta = unit[::-1][:, [1, 0, 2]]  # torch counts columns first, and half an image as 1
    batch = torch.from_numpy(np.ascontiguousarray(image))[None]
    thetas = torch.tensor(theta.copy(), dtype=torch.float32)[None]
    grid = functional.affine_grid(thetas, list(batch.shape), align_corners=False)
    moved = functional.grid_sample(
        batch, grid, mode="bicubic", padding_mode="border", align_corners=False
    )
    low, high = image.min(), image.max()  # beyond which cubics swing at edges
    return np.asarray(moved[0].clamp_(float(low), float(high)).numpy())


def tone_curve(image: Voxels, points: int, rng: Generator) -> Voxels:
    """Map intensities by a random rising curve; the range stays (MONAI's RandHistogramShift).

    Parameters
    ----------
    image : array of float32
        Any shape and range.
    points : int
        Knots of the curve, at least 2.
    rng : Generator
    """
    low, high = image.min(), image.max()
    if low == high:
        return image
    curve = np.linspace(0, 1, points)
    for i in range(1, points - 1):
        curve[i] = rng.uniform(curve[i - 1], curve[i + 1])
    position = (image - low) * ((points - 1) / (high - low))
    piece = np.minimum(position.astype(np.int32), points - 2)
    # Each piece is a line: two look-ups are several times faster than numpy's search for the piece.
    slope = np.diff(curve)
    start = curve[:-1] - slope * np.arange(points - 1)
    slopes, starts = (np.asarray(v * (high - low), np.float32) for v in (slope, start))
    return np.asarray(slopes[piece] * position + (starts + low)[piece], np.float32)


def _power(image: Voxels, gamma: float) -> Voxels:
    low, high = image.min(), image.max()
    span = max(high - low, np.float32(1e-7))
    return np.asarray(((image - low) / span) ** np.float32(gamma) * span + low, np.float32)


def bias_field(size: tuple[int, ...], coefficient: float, rng: Generator) -> Voxels:
    """Return a coil's smooth gain around 1: exp of a random cubic (MONAI's RandBiasField).

    Parameters
    ----------
    size : (height, width)
    coefficient : float
        Largest absolute coefficient of the Legendre polynomials.
    rng : Generator

    Returns
    -------
    array of float32
        Shape (height, width).
    """
    drawn = rng.uniform(-coefficient, coefficient, (_BIAS_DEGREE + 1,) * 2).astype(np.float32)
    rows, columns = (_polynomials(length) for length in size)
    return np.asarray(np.exp(rows @ np.tril(drawn) @ columns.T), np.float32)


@cache
def _polynomials(length: int) -> Voxels:
    """Legendre polynomials of degree 0 … 3 on `length` points from -1 to 1."""
    points = np.linspace(-1, 1, length)
    return np.polynomial.legendre.legvander(points, _BIAS_DEGREE).astype(np.float32)


@cache
def _cubic_weights(length: int) -> Voxels:
    """Return the matrix (length, knots) that interpolates smoothly between knots."""
    knots = np.eye(_CUT_KNOTS)
    return np.asarray(ndimage.zoom(knots, (length / _CUT_KNOTS, 1), order=3), np.float32)
