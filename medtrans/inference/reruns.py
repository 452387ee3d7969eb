"""What a rerun may leave as it is: results of the same input, model and settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from medtrans.inference.jobs import AXES_ENTRY, LOOK_ENTRY, STRIPPED_ENTRY, ReadJob
from medtrans.volumes import Provenance
from medtrans.volumes.sidecar import Claim, earlier_result, image_files, sidecar_of

# What a sidecar says that is neither input, model nor setting.
_NO_SETTINGS = frozenset((
    "GeneratedBy", "Device", "Precision", "BatchSize", "Threads", "SourceLocationSHA256",
    "FilesSHA256", AXES_ENTRY, LOOK_ENTRY, STRIPPED_ENTRY, "BrainLitres", "BrainDoubt",
    "BrainFinderSHA256",
))  # fmt: skip


def earlier_outputs(
    read: ReadJob, label: Provenance, precision: str, *, strict: bool = False
) -> list[Path] | None:
    """List the files of an earlier run of a job, if another run would be of the same.

    Parameters
    ----------
    read : ReadJob
    label : Provenance
        What the result's label will say but for what decides the rounding.
    precision : "auto", "float32" or "bfloat16"
        As asked for; auto takes a result of either.
    strict : bool
        Whether a result of an unusual input counts as none.

    Returns
    -------
    list of Path or None
        The image first; None where a file is missing or was changed, or the input, the model or a
        setting is another one.
    """
    source, job = read.source, read.job
    wanted = {(read.output, job.kind or source.kind): label}
    for path, entries in read.further:
        wanted[path, "nifti"] = replace(label, extra={**label.extra, **entries})
    outputs: list[Path] = []
    for (path, kind), its_label in wanted.items():
        found = earlier_result(path, kind, Claim.of(source, its_label))
        if found is None or _settings(found) != _settings(its_label.sidecar()):
            return None
        if strict and _is_unusual(found):
            return None
        if precision not in ("auto", found.get("Precision")):
            return None
        outputs += [*image_files(path, kind), sidecar_of(path, kind)]
    return outputs


def _is_unusual(entries: dict[str, object]) -> bool:
    look = entries.get(LOOK_ENTRY)
    return isinstance(look, dict) and bool(look.get("Unusual"))


def _settings(entries: dict[str, object]) -> dict[str, object]:
    """Keep what decides a result, as JSON spells it."""
    kept = {name: value for name, value in entries.items() if name not in _NO_SETTINGS}
    plain: dict[str, object] = json.loads(json.dumps(kept))
    return plain
