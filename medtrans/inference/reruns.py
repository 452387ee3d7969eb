"""What a rerun may leave as it is: results of the same input, model and settings."""

from __future__ import annotations

import json
from pathlib import Path

from medtrans.inference.jobs import ReadJob
from medtrans.volumes import Provenance
from medtrans.volumes.sidecar import Claim, earlier_result, image_files, sidecar_of

# What a sidecar says that is neither input, model nor setting.
_NO_SETTINGS = frozenset((
    "GeneratedBy", "Device", "Precision", "BatchSize", "Threads", "SourceLocationSHA256",
    "FilesSHA256", "BrainLitres", "BrainAgreement", "BrainAtlasSHA256",
))  # fmt: skip


def earlier_outputs(read: ReadJob, label: Provenance, precision: str) -> list[Path] | None:
    """List the files of an earlier run of a job, if another run would be of the same.

    Parameters
    ----------
    read : ReadJob
    label : Provenance
        What the result's label will say but for what decides the rounding.
    precision : "auto", "float32" or "bfloat16"
        As asked for; auto takes a result of either.

    Returns
    -------
    list of Path or None
        The image first; None where a file is missing or was changed, or the input, the model or a
        setting is another one.
    """
    source, job = read.source, read.job
    wanted: list[tuple[Path, str, str | None]] = [(read.output, job.kind or source.kind, None)]
    wanted += [(path, "nifti", content) for content, path in job.further.items()]
    outputs: list[Path] = []
    for path, kind, content in wanted:
        entries = label.sidecar() | ({} if content is None else {"Content": content})
        claim = Claim(source, label.task, content, job.volume)
        found = earlier_result(path, kind, claim)
        if found is None or _settings(found) != _settings(entries):
            return None
        if precision not in ("auto", found.get("Precision")):
            return None
        outputs += [*image_files(path, kind), sidecar_of(path, kind)]
    return outputs


def _settings(entries: dict[str, object]) -> dict[str, object]:
    """Keep what decides a result, as JSON spells it."""
    kept = {name: value for name, value in entries.items() if name not in _NO_SETTINGS}
    plain: dict[str, object] = json.loads(json.dumps(kept))
    return plain
