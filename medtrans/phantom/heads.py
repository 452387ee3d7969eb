"""A digital head phantom with MR physics and HU: data for trying and testing without data.

The head is a function of (seed, index) in millimetres, so any grid samples the same anatomy.
Its tissues are painted from the outside in; the ramp of their signed distance over one voxel
is the partial volume. MR contrasts follow the spin-echo and inversion-recovery equations, with
a smooth bias field and Rician noise; CT is in HU with Gaussian noise.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medtrans.config.terms import CONTRASTS
from medtrans.data.manifest import write_manifest
from medtrans.errors import UsageError
from medtrans.phantom.anatomy import Axes, Head, smooth_field
from medtrans.system.atomic import make_folder
from medtrans.volumes.contrast import AIR_HU, HIGHEST_STORED_HU, LOWEST_STORED_HU
from medtrans.volumes.geometry import Affine
from medtrans.volumes.marks import require_marked
from medtrans.volumes.voxels import Voxels

_ORIGIN = "medtrans phantom"  # a column of the manifest, so that only our own is replaced
_ANATOMY_STREAM = 0  # contrast i of CONTRASTS has the stream i + 1
_BRAIN_MARGIN_MM = 1.0


@dataclass(frozen=True)
class Tissue:
    """What one tissue shows: T1 and T2 in ms, proton density (water is 1), CT in HU."""

    name: str
    t1_ms: float
    t2_ms: float
    pd: float
    hu: float
    enhanced_t1_ms: float | None = None  # T1 under gadolinium, where the tissue takes it up


# Rounded values near 1.5 T, general knowledge (e.g. McRobbie et al., "MRI from Picture to
# Proton"). Blood has the low effective proton density of a flow void. A tissue's place in this
# table is its label.
TISSUES = (
    Tissue("air", 1000, 1, 0.0, AIR_HU),
    Tissue("scalp", 280, 70, 0.75, -80),
    Tissue("muscle", 900, 47, 0.80, 55),
    Tissue("bone", 400, 1, 0.08, 1100),
    Tissue("marrow", 320, 60, 0.45, 450),
    Tissue("csf", 4300, 2000, 1.00, 6),
    Tissue("grey", 960, 100, 0.80, 39),
    Tissue("white", 650, 78, 0.69, 31),
    Tissue("deep_grey", 850, 85, 0.77, 37),
    Tissue("eye", 3500, 1000, 0.97, 12),
    Tissue("blood", 1300, 150, 0.45, 52, enhanced_t1_ms=120),
    Tissue("oedema", 1250, 150, 0.86, 22),
    Tissue("lesion", 1100, 125, 0.85, 42, enhanced_t1_ms=300),
)
LABELS = {tissue.name: label for label, tissue in enumerate(TISSUES)}


@dataclass(frozen=True)
class PulseSequence:
    """Repetition, echo and, for inversion recovery, inversion time, in ms."""

    tr_ms: float
    te_ms: float
    ti_ms: float | None = None
    gadolinium: bool = False


# T1 is inversion-prepared as in a 3D T1; FLAIR inverts at the null of CSF.
SEQUENCES = {
    "t1": PulseSequence(tr_ms=2300, te_ms=3, ti_ms=900),
    "t1c": PulseSequence(tr_ms=2300, te_ms=3, ti_ms=900, gadolinium=True),
    "t2": PulseSequence(tr_ms=5000, te_ms=100),
    "flair": PulseSequence(tr_ms=9000, te_ms=110, ti_ms=2470),
    "pd": PulseSequence(tr_ms=4000, te_ms=12),
    "mr": PulseSequence(tr_ms=2300, te_ms=3, ti_ms=900),
}


@dataclass(frozen=True)
class ScanProtocol:
    """What is scanned of a head, and on which grid.

    Attributes
    ----------
    contrasts : sequence of Contrast
        ``mr`` is another T1 acquisition than ``t1``.
    shape : three int
        Voxels along each axis, RAS.
    spacing_mm : three float
        The head fills about 170 × 215 × 190 mm; a smaller grid shows its middle.
    skull_stripped : bool
        Keep only what lies inside the skull: 0 outside, or air in CT.

    Raises
    ------
    UsageError
        An unknown contrast, or a grid that cannot be.
    """

    contrasts: Sequence[str] = ("t1", "t2")
    shape: Sequence[int] = (96, 112, 96)
    spacing_mm: Sequence[float] = (2.0, 2.0, 2.0)
    skull_stripped: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.contrasts if name not in CONTRASTS]
        if unknown or not self.contrasts:
            fault = f"Unknown contrast {unknown[0]!r}" if unknown else "No contrast is named"
            raise UsageError(f"{fault}: name some of {', '.join(CONTRASTS)}.")
        shape, spacing = tuple(self.shape), tuple(self.spacing_mm)
        if len(shape) != 3 or len(spacing) != 3 or min(shape) < 1 or min(spacing) <= 0:
            raise UsageError(
                f"A grid needs three sizes and three spacings above 0, not {shape} voxels of "
                f"{spacing} mm."
            )

    @property
    def axes_mm(self) -> list[npt.NDArray[np.float64]]:
        """Voxel centres along each axis in mm, shapes (X,), (Y,), (Z,); the grid's centre is 0."""
        return [
            (np.arange(n, dtype=np.float64) - (n - 1) / 2) * step
            for n, step in zip(self.shape, self.spacing_mm, strict=True)
        ]

    @property
    def affine(self) -> Affine:
        """Voxel to RAS mm, shape (4, 4)."""
        affine = np.diag([*self.spacing_mm, 1.0]).astype(np.float64)
        affine[:3, 3] = [axis[0] for axis in self.axes_mm]
        return affine


