"""Files that have no sidecar: each carries a mark, so that medtrans replaces only its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medtrans.errors import MedtransError, OutputError
from medtrans.system.atomic import require_writable
from medtrans.volumes import stream

HTML = b'<meta name="generator" content="medtrans">'
PNG = b"Software\0medtrans"
_WITHIN = 1 << 12  # bytes of the (inflated) file


def require_marked(files: Iterable[Path], mark: bytes, *, overwrite: bool = False) -> None:
    """Refuse to write where a file lies that does not carry the mark of ours.

    Parameters
    ----------
    files
        What will be written.
    mark
        What stands in the first bytes of such a file when medtrans wrote it.
    overwrite
        Let any file be replaced.

    Raises
    ------
    OutputError
    """
    for file in files:
        if not overwrite and file.is_file() and not _is_marked(file, mark):
            raise OutputError(
                f"{file} exists, and medtrans did not write it. Choose another place, or replace "
                "it with --overwrite."
            )


def require_page(file: Path, *, overwrite: bool = False) -> None:
    """Refuse an HTML file that cannot be written, or is somebody else's; raises `OutputError`."""
    require_writable(file)
    require_marked([file], HTML, overwrite=overwrite)


def _is_marked(file: Path, mark: bytes) -> bool:
    try:
        return mark in stream.head(file, _WITHIN)
    except (OSError, MedtransError):
        return False
