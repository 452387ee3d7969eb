"""`medtrans bundle check`: whether a folder is a bundle that MONAI's tools accept.

The first checks only read. MONAI's own tools evaluate what a bundle's configs say, so they are
run on configs that are, byte for byte, those medtrans writes; others only when they are trusted.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import nn

from medtrans.errors import MedtransError, PackageError
from medtrans.package.bundle_files import config_texts
from medtrans.package.folder import (
    CARD,
    INFERENCE,
    LICENSE,
    METADATA,
    STATE_DICT,
    TRAIN,
    WEIGHTS,
    read_metadata,
)
from medtrans.package.store import load_package

FILES = (METADATA, INFERENCE, TRAIN, STATE_DICT, WEIGHTS, LICENSE, CARD)
METADATA_KEYS = (
    "version",
    "changelog",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
)
"""The mandatory keys of MONAI's bundle specification, and the zoo's changelog."""
TENSOR_KEYS = (
    "type",
    "format",
    "modality",
    "num_channels",
    "spatial_shape",
    "dtype",
    "value_range",
    "is_patch_data",
    "channel_def",
)
LARGEST_BYTES = 25_000_000  # of a file in MONAI's model zoo

_NAME = re.compile(r"[a-z0-9]+(_[A-Za-z0-9]+)*")
_TOLERANCE = 1e-4
_EVALUATED = ("$", "%", "@")


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes
    ----------
    check : str
        What was checked.
    result : {"ok", "failed", "skipped"}
    detail : str
        What there is, what is wrong, or why it was not looked at.
    """

    check: str
    result: Literal["ok", "failed", "skipped"]
    detail: str


def check(folder: Path, *, trust: bool = False) -> list[Check]:
    """Run every check.

    Parameters
    ----------
    folder : Path
    trust : bool
        Let MONAI evaluate configs that are not those medtrans writes. That runs their code.

    Returns
    -------
    list of Check
        First those that only read, then those that run MONAI's tools.

    Raises
    ------
    PackageError
        When there is no model package at all.
    """
    if not (folder / METADATA).is_file():
        raise PackageError(f"{folder} is not a bundle: it has no {METADATA}.")
    with _quiet():
        return _run(folder.resolve(), trust)


def _run(folder: Path, trust: bool) -> list[Check]:
    rows = [_try(name, test, folder) for name, test in _READING.items()]
    if not trust and any(row.result != "ok" for row in rows):
        reason = "not run: the checks above must hold first, or add --trust to run its code"
        return rows + [Check(name, "skipped", reason) for name in _RUNNING]
    return rows + [_try(name, test, folder) for name, test in _RUNNING.items()]


def metadata_problems(metadata: Mapping[str, object]) -> list[str]:
    """List what MONAI's bundle specification asks of metadata.json and is not there.

    Parameters
    ----------
    metadata : mapping
        The content of a package's metadata.json.
    """
    problems = [f"{key} is missing" for key in METADATA_KEYS if key not in metadata]
    for name in (key for key in metadata if key.endswith("_data_format")):
        for side in ("inputs", "outputs"):
            tensors = _table(_table(metadata[name]).get(side))
            problems += [] if tensors else [f"{name} has no {side}"]
            problems += [
                f"{name}.{side}.{tensor}.{key} is missing"
                for tensor, facts in tensors.items()
                for key in TENSOR_KEYS
                if key not in _table(facts)
            ]
    return problems


def _table(value: object) -> Mapping[str, object]:
    """Return a mapping as it is, and anything else as one that lacks every key."""
    return value if isinstance(value, Mapping) else {}


def _layout(folder: Path) -> str:
    missing = [str(path) for path in FILES if not (folder / path).is_file()]
    _require(not missing, f"{', '.join(missing)} missing")
    _require(_NAME.fullmatch(folder.name), f"the name '{folder.name}' is not like brain_mri")
    return f"{len(FILES)} required files"


def _sizes(folder: Path) -> str:
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    largest = max(sizes, key=sizes.__getitem__)
    _require(sizes[largest] <= LARGEST_BYTES, f"{largest.name} is above 25 MB")
    return f"largest is {largest.name}, {sizes[largest] / 1e6:.1f} MB"


def _metadata(folder: Path) -> str:
    metadata = read_metadata(folder)
    problems = metadata_problems(metadata)
    _require(not problems, "; ".join(problems))
    return f"{len(METADATA_KEYS)} required keys, {len(TENSOR_KEYS)} for each tensor"


def _version(folder: Path) -> str:
    metadata = read_metadata(folder)
    version = metadata["version"]
    _require(version in metadata["changelog"], f"{version} is not in the changelog")
    return str(version)


def _weights(folder: Path) -> str:
    return f"sha256 {load_package(folder).sha256[:12]}"


