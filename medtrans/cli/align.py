"""`medtrans align`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medtrans.config.terms import CONTRASTS, Task, nearest
from medtrans.data.manifest import Manifest
from medtrans.errors import EXIT_DONE, EXIT_USER_CAN_FIX, UsageError
from medtrans.registration.cohort import align_cohort, planned
from medtrans.system.progress import track


@dataclass(frozen=True)
class AlignRequest:
    """What `medtrans align` is asked for.

    Attributes
    ----------
    manifest, out : Path
        The CSV to read, and the folder to write to.
    task : Task or None
        Only its contrasts.
    to : str or None
        Contrast whose grid the others get.
    n4 : bool
    threshold : float or None
        Pairs with a lower similarity are marked; None for what the package holds for too low.
    """

    manifest: Path
    out: Path
    task: Task | None
    to: str | None
    n4: bool
    threshold: float | None


def align_manifest(request: AlignRequest) -> dict[str, Any]:
    """Align the pairs of a manifest; raises `MedtransError`."""
    to = request.to
    if to is not None and to not in CONTRASTS:
        raise UsageError(
            f"--to names an unknown contrast '{to}'{nearest(to, CONTRASTS)}; known are "
            f"{', '.join(CONTRASTS)}."
        )
    listed = Manifest.read(request.manifest)
    plan = planned(listed, request.out, request.task, to)
    plan = replace(plan, n4=request.n4)
    if request.threshold is not None:
        plan = replace(plan, least_gain=request.threshold)
    with track("aligning") as update:
        report = align_cohort(plan, update)
    results = [str(row["result"]) for row in report.rows]
    failed = sum(result.startswith("failed") for result in results)
    doubtful = sum(row.get("use", "yes") != "yes" for row in report.rows)
    return {
        "onto": plan.onto,
        "pairs": report.rows,
        "resampled": sum(result.startswith("resampled") for result in results),
        "on_the_same_grid": sum(result.startswith("same") for result in results),
        "failed": failed,
        "marked_as_unpaired": failed + doubtful,
        "manifest": str(report.manifest),
        "exit_code": EXIT_USER_CAN_FIX if failed else EXIT_DONE,
    }
