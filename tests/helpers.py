"""Small recipes, models, cohorts and files: made in memory, in milliseconds."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from torch import nn

from medtrans.config.recipes import load_pipeline
from medtrans.config.schema import Pipeline
from medtrans.networks.unet import error_network, noise_network, residual_network
from medtrans.package.error import Calibration, KnownError
from medtrans.package.look import Known
from medtrans.package.store import TrainedModel, save_package
from medtrans.phantom.heads import ScanProtocol, make_subject, write_subjects
from medtrans.preprocessing.foreground import find_region
from medtrans.preprocessing.intensity import Profile
from medtrans.preprocessing.model_space import ModelSpace, to_model_space
from medtrans.volumes.geometry import spacing_mm

SHAPE = (24, 28, 20)
SPACING_MM = (8.0, 8.0, 8.0)

_STAGE = {
    "iterations": 4,
    "batch_size": 2,
    "patch": [16, 16],
    "warmup_iterations": 2,
    "precision": "fp32",
    "validate_every": 2,
    "validation_slices": 3,
    "checkpoint_every": 100,
}
_TINY: dict[str, Any] = {
    "volume": {"spacing_mm": [0.0, 0.0, 0.0], "dilation_mm": 1.0, "divisible": 4},
    "network": {
        "channels": [4, 4],
        "blocks": 1,
        "attention": [False, False],
        "norm_groups": 2,
        "unshuffle": 2,
        "head_features": 2,
    },
    "noise": _STAGE,
    "residual": _STAGE,
    "error": {"iterations": 0},
    "detail": {"pairs": 0},
    "look": {"examples": 0},
}
_WINDOW = {"scale": "window", "window_hu": [0.0, 1000.0], "background": 0.0}


# Arguments of MONAI's DiffusionModelUNet: a small noise network from elsewhere.
FOREIGN_NETWORK = {
    "channels": [8, 16],
    "attention_levels": [False, False],
    "num_res_blocks": 1,
    "num_head_channels": 4,
    "norm_num_groups": 4,
}


class Answer(NamedTuple):
    """What a command that was typed in this process answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What --json printed: one line."""
        assert self.out.endswith("}\n")
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Run = Callable[..., Answer]


def tiny_pipeline(recipe: str = "t1-to-t2", **overrides: Any) -> Pipeline:
    """Load a shipped recipe with a tiny network; `overrides` are laid over that."""
    return load_pipeline(recipe, merged(_TINY, overrides))


def linear_pipeline(**overrides: Any) -> Pipeline:
    """Like `tiny_pipeline`, with t1 and t2 both on the fixed window 0 ... 1000."""
    scales = {"contrasts": {"t1": _WINDOW, "t2": _WINDOW}}
    return tiny_pipeline(**merged(scales, overrides))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested keys over others."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


def randomise(network: nn.Module, seed: int, size: float = 0.1) -> nn.Module:
    """Give a network weights that differ from 0 everywhere; MONAI starts its last layer at 0."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(size * torch.randn(weight.shape, generator=rng))
    return network


def save_model(
    folder: Path,
    pipeline: Pipeline,
    *,
    noise: bool = True,
    identity: bool = False,
    profile: tuple[float, float] = (0.0, 1000.0),
    look: Known | None = None,
    error: KnownError | None = None,
    detail: Mapping[str, Sequence[float]] | None = None,
    masked_background: bool = False,
) -> Path:
    """Write a model package; an identity model's networks answer 0, as MONAI initialises them."""
    networks = [residual_network(pipeline, 0), noise_network(pipeline, 1)]
    if not identity:
        networks = [randomise(net, i) for i, net in enumerate(networks)]
    model = TrainedModel(
        pipeline=pipeline,
        profiles=dict.fromkeys(pipeline.targets, Profile(*profile)),
        residual=networks[0].state_dict(),
        noise=networks[1].state_dict() if noise else None,
        masked_background=masked_background,
        training={"seed": 0},
        look=look,
        error=error,
        detail=detail or {},
    )
    save_package(folder, model)
    return folder


def known_error(pipeline: Pipeline, expected: float = 0.1, **changes: Any) -> KnownError:
    """Make a model expect the same error everywhere, on the networks' scale."""
    calibration = Calibration((0.0, 2.0), (expected, expected), {0.5: 0.7, 0.9: 2.3}, 3)
    network = randomise(error_network(pipeline, 0), 0).eval().requires_grad_(False)
    return KnownError(network, replace(calibration, **changes))


def small_scan(**options: Any) -> ScanProtocol:
    """Scan a small skull-stripped head; `options` are laid over that."""
    return ScanProtocol(
        **{"shape": SHAPE, "spacing_mm": SPACING_MM, "skull_stripped": True, **options}
    )


def write_cohort(folder: Path, count: int = 3, seed: int = 0, **options: Any) -> Path:
    """Write small skull-stripped phantoms and return their manifest."""
    return write_subjects(folder, count, small_scan(**options), seed=seed)


def head(contrast: str = "t1", **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Make one small skull-stripped phantom: voxels (X, Y, Z) and affine."""
    phantom = make_subject(0, 0, small_scan(contrasts=(contrast,), **options))
    return phantom.images[contrast], phantom.affine


def volume(voxels: np.ndarray, affine: np.ndarray | None = None) -> MetaTensor:
    """Make a volume as `read_volume` would."""
    grid = np.eye(4) if affine is None else affine
    return MetaTensor(
        torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32)),
        affine=torch.from_numpy(np.array(grid, dtype=np.float64)),
    )


def in_model_space(
    volume: MetaTensor, pipeline: Pipeline, mask: np.ndarray | None = None
) -> ModelSpace:
    """Bring a t1 volume into the space of a recipe's networks, whole."""
    recipe, grid_mm = pipeline.volume, spacing_mm(np.asarray(volume.affine))
    region = find_region(volume.numpy(), grid_mm, recipe, mask)
    return to_model_space(volume, region, pipeline.contrasts["t1"], recipe.spacing_mm)


def write_nifti(
    path: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    qform_code: int = 1,
    sform_code: int = 2,
) -> Path:
    """Write a NIfTI file with both forms, their codes and units."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, qform_code)
    image.set_sform(affine, sform_code)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(path)
    return path


def orientations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All 48 ways to store a volume: axis order and direction of each axis."""
    orders = itertools.permutations(range(3))
    return list(itertools.product(orders, itertools.product((1, -1), repeat=3)))


def stored_as(
    voxels: np.ndarray, affine: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Store the same volume with other axes: every voxel keeps its place in millimetres."""
    out = np.transpose(voxels, order)
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        change[old, new] = sign
        if sign < 0:
            out = np.flip(out, new)
            change[old, 3] = out.shape[new] - 1
    return np.ascontiguousarray(out), affine @ change


def tilted(affine: np.ndarray) -> np.ndarray:
    """Turn a grid by 17 and 9 degrees about two axes."""
    a, b = np.deg2rad([17.0, 9.0])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turn = np.eye(4)
    turn[:3, :3] = about_z @ about_x
    return turn @ affine


def marked_head(seed: int = 0) -> np.ndarray:
    """Make a block of tissue in air, (13, 14, 12), with one bright marker towards +x (right)."""
    rng = np.random.default_rng(seed)
    voxels = np.zeros((13, 14, 12), dtype=np.float32)
    voxels[3:10, 4:11, 2:8] = rng.integers(100, 600, (7, 7, 6))
    voxels[9, 6, 4] = 900
    return voxels


def files_below(folder: Path) -> Iterator[Path]:
    """Every file under a folder, hidden ones too."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