DEFAULT_PROTOCOL = ScanProtocol()


@dataclass(frozen=True, eq=False)
class Phantom:
    """One subject.

    Attributes
    ----------
    images : dict of str to ndarray of float32, shape (X, Y, Z)
        By contrast, in whole numbers as scanners store them: MR in arbitrary units of a few
        hundred to a few thousand, CT in HU.
    labels : ndarray of uint8, shape (X, Y, Z)
        The tissue of each voxel, as in `LABELS`.
    affine : ndarray of float64, shape (4, 4)
        Voxel to RAS in mm; the grid's centre is the origin.
    """

    images: dict[str, Voxels]
    labels: npt.NDArray[np.uint8]
    affine: Affine


def signal(tissue: Tissue, sequence: PulseSequence) -> float:
    """Signal of a tissue, before its magnitude is taken, for unit gain.

    Spin echo: S = PD (1 − exp(−TR/T1)) exp(−TE/T2).
    Inversion recovery: S = PD (1 − 2 exp(−TI/T1) + exp(−TR/T1)) exp(−TE/T2).
    Both as in McRobbie et al., "MRI from Picture to Proton".

    Parameters
    ----------
    tissue : Tissue
    sequence : PulseSequence
        Inversion recovery where it has an inversion time, else spin echo.
    """
    t1 = tissue.t1_ms
    if sequence.gadolinium and tissue.enhanced_t1_ms is not None:
        t1 = tissue.enhanced_t1_ms
    recovery = 1 - math.exp(-sequence.tr_ms / t1)
    if sequence.ti_ms is not None:
        recovery = 1 - 2 * math.exp(-sequence.ti_ms / t1) + math.exp(-sequence.tr_ms / t1)
    return tissue.pd * recovery * math.exp(-sequence.te_ms / tissue.t2_ms)


def make_subject(seed: int, index: int, protocol: ScanProtocol = DEFAULT_PROTOCOL) -> Phantom:
    """Make one subject; the same arguments always make the same one.

    A contrast's voxels do not depend on which others are asked for.

    Parameters
    ----------
    seed, index : int
        0 or more: the cohort, and the subject in it.
    protocol : ScanProtocol
        Contrasts and grid.

    Raises
    ------
    UsageError
        A seed or an index below 0.
    """
    if seed < 0 or index < 0:
        raise UsageError(f"Seed and subject must be 0 or more, not {seed} and {index}.")
    axes_mm = protocol.axes_mm
    rng = np.random.default_rng([seed, index, _ANATOMY_STREAM])
    tissues = [_vary(tissue, rng) for tissue in TISSUES]
    texture = 1 + 0.02 * smooth_field(rng, axes_mm, 14)
    head = Head(rng, axes_mm)
    clean, labels = _paint(head, tissues, protocol.contrasts, float(np.mean(protocol.spacing_mm)))
    images = {}
    for contrast in protocol.contrasts:
        stream = np.random.default_rng([seed, index, 1 + CONTRASTS.index(contrast)])
        if contrast == "ct":
            images[contrast] = _scan_ct(clean[contrast], stream)
        else:
            images[contrast] = _scan_mr(clean[contrast] * texture, stream, axes_mm)
    if protocol.skull_stripped:
        outside = head.cavity < _BRAIN_MARGIN_MM
        labels[outside] = LABELS["air"]
        for contrast, image in images.items():
            image[outside] = AIR_HU if contrast == "ct" else 0
    return Phantom(images, labels, protocol.affine)


