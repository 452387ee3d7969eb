"""`medtrans manifest`: a folder of images becomes a CSV that a person can edit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtrans.config.terms import CONTRASTS
from medtrans.data.cohort import Cohort, Options, find_cohort
from medtrans.data.layouts import read_layout
from medtrans.data.manifest import SPLITS, write_manifest
from medtrans.errors import OutputError
from medtrans.system.atomic import require_writable
from medtrans.system.progress import track


@dataclass(frozen=True)
class ManifestRequest:
    """What to list, and how.

    Attributes
    ----------
    folder, out : Path
        The images, and the CSV to write.
    layout : str or None
        A shipped layout's name, or a TOML file.
    val, test : float
        Share of the subjects in each.
    keep_ids, overwrite : bool
    """

    folder: Path
    out: Path
    layout: str | None
    val: float
    test: float
    keep_ids: bool
    overwrite: bool


def list_folder(request: ManifestRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the manifest of a folder.

    Returns
    -------
    dict
        Everything, for a program.
    dict
        What a person reads.

    Raises
    ------
    OutputError
        If the CSV is there already, or cannot be written.
    UsageError, ConfigError
        If there is nothing to list, or no such layout.
    """
    if request.out.exists() and not request.overwrite:
        raise OutputError(
            f"{request.out} exists, and may have been edited. Name another with --out, or replace "
            "it with --overwrite."
        )
    require_writable(request.out)
    layout = None if request.layout is None else read_layout(request.layout)
    options = Options(layout, request.val, request.test, request.keep_ids)
    with track("files") as update:
        cohort = find_cohort(request.folder, options, update)
    folder = request.out.absolute().parent
    write_manifest(request.out, [volume.row(folder) for volume in cohort.volumes])
    result: dict[str, Any] = {
        "manifest": str(request.out),
        "volumes": len(cohort.volumes),
        "splits": _counts(cohort),
    }
    if layout is not None and layout.expected:
        result["expected"] = layout.expected
    left = [{"path": str(x.path), "why": x.why, "detail": x.detail} for x in cohort.left_out]
    plain = {**result, "left out": _summary(cohort) or None}
    return {**result, "left_out": left, "other_files": cohort.others}, plain


def _counts(cohort: Cohort) -> list[dict[str, object]]:
    """Subjects and volumes of each contrast in each split, and in all."""
    rows: list[dict[str, object]] = []
    present = {volume.contrast for volume in cohort.volumes}
    for split in (*SPLITS, "all"):
        members = [volume for volume in cohort.volumes if split in (volume.split, "all")]
        by_contrast = Counter(volume.contrast for volume in members)
        subjects = len({volume.subject for volume in members})
        counts = {str(name): by_contrast[name] for name in CONTRASTS if name in present}
        rows.append({"split": split, "subjects": subjects, **counts})
    return rows


def _summary(cohort: Cohort) -> list[dict[str, object]]:
    """One line for each reason: how many, and the first of them."""
    reasons = Counter(item.why for item in cohort.left_out)
    rows: list[dict[str, object]] = [
        {"files": count, "why": why, "first": _first(cohort, why)}
        for why, count in reasons.most_common()
    ]
    if cohort.others:
        rows.append({"files": cohort.others, "why": "no image", "first": ""})
    return rows


def _first(cohort: Cohort, why: str) -> str:
    item = next(item for item in cohort.left_out if item.why == why)
    return item.detail or str(item.path)
