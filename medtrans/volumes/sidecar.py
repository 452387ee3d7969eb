"""The JSON beside every result: what it says, and whose files it therefore vouches for.

A file that is in the way of a result is replaced without being asked for only if its sidecar says
that medtrans wrote it for this very result, and it has not been changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medtrans.errors import OutputError
from medtrans.volumes import stream
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.source import Source, split_suffix

_LONGEST = 1 << 20  # bytes; ours have about one thousand
_GENERATOR = "medtrans"


@dataclass(frozen=True)
class Claim:
    """Which result a name is for, whatever the settings that make it.

    Attributes
    ----------
    source : Source
    task : str
    content : str or None
        What it holds where that is not the translated image.
    volume : int or None
        Which volume of a 4D file.
    """

    source: Source
    task: str
    content: str | None = None
    volume: int | None = None

    @classmethod
    def of(cls, source: Source, provenance: Provenance) -> Claim:
        """Return the claim of a result that is about to be written."""
        extra = provenance.extra
        content, volume = extra.get("Content"), extra.get("SourceVolume")
        return cls(
            source,
            provenance.task,
            content if isinstance(content, str) else None,
            volume if isinstance(volume, int) else None,
        )

    def entries(self, sidecar: Path) -> dict[str, object]:
        """Say where the source lies, as a hash: paths may name a patient."""
        return {"SourceLocationSHA256": _location(self.source, sidecar)}

    def is_met_by(self, entries: Mapping[str, object], sidecar: Path) -> bool:
        """Whether a sidecar's entries are of this result: the same task and source.

        The source may have changed in its place, or moved unchanged.
        """
        stated = {name: entries.get(name) for name in ("Task", "Content", "SourceVolume")}
        if stated != {"Task": self.task, "Content": self.content, "SourceVolume": self.volume}:
            return False
        in_place = entries.get("SourceLocationSHA256") == _location(self.source, sidecar)
        return in_place or entries.get("SourceSHA256") == self.source.sha256


def sidecar_of(path: Path, kind: str) -> Path:
    """Where the sidecar of an image lies.

    Parameters
    ----------
    path
        The image's file, or for "dicom" its folder.
    kind
        "nifti", "dicom", "itk" or "mgh".
    """
    stem = path.name if kind == "dicom" else split_suffix(path)[0]
    return path.with_name(stem + ".json")


def image_files(path: Path, kind: str) -> list[Path]:
    """Every file of an image: one, the two of a NIfTI pair, or the folder of a DICOM series."""
    stem, suffix = split_suffix(path)
    if kind == "nifti" and suffix in (".hdr", ".img"):
        return [path.with_name(stem + ".img"), path.with_name(stem + ".hdr")]
    return [path]


def write_sidecar(
    partial: Path, provenance: Provenance, sidecar: Path, claim: Claim, images: Mapping[Path, Path]
) -> None:
    """Write the sidecar of one image, as JSON.

    Parameters
    ----------
    partial
        The file to write.
    provenance
        The label.
    sidecar
        The name that `partial` will have.
    claim
        Which result it is.
    images
        The image's final names, with the file or folder that holds the content of each now.
    """
    hashes = {final.name: _hash(now) for final, now in images.items()}
    entries = {**provenance.sidecar(), **claim.entries(sidecar), "FilesSHA256": hashes}
    partial.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def read_sidecar(sidecar: Path) -> dict[str, object] | None:
    """Read the entries of a sidecar that medtrans wrote; None for anything else."""
    try:
        if sidecar.stat().st_size > _LONGEST:
            return None
        entries = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    generators = entries.get("GeneratedBy") if isinstance(entries, dict) else None
    first = generators[0] if isinstance(generators, list) and generators else None
    ours = isinstance(first, dict) and first.get("Name") == _GENERATOR
    return entries if ours else None


def earlier_result(path: Path, kind: str, claim: Claim) -> dict[str, object] | None:
    """Read the sidecar of an earlier, whole and unchanged result; None where there is none.

    Parameters
    ----------
    path, kind
        The image, as for `sidecar_of`.
    claim
        Which result it has to be.
    """
    images = image_files(path, kind)
    entries = _own_entries(sidecar_of(path, kind), images, claim)
    return entries if entries and all(image.exists() for image in images) else None


def require_own_files(path: Path, kind: str, claim: Claim, *, overwrite: bool = False) -> None:
    """Refuse a name whose files somebody else wrote, or medtrans for another result.

    Parameters
    ----------
    path, kind
        The image that will be written, as for `sidecar_of`.
    claim
        Which result it will be.
    overwrite
        Let files be replaced, but no folder that medtrans did not write.

    Raises
    ------
    OutputError
    """
    sidecar, images = sidecar_of(path, kind), image_files(path, kind)
    there = [file for file in (*images, sidecar) if _is_taken(file)]
    if not there or _own_entries(sidecar, images, claim) is not None:
        return
    if path.is_dir() and (not overwrite or read_sidecar(sidecar) is None):
        raise OutputError(
            f"{path}: expected a new or empty folder to write to, found one that is not empty and "
            "that medtrans did not write for this result. Choose another name, or remove it."
        )
    if not overwrite:
        raise OutputError(
            f"{there[0]} exists, and medtrans did not write it for this result. Choose another "
            "name for the output, or replace it with --overwrite."
        )


def _own_entries(sidecar: Path, images: list[Path], claim: Claim) -> dict[str, object] | None:
    """Entries of a sidecar that is of this result and of every image that is there."""
    entries = read_sidecar(sidecar)
    if entries is None or not claim.is_met_by(entries, sidecar):
        return None
    hashes = entries.get("FilesSHA256")
    if not isinstance(hashes, dict) or set(hashes) != {image.name for image in images}:
        return None
    unchanged = all(hashes[i.name] == _hash(i) for i in images if _is_taken(i))
    return entries if unchanged else None


def _is_taken(path: Path) -> bool:
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def _hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and hashes of a folder's files."""
    if not path.is_dir():
        return stream.sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{file.relative_to(path)} {stream.sha256(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _location(source: Source, sidecar: Path) -> str:
    way = os.path.relpath(source.path.resolve(), sidecar.parent.resolve())
    return hashlib.sha256(f"{Path(way).as_posix()} {source.series}".encode()).hexdigest()
