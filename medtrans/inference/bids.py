"""A cohort's outputs as a derivative of BIDS, the Brain Imaging Data Structure.

Names and files are those of https://bids-specification.readthedocs.io, "BIDS Derivatives".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from medtrans.config.terms import Task
from medtrans.data.naming import bids_entities
from medtrans.errors import OutputError, UsageError
from medtrans.inference.jobs import Job, source_entries
from medtrans.system.atomic import make_folder, replacing
from medtrans.system.names import require_inside
from medtrans.version import __version__
from medtrans.volumes.contrast import to_bids

if TYPE_CHECKING:
    from medtrans.data.manifest import Entry

DESCRIPTION = "dataset_description.json"
_BIDS_VERSION = "1.10.0"
_KEPT = ("acq", "rec", "run")  # entities of the source that hold for what is made of it
_ORDER = ("acq", "ce", "rec", "run")
_GENERATOR = "medtrans"
_README = """\
Every image in this data set is SYNTHETIC and NOT FOR DIAGNOSIS. medtrans made each of them from an
image of another contrast. The JSON beside an image says which model made it, from what, and how.
"""


def bids_jobs(manifest: Path, task: Task, out_dir: Path) -> list[Job]:
    """One job for every volume of the source contrast, named as BIDS names derivatives.

    The result of ``sub-01_ses-2_run-1_T1w.nii.gz`` is
    ``sub-01/ses-2/anat/sub-01_ses-2_run-1_desc-synth_T2w.nii.gz``. Subject and session are the
    manifest's, without the signs that BIDS does not allow.

    Raises
    ------
    ManifestError, UsageError
        When the CSV has a problem or lists no such volume, BIDS has no name for the target
        contrast, or two subjects or sessions would have one name.
    OutputError
        When a link leads an output out of `out_dir`.
    """
    spelt = to_bids(task.target)
    if spelt is None:
        raise UsageError(
            f"BIDS has no name for images of the contrast {task.target}. Leave out --bids."
        )
    suffix, agent = spelt
    entries = source_entries(manifest, task.source)
    return [
        Job(
            entry.path,
            make_folder(_inside(out_dir, place))
            / f"{_stem(entry, place, agent=agent)}_desc-synth_{suffix}.nii.gz",
            kind="nifti",
            series=entry.series,
            sha256=entry.sha256,
        )
        for entry, place in zip(entries, _places(entries), strict=True)
    ]


def save_description(
    out_dir: Path, manifest: Path, jobs: Iterable[Job], *, overwrite: bool
) -> None:
    """Write what BIDS wants to know of a data set: who made it, and of what.

    An earlier description of medtrans' is continued.

    Parameters
    ----------
    out_dir, manifest : Path
    jobs : iterable of Job
        What is translated.
    overwrite : bool
        Replace a description that medtrans did not write.

    Raises
    ------
    OutputError
        When another program described the folder, or it cannot be written to.
    """
    path = out_dir / DESCRIPTION
    earlier = _read(path)
    if path.exists() and not overwrite and not _is_ours(earlier):
        raise OutputError(
            f"{path} exists, and medtrans did not write it. Choose another --out-dir, or replace "
            "it with --overwrite."
        )
    known = list(earlier.get("SourceDatasets", [])) if _is_ours(earlier) else []
    found = _source_datasets((job.path for job in jobs), manifest)
    entries = {
        "Name": "Synthetic volumes made by medtrans, not for diagnosis",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": _GENERATOR, "Version": __version__}],
        "SourceDatasets": [*known, *(source for source in found if source not in known)],
    }
    _write(path, json.dumps(entries, indent=2) + "\n")
    if not (out_dir / "README").exists():
        _write(out_dir / "README", _README)


def _places(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Name the folders of each volume's subject and session; no two may become one."""
    owners: dict[tuple[str, ...], str] = {}
    places = list[tuple[str, ...]]()
    for entry in entries:
        subject = f"sub-{_label(entry.subject, 'sub-')}"
        session = f"ses-{_label(entry.session, 'ses-')}" if entry.session else ""
        whole = f"{entry.subject} {entry.session}".strip()
        for part, owner in (((subject,), entry.subject), ((subject, session), whole)):
            if (other := owners.setdefault(part, owner)) != owner:
                raise UsageError(
                    f"'{other}' and '{owner}' of the manifest would both be {' '.join(part)} in "
                    "BIDS, which allows letters and digits only. Rename one of them."
                )
        places.append((subject, session) if session else (subject,))
    return places


def _label(name: str, prefix: str) -> str:
    label = re.sub(r"[^A-Za-z0-9]", "", name.removeprefix(prefix))
    if not label:
        raise UsageError(
            f"'{name}' of the manifest has neither a letter nor a digit, which BIDS asks for. "
            "Rename it."
        )
    return label


def _stem(entry: Entry, place: tuple[str, ...], *, agent: bool) -> str:
    """Name a result but for what all have, with what the source's name says of how it was made."""
    of_source = bids_entities(PurePosixPath(entry.path.name)) or {}
    entities = {name: of_source[name] for name in _KEPT if name in of_source}
    if agent:
        entities["ce"] = "synthetic"
    return "_".join((*place, *(f"{n}-{entities[n]}" for n in _ORDER if n in entities)))


def _inside(out_dir: Path, place: tuple[str, ...]) -> Path:
    folder = out_dir.joinpath(*place, "anat")
    require_inside(folder, out_dir)
    return folder


def _source_datasets(sources: Iterable[Path], manifest: Path) -> list[dict[str, str]]:
    """Name the BIDS data sets that volumes lie in; those in none count to the manifest's folder."""
    folders = {source.parent for source in sources}
    roots = {_root(folder) or manifest.parent for folder in folders}
    return [_dataset(root) for root in sorted(root.resolve() for root in roots)]


def _root(folder: Path) -> Path | None:
    ways = (folder, *folder.parents)
    return next((way for way in ways if (way / DESCRIPTION).is_file()), None)


def _dataset(root: Path) -> dict[str, str]:
    doi = _read(root / DESCRIPTION).get("DatasetDOI")
    if not isinstance(doi, str):
        return {"URL": root.as_uri()}
    bare = re.sub(r"^(doi:|https?://doi\.org/)", "", doi)
    return {"DOI": bare, "URL": f"https://doi.org/{bare}"}


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    """Read a data set's description; nothing where there is none, or no JSON object."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _is_ours(entries: Mapping[str, Any]) -> bool:
    match entries.get("GeneratedBy"):
        case [{"Name": str(name)}, *_]:
            return name == _GENERATOR
    return False