def _state_dict(folder: Path) -> str:
    """Compare model.pt, read without unpickling anything, with the weights medtrans loads."""
    try:
        tensors = torch.load(folder / STATE_DICT, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged or malicious files
        raise PackageError(f"refused by weights_only ({type(error).__name__})") from None
    expected = load_file(folder / WEIGHTS)
    _require(isinstance(tensors, dict) and tensors.keys() == expected.keys(), "other tensors")
    same = all(torch.equal(tensors[key], expected[key]) for key in expected)
    _require(same, "its numbers differ from model.safetensors")
    return f"{len(expected)} tensors, equal"


def _inert(folder: Path) -> str:
    """See that MONAI would evaluate nothing but what medtrans wrote."""
    package = load_package(folder)
    texts = config_texts(package.pipeline, has_noise=package.noise is not None)
    changed = [str(p) for p, text in texts.items() if _read(folder / p) != text]
    _require(not changed, f"{', '.join(changed)} changed: look for _target_ and $ in it")
    known = {folder / path for path in (METADATA, *texts)}
    others = [p.name for p in (folder / "configs").iterdir() if p not in known]
    _require(not others, f"configs/ also has {', '.join(sorted(others))}")
    # MONAI searches metadata.json for import statements too.
    evaluated = list(_evaluated(read_metadata(folder)))
    _require(not evaluated, f"metadata.json holds {', '.join(evaluated)}")
    return f"{len(texts)} files"


def _evaluated(value: object) -> Iterator[str]:
    """Yield the strings and keys that MONAI's parser would act on."""
    if isinstance(value, Mapping):
        yield from (key for key in value if key == "_target_")
        for item in value.values():
            yield from _evaluated(item)
    elif isinstance(value, list):
        for item in value:
            yield from _evaluated(item)
    elif isinstance(value, str) and value.startswith(_EVALUATED):
        yield repr(value[:40])


def _net_in_out(folder: Path) -> str:
    from monai.bundle import verify_net_in_out

    verify_net_in_out(
        "network_def", str(folder / METADATA), str(folder / INFERENCE), device="cpu", n=2
    )
    return "input and output shapes as metadata.json says"


def _properties(folder: Path, config: Path, kind: str) -> str:
    from monai.bundle import create_workflow

    workflow = create_workflow(
        config_file=str(folder / config),
        workflow_type=kind,
        logging_file=False,
        bundle_root=str(folder),
        device="cpu",
    )
    missing = workflow.check_properties()
    _require(not missing, f"missing: {missing}")
    return "none missing"


def _load(folder: Path) -> str:
    network = _loaded(folder)
    expected = load_file(folder / WEIGHTS)
    _require(network.state_dict().keys() == expected.keys(), "other tensors")
    return type(network).__name__


def _loaded(folder: Path) -> nn.Module:
    from monai.bundle import load

    # Where the file is missing, MONAI would look for a model of this name on the internet.
    _require((folder / STATE_DICT).is_file(), f"{STATE_DICT} is missing")
    network: nn.Module = load(
        folder.name, bundle_dir=folder.parent, device="cpu", workflow_type="inference"
    )
    return network


def _torchscript(folder: Path) -> str:
    """Export with tracing, and compare on a size the trace was not made with."""
    from monai.bundle import ckpt_export

    package = load_package(folder)
    network = _loaded(folder).eval()
    with tempfile.TemporaryDirectory() as place:
        traced_file = Path(place) / "model.ts"
        ckpt_export(
            "network_def",
            str(traced_file),
            str(folder / STATE_DICT),
            str(folder / METADATA),
            str(folder / INFERENCE),
            use_trace=True,
            bundle_root=str(folder),
        )
        read_traced: Callable[[str], nn.Module] = torch.jit.load
        traced = read_traced(str(traced_file))
    side = 3 * package.pipeline.network.stride
    stack = torch.rand(2, package.pipeline.slices.stack, side, 2 * side) * 2 - 1
    with torch.inference_mode():
        error = float((traced(stack) - network(stack)).abs().max())
    _require(error <= _TOLERANCE, f"the traced slice differs by {error:.1e}")
    return f"the traced slice differs by {error:.1e}"


_READING: dict[str, Callable[[Path], str]] = {
    "layout": _layout,
    "file sizes": _sizes,
    "metadata keys": _metadata,
    "version in changelog": _version,
    "weights and recipe": _weights,
    "model.pt": _state_dict,
    "configs are as medtrans writes them": _inert,
}
_RUNNING: dict[str, Callable[[Path], str]] = {
    "verify_net_in_out": _net_in_out,
    "inference properties": lambda folder: _properties(folder, INFERENCE, "infer"),
    "train properties": lambda folder: _properties(folder, TRAIN, "train"),
    "monai.bundle.load": _load,
    "ckpt_export": _torchscript,
}


def _try(name: str, test: Callable[[Path], str], folder: Path) -> Check:
    try:
        return Check(name, "ok", test(folder))
    except MedtransError as error:
        return Check(name, "failed", str(error))
    except Exception as error:  # whatever MONAI or a strange file raises fails this check only
        text = (str(error).splitlines() or [""])[0]
        return Check(name, "failed", f"{type(error).__name__}: {text}")


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise PackageError(otherwise)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MONAI's log lines and warnings from the output, which is data."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
