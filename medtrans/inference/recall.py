"""What an earlier run said of a result that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medtrans.inference.jobs import AXES_ENTRY, Job
from medtrans.inference.plan import Translation
from medtrans.inference.sampling import Arithmetic
from medtrans.inference.settings import Settings
from medtrans.inference.translator import Translator, Written
from medtrans.volumes import to_volume
from medtrans.volumes.sidecar import read_sidecar

_MADE = ("Device", "Precision", "BatchSize", "Threads", AXES_ENTRY)  # what only a run knows


def recalled(
    translator: Translator, job: Job, settings: Settings, outputs: Sequence[Path]
) -> Written:
    """Describe a result of an earlier run, whose input, model and settings were these.

    Parameters
    ----------
    translator : Translator
    job : Job
        Its input is read and checked again.
    settings : Settings
    outputs : sequence of Path
        The image first, with its sidecar.

    Returns
    -------
    Written
        Without voxels, which are in the file; `seconds` is 0, since it is not known.

    Raises
    ------
    FileError
        When the input cannot be read any more.
    """
    read = translator.read(job, settings)
    plan = translator.prepare(to_volume(read.image), settings, read.mask).plan
    entries = _entries(outputs)
    label = translator.expected_label(read, settings)
    made = {name: entries[name] for name in _MADE if name in entries}
    label = replace(label, version=_version(entries), extra={**label.extra, **made})
    warnings = (*read.source.warnings, *plan.warnings)
    nothing, unknown = np.zeros((0, 0, 0), np.float32), Arithmetic("", "", 0, None)
    translation = Translation(
        nothing, None, plan.task, plan.steps, plan.slices, unknown, warnings, plan.look, plan.masked
    )
    return Written(list(outputs), translation, label, 0.0)


def fingerprint(outputs: Sequence[Path]) -> object:
    """Tell a result from another: the hashes of its files, as its sidecar has them."""
    return _entries(outputs).get("FilesSHA256")


def _entries(outputs: Sequence[Path]) -> dict[str, object]:
    sidecars = (read_sidecar(path) for path in outputs if path.suffix == ".json")
    return next(sidecars, None) or {}


def _version(entries: Mapping[str, object]) -> str:
    """Which version of medtrans made a result, as its sidecar says."""
    generators = entries.get("GeneratedBy")
    first = generators[0] if isinstance(generators, list) and generators else {}
    return str(first.get("Version", ""))
