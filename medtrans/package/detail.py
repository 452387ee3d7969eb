"""What a package keeps of the detail that its estimates lack: gains, in its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medtrans.errors import PackageError
from medtrans.package.folder import METADATA, ModelRecord
from medtrans.preprocessing.detail import BANDS_SD, MOST_GAIN

Gains = Mapping[str, Sequence[float]]
"""Task -> how many times as much detail real targets have as estimates, in each band of
`medtrans.preprocessing.detail`; of no task where it was not measured."""


def load_detail(folder: Path, record: ModelRecord) -> Gains:
    """Read the gains of a package; raises `PackageError` where they are none."""
    stored = record.get("detail", {})
    try:
        gains = {task: tuple(map(float, of)) for task, of in stored.items()}
        wrong = any(not _fits(of) for of in gains.values())
    except (AttributeError, TypeError, ValueError):
        wrong = True
    if wrong:
        raise PackageError(
            f"{folder / METADATA}: the gains of detail are not {len(BANDS_SD)} numbers from 1 to "
            f"{MOST_GAIN:g} a task. Copy or export the package again."
        )
    return gains


def _fits(gains: Sequence[float]) -> bool:
    return len(gains) == len(BANDS_SD) and all(1 <= gain <= MOST_GAIN for gain in gains)
