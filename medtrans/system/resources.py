"""Where the files that travel with medtrans lie: in the wheel, or in the source checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(folder: str) -> Path:
    """Return the folder `pipelines`, `bundles` or `data_manifests` that came with medtrans.

    A wheel carries them inside the package; a checkout (also an editable install) beside it.
    """
    inside = _PACKAGE / "shipped" / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder
