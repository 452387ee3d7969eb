"""`medtrans bundle`: model packages written and checked as MONAI bundles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medtrans.bundle.check import check
from medtrans.errors import EXIT_DONE, EXIT_USER_CAN_FIX, UsageError
from medtrans.package.bundle_files import Documents
from medtrans.package.store import export_package


@dataclass(frozen=True)
class Texts:
    """Files whose text goes into a bundle: the model card and the terms; None for the defaults."""

    card: Path | None
    license: Path | None
    data_license: Path | None


def export_bundle(
    source: str, out: Path, texts: Texts, version: str, change: str
) -> dict[str, Any]:
    """Write a run's model, or a package, as a whole MONAI bundle.

    Parameters
    ----------
    source : str
        A run's folder, a model's name or its folder.
    out : Path
        The bundle's folder; its name is the model's.
    texts : Texts
    version, change : str
        The model's version, and what it brings.
    """
    documents = Documents(
        card=_text(texts.card),
        license_text=_text(texts.license),
        data_license=_text(texts.data_license),
        version=version,
        changelog={version: change},
    )
    files = export_package(source, out, documents)
    return {"bundle": str(out), "files": [str(path) for path in files]}


def check_bundle(folder: Path, trust: bool) -> dict[str, Any]:
    """Run the checks of a MONAI bundle; `exit_code` in the result says whether all hold."""
    rows = [asdict(result) for result in check(folder, trust=trust)]
    failed = sum(row["result"] == "failed" for row in rows)
    exit_code = EXIT_USER_CAN_FIX if failed else EXIT_DONE
    return {"bundle": str(folder), "checks": rows, "failed": failed, "exit_code": exit_code}


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text ({error}). Name a text file.") from None