def write_subjects(
    out: str | os.PathLike[str],
    count: int,
    protocol: ScanProtocol = DEFAULT_PROTOCOL,
    *,
    seed: int = 0,
    overwrite: bool = False,
    on_subject: Callable[[int, int], None] | None = None,
) -> Path:
    """Write subjects as ``sub-001/t1.nii.gz`` … (int16) and a manifest, which comes last.

    Of three subjects or more, 15 % each, and at least one, are val and test; two subjects are
    train and val.

    Parameters
    ----------
    out : path
        A folder; made if it is missing.
    count : int
        How many subjects, 1 or more.
    protocol : ScanProtocol
        Contrasts and grid.
    seed : int
        The cohort.
    overwrite : bool
        Replace files that are there and are no phantoms of medtrans.
    on_subject : callable, optional
        Called after each subject with how many are done and how many there will be.

    Returns
    -------
    Path
        The manifest, ``out/manifest.csv``.

    Raises
    ------
    UsageError
        A count below 1, or a seed below 0.
    OutputError
        The folder or a file cannot be written, or is somebody else's.
    """
    from medtrans.volumes import nifti  # loads nibabel

    if count < 1:
        raise UsageError(f"The number of subjects must be 1 or more, not {count}.")
    out, splits, rows = Path(out), _splits(count), []
    subjects = [f"sub-{index + 1:03}" for index in range(count)]
    volumes = [
        out / name / f"{contrast}.nii.gz" for name in subjects for contrast in protocol.contrasts
    ]
    require_marked(volumes, nifti.PHANTOM, overwrite=overwrite)
    require_marked([out / "manifest.csv"], _ORIGIN.encode(), overwrite=overwrite)
    for index, subject in enumerate(subjects):
        phantom = make_subject(seed, index, protocol)
        make_folder(out / subject)
        for contrast, image in phantom.images.items():
            path = f"{subject}/{contrast}.nii.gz"
            nifti.save_array(out / path, image.astype(np.int16), phantom.affine)
            place = {"subject": subject, "contrast": contrast, "path": path}
            rows.append({**place, "split": splits[index], "origin": _ORIGIN})
        if on_subject is not None:
            on_subject(index + 1, count)
    write_manifest(out / "manifest.csv", rows)
    return out / "manifest.csv"


def _vary(tissue: Tissue, rng: np.random.Generator) -> Tissue:
    """Give a subject its own tissue, a few per cent off the table."""
    t1, t2, density = (float(v) for v in np.clip(rng.normal(1, 0.02, 3), 0.95, 1.05))
    enhanced = None if tissue.enhanced_t1_ms is None else tissue.enhanced_t1_ms * t1
    hu = tissue.hu + float(rng.normal(0, 1)) if tissue.hu != AIR_HU else AIR_HU
    return Tissue(
        tissue.name, tissue.t1_ms * t1, tissue.t2_ms * t2, tissue.pd * density, hu, enhanced
    )


def _paint(
    head: Head, tissues: Sequence[Tissue], contrasts: Sequence[str], voxel_mm: float
) -> tuple[dict[str, Voxels], npt.NDArray[np.uint8]]:
    """Mix, in every voxel, what its tissues show; and label it with what was painted last."""
    values = {name: [_shown(tissue, name) for tissue in tissues] for name in contrasts}
    shape = head.cavity.shape
    images = {name: np.full(shape, by_tissue[0], np.float32) for name, by_tissue in values.items()}
    labels = np.zeros(shape, np.uint8)
    for tissue, distance in head.layers():
        label = LABELS[tissue]
        fraction = np.clip(distance / voxel_mm + 0.5, 0, 1)
        labels[distance > 0] = label
        for name, image in images.items():
            image[...] += fraction * (values[name][label] - image)
    return images, labels


def _shown(tissue: Tissue, contrast: str) -> float:
    return tissue.hu if contrast == "ct" else signal(tissue, SEQUENCES[contrast])


def _scan_mr(clean: Voxels, rng: np.random.Generator, axes_mm: Axes) -> Voxels:
    """Add a scanner's gain, bias field and Rician noise to a signal."""
    gain, noise = rng.uniform(1500, 3500), rng.uniform(0.006, 0.010)
    biased = clean * np.exp(0.10 * smooth_field(rng, axes_mm, 220))
    real = biased + noise * rng.standard_normal(clean.shape, np.float32)
    imaginary = noise * rng.standard_normal(clean.shape, np.float32)
    return np.asarray(np.rint(gain * np.hypot(real, imaginary)), np.float32)


def _scan_ct(clean: Voxels, rng: np.random.Generator) -> Voxels:
    noisy = clean + rng.uniform(4, 7) * rng.standard_normal(clean.shape, np.float32)
    return np.asarray(np.clip(np.rint(noisy), LOWEST_STORED_HU, HIGHEST_STORED_HU), np.float32)


def _splits(count: int) -> list[str]:
    held_out = max(1, round(0.15 * count))
    n_val = held_out if count > 1 else 0
    n_test = held_out if count > 2 else 0
    return ["train"] * (count - n_val - n_test) + ["val"] * n_val + ["test"] * n_test
