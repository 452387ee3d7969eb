"""Random changes of training slices (MONAI), a function of the seed alone."""

from __future__ import annotations

import numpy as np
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandGaussianNoised,
    RandHistogramShiftd,
)
from numpy.typing import NDArray
from scipy import ndimage

from medtrans.config import AugmentationConfig

Slices = dict[str, NDArray[np.float32]]
SOURCE = "source"
_CUT_KNOTS = 4  # random values across a patch: boundaries as smooth as a skull's
_SEEDS = 2**32  # numpy's RandomState, which MONAI uses, takes 32 bits


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
        self.motion = RandAffined(
            keys,
            prob=config.affine,
            rotate_range=np.deg2rad(config.rotation_deg),
            scale_range=(config.scaling, config.scaling),
            translate_range=(config.shift_px, config.shift_px),
            mode="bilinear",
            padding_mode="border",
        )
        self.tone = Compose(
            [
                RandHistogramShiftd(
                    SOURCE,
                    num_control_points=config.tone_control_points,
                    prob=config.tone_curve,
                ),
                RandAdjustContrastd(SOURCE, prob=config.gamma, gamma=config.gamma_range),
                RandBiasFieldd(
                    SOURCE,
                    coeff_range=(-config.bias_coefficient, config.bias_coefficient),
                    prob=config.bias_field,
                ),
                RandGaussianNoised(SOURCE, prob=config.noise, std=config.noise_std),
            ]
        )

    def __call__(self, example: Slices, seed: int) -> Slices:
        """Return the changed slices; the same seed changes them in the same way."""
        self.motion.set_random_state(seed=seed % _SEEDS)
        self.tone.set_random_state(seed=(seed >> 1) % _SEEDS)
        rng = np.random.default_rng(seed)
        flipped = self._flipped(example, rng)
        moved = {key: np.asarray(v) for key, v in self.motion(flipped).items()}
        if SOURCE not in moved:
            return moved
        moved[SOURCE] = self._toned(moved[SOURCE])
        return self._cut(moved, rng)

    def _toned(self, source: NDArray[np.float32]) -> NDArray[np.float32]:
        if source.max() <= -1:  # a patch beside the patient: no tone to change
            return source
        unit = {SOURCE: (source + 1) / 2}  # the field multiplies, so 0 must be dark
        toned = np.clip(np.asarray(self.tone(unit)[SOURCE]) * 2 - 1, -1, 1)
        return np.where(source <= -1, np.float32(-1), toned).astype(np.float32)

    def _cut(self, example: Slices, rng: np.random.Generator) -> Slices:
        """Cut along a random smooth boundary, so that what lies at the rim is not always the same.

        Some skull strippers leave the fluid around the brain and others do not; a network that
        only ever saw cortex at the rim takes fluid there for cortex.
        """
        if rng.random() >= self.config.cut:
            return example
        size = example[SOURCE].shape[1:]
        coarse = rng.standard_normal((_CUT_KNOTS, _CUT_KNOTS))
        field = ndimage.zoom(coarse, [length / _CUT_KNOTS for length in size], order=3)
        kept = field > np.quantile(field, rng.uniform(0, self.config.cut_share))
        return {key: np.where(kept, value, np.float32(-1)) for key, value in example.items()}

    def _flipped(self, example: Slices, rng: np.random.Generator) -> Slices:
        flip = rng.random() < self.config.flip
        if self.flip_axis is None or not flip:
            return example
        axis = self.flip_axis + 1
        return {key: np.flip(value, axis).copy() for key, value in example.items()}
