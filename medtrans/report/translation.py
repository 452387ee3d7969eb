"""The page of one translation: its layers, its numbers, and what made it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from platform import python_version
from typing import NamedTuple

import monai
import numpy as np
import torch
from monai.data import MetaTensor

from medtrans.config.terms import Contrast
from medtrans.inference.jobs import LOOK_ENTRY
from medtrans.inference.look import describe_orientation
from medtrans.inference.translator import Written
from medtrans.preprocessing.foreground import find_foreground
from medtrans.report.page import Page, Section, save_page
from medtrans.report.scene import MAPS, Layer, Scene, Shown, arrange
from medtrans.volumes import read_volume, to_volume
from medtrans.volumes.geometry import grid, numbers, spacing_mm
from medtrans.volumes.source import Source
from medtrans.volumes.voxels import Loaded, Mask, Voxels

_SAID_ELSEWHERE = (
    "Synthetic", "Notice", "GeneratedBy", "SourceContrast", "TargetContrast", LOOK_ENTRY,
)  # fmt: skip
_WORDS = re.compile(r"[A-Z]+\d+|[A-Z][a-z]+|[A-Z]+(?![a-z])")  # of a sidecar's names


class Extras(NamedTuple):
    """Further volumes of a page, on the input's grid, each (X, Y, Z).

    Attributes
    ----------
    reference : array of float32 or None
        The real image of the target contrast.
    error : array of float32 or None
        What the output is wrong by, 0 or more, in the reference's unit. By default it is told from
        the reference: of CT as it is, of MR, which has no unit, after a linear fit.
    uncertainty : array of float32 or None
        What the output may be wrong by, in its unit.
    """

    reference: Voxels | None = None
    error: Voxels | None = None
    uncertainty: Voxels | None = None


NO_EXTRAS = Extras()


def save_translation(
    page: Path, source: Loaded, written: Written, extras: Extras = NO_EXTRAS
) -> None:
    """Write the HTML page of a translation, with nothing of the input's header, path or name.

    Parameters
    ----------
    page : Path
        The file to write or replace.
    source : Loaded
        The input's voxels (X, Y, Z), as read.
    written : Written
        Its translation; what is shown is the file that was written.
    extras : Extras
        Further volumes to show.

    Raises
    ------
    OutputError
        If the page cannot be written.
    GeometryError
        When a further volume has another shape than the input.
    """
    save_page(page, describe(translation_scene(source, written, extras), source.source, written))


def describe(scene: Scene, source: Source, written: Written) -> Page:
    """Say of a translation what its page says."""
    source_name, target_name = (_spelt(contrast) for contrast in _contrasts(written))
    return Page(
        f"Synthetic {target_name} from {source_name}",
        scene,
        [_unnamed(sentence, source) for sentence in written.translation.warnings],
        {
            "Numbers": _numbers(scene, written),
            **_look(written),
            "How it was made": _how(written),
        },
    )


def translation_scene(source: Loaded, written: Written, extras: Extras = NO_EXTRAS) -> Scene:
    """Give the volumes of a translation the names and units that pictures show.

    Parameters
    ----------
    source : Loaded
    written : Written
        What is shown is the file that was written.
    extras : Extras
    """
    return arrange(list(_layers(source, written, extras)))


def _layers(source: Loaded, written: Written, extras: Extras) -> Iterator[Layer]:
    shown, unit = to_volume(source), "HU" if written.provenance.target_kind == "ct" else ""
    source_name, target_name = (_spelt(contrast) for contrast in _contrasts(written))
    synthetic = read_volume(written.outputs[0])
    yield Layer("source", f"Source {source_name}", shown, "HU" if source_name == "CT" else "")
    yield Layer("synthetic", f"SYNTHETIC {target_name}", synthetic, unit)
    if extras.reference is not None:
        reference = _like(shown, extras.reference)
        yield Layer("reference", f"Reference {target_name}", reference, unit)
        if extras.error is None:
            error = _error(written.translation.voxels, extras.reference, fitted=not unit)
            note = "" if unit else ", after a linear fit of the synthetic volume to the reference"
            yield Layer("error", "Absolute error", _like(shown, error), unit, note)
    if extras.error is not None:
        yield Layer("error", "Absolute error", _like(shown, extras.error), unit)
    if extras.uncertainty is not None:
        yield Layer("uncertainty", "Uncertainty", _like(shown, extras.uncertainty), unit)


def _contrasts(written: Written) -> tuple[Contrast, Contrast]:
    label = written.provenance
    return label.source_contrast, label.target_contrast


def _spelt(contrast: Contrast) -> str:
    return "T1c" if contrast == "t1c" else contrast.upper()


def _like(volume: MetaTensor, voxels: Voxels) -> MetaTensor:
    return MetaTensor(torch.from_numpy(voxels), affine=volume.affine)


def _error(predicted: Voxels, truth: Voxels, *, fitted: bool) -> Voxels:
    mask = find_foreground(truth)
    if fitted and np.ptp(predicted[mask]) > 0:
        slope, shift = np.polyfit(predicted[mask].astype(np.float64), truth[mask], 1)
        predicted = (slope * predicted + shift).astype(np.float32)
    return np.where(mask, np.abs(predicted - truth), np.float32(0))


def _unnamed(sentence: str, source: Source) -> str:
    """Take the input's path out of a warning: a patient's name may be in it."""
    return re.sub(rf"{re.escape(str(source.path))}(?:[/\\][^:]*)?", "the input", sentence)


def _numbers(scene: Scene, written: Written) -> Section:
    volume = scene.shown[0].layer.volume
    spacing = numbers(spacing_mm(np.asarray(volume.affine))).replace(", ", " x ")
    return {
        "Grid": f"{grid(volume.shape)} voxels of {spacing} mm",
        **{shown.layer.name: _spread(shown, scene.foreground) for shown in scene.shown},
        "Slices translated": written.translation.slices,
    }


def _spread(shown: Shown, foreground: Mask) -> str:
    """Say what values a layer has where the patient is."""
    inside = shown.voxels[foreground]
    unit = f" {shown.layer.unit}" if shown.layer.unit else ""
    if shown.layer.role in MAPS:
        return f"mean {np.mean(inside):.4g}{unit} in the foreground{shown.layer.note}"
    low, middle, high = np.percentile(inside, (1, 50, 99))
    return f"median {middle:.4g}{unit}, 1 to 99 %: {low:.4g} to {high:.4g}, in the foreground"


def _look(written: Written) -> dict[str, Section]:
    """Say what was seen of the input, where the model can look at one."""
    look = written.translation.look
    if look is None:
        return {}
    seen = "none of those the model knows" if look.contrast is None else _spelt(look.contrast)
    expected = _spelt(_contrasts(written)[0])
    turned = describe_orientation(look.orientation)
    sure = "" if look.orientation is None else f" ({look.orientation_confidence:.0%} sure)"
    size = " x ".join(f"{mm:.0f}" for mm in look.extent.size_mm)
    return {
        "A look at the input": {
            "Contrast, by the image": f"{seen} ({look.confidence:.0%} sure); expected: {expected}",
            "Orientation, by the image": f"{turned}{sure}",
            "What it shows": f"{size} mm, {look.extent.litres:.2f} litres",
            "Unusual": "see above" if look.unusual else "nothing",
        }
    }


def _how(written: Written) -> Section:
    entries = written.provenance.sidecar()
    facts = {_name(k): _value(v) for k, v in entries.items() if k not in _SAID_ELSEWHERE}
    now = datetime.now(UTC)
    return {
        **facts,
        "Time taken": f"{written.seconds:.1f} s",
        "Made": f"{now:%Y-%m-%d %H:%M} UTC",
        "Versions": f"medtrans {written.provenance.version}, PyTorch {torch.__version__}, "
        f"MONAI {monai.__version__}, NumPy {np.__version__}, Python {python_version()}",
    }


def _name(entry: str) -> str:
    """Spell a sidecar's name in words: ModelSHA256 is Model SHA256."""
    words = _WORDS.findall(entry)
    return " ".join([words[0], *(w if w.isupper() else w.lower() for w in words[1:])])


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
