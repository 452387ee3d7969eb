"""The page of one translation: its layers, its numbers, and what made it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medtrans.config.terms import Contrast
from medtrans.inference.jobs import LOOK_ENTRY, STRIPPED_ENTRY
from medtrans.inference.look import describe_orientation
from medtrans.inference.translator import Written
from medtrans.report.layers import error_layer, like
from medtrans.report.made import contrast_name, versions
from medtrans.report.page import Page, save_page
from medtrans.report.scene import MAPS, Layer, Scene, Shown, arrange
from medtrans.volumes import read_volume, to_volume
from medtrans.volumes.geometry import grid, numbers, spacing_mm
from medtrans.volumes.source import Source
from medtrans.volumes.voxels import Loaded, Mask, Voxels

_SAID_ELSEWHERE = (
    "Synthetic", "Notice", "GeneratedBy", "SourceContrast", "TargetContrast", LOOK_ENTRY,
    STRIPPED_ENTRY,
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
    source_name, target_name = (contrast_name(contrast) for contrast in _contrasts(written))
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
    source_name, target_name = (contrast_name(contrast) for contrast in _contrasts(written))
    synthetic = read_volume(written.outputs[0])
    yield Layer("source", f"Source {source_name}", shown, "HU" if source_name == "CT" else "")
    yield Layer("synthetic", f"SYNTHETIC {target_name}", synthetic, unit)
    if extras.reference is not None:
        reference = like(shown, extras.reference)
        yield Layer("reference", f"Reference {target_name}", reference, unit)
        if extras.error is None:
            yield error_layer(written.translation.voxels, reference, unit)
    if extras.error is not None:
        yield Layer("error", "Absolute error", like(shown, extras.error), unit)
    if extras.uncertainty is not None:
        map_ = like(shown, extras.uncertainty)
        note = _meaning(written, extras.uncertainty)
        yield Layer("uncertainty", "Uncertainty", map_, unit, note)


def _meaning(written: Written, shown: Voxels) -> str:
    """Say what the translation's own uncertainty map holds; nothing of any other."""
    translation = written.translation
    if shown is not translation.uncertainty:
        return ""
    error = translation.error
    if error is None:
        return ": the standard deviation over the draws"
    seen = error.calibration.subjects
    worth = f"as seen on {seen} other subjects" if seen else "never compared with other subjects"
    return f": the absolute error to be expected, {worth}"


def _contrasts(written: Written) -> tuple[Contrast, Contrast]:
    label = written.provenance
    return label.source_contrast, label.target_contrast


def _unnamed(sentence: str, source: Source) -> str:
    """Take the input's path out of a warning: a patient's name may be in it."""
    return re.sub(rf"{re.escape(str(source.path))}(?:[/\\][^:]*)?", "the input", sentence)


def grid_text(scene: Scene) -> str:
    """Say how many voxels of which size the volumes of a scene have."""
    volume = scene.shown[0].layer.volume
    spacing = numbers(spacing_mm(np.asarray(volume.affine))).replace(", ", " x ")
    return f"{grid(volume.shape)} voxels of {spacing} mm"


def _numbers(scene: Scene, written: Written) -> dict[str, object]:
    return {
        "Grid": grid_text(scene),
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


def _look(written: Written) -> dict[str, dict[str, object]]:
    """Say what was seen of the input, where the model can look at one."""
    look = written.translation.look
    if look is None:
        return {}
    seen = (
        "none of those the model knows" if look.contrast is None else contrast_name(look.contrast)
    )
    expected = contrast_name(_contrasts(written)[0])
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


def _how(written: Written) -> dict[str, object]:
    entries = written.provenance.sidecar()
    facts = {_name(k): _value(v) for k, v in entries.items() if k not in _SAID_ELSEWHERE}
    now, made_by = datetime.now(UTC), written.provenance.version
    of_this_run = {"Time taken": f"{written.seconds:.1f} s", "Versions": versions(made_by)}
    return {
        **facts,
        **(of_this_run if written.seconds else {"Versions": f"medtrans {made_by}"}),
        "Page written": f"{now:%Y-%m-%d %H:%M} UTC",
    }


def _name(entry: str) -> str:
    """Spell a sidecar's name in words: ModelSHA256 is Model SHA256."""
    words = _WORDS.findall(entry)
    return " ".join([words[0], *(w if w.isupper() else w.lower() for w in words[1:])])


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
