"""FreeSurfer's MGH and MGZ (gzipped MGH), in and out.

As in ``nifti``, the header's own bytes are checked first, then the length and checksum of the whole
content, and only then is anything of the declared size allocated. What follows the voxels (times
of the sequence, colour table, history of commands: free text) is bounded and not read.
Layout: FreeSurfer's MghFormat page; nibabel's header class has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

from medtrans.errors import OutputError, UnreadableFileError
from medtrans.system.atomic import replacing
from medtrans.volumes import geometry, stream
from medtrans.volumes.contrast import from_name
from medtrans.volumes.geometry import Affine
from medtrans.volumes.nifti_fields import choose_volume
from medtrans.volumes.provenance import Provenance
from medtrans.volumes.sidecar import Claim, sidecar_of, write_sidecar
from medtrans.volumes.source import Source, require_file, split_suffix, unreadable_on_error
from medtrans.volumes.voxels import Loaded, Stored, in_file_order, to_float32

OFFSET = 284  # of the voxels
MAX_FOOTER_BYTES = 1 << 20
GRID_FIELDS = ("dims", "goodRASFlag", "delta", "Mdc", "Pxyz_c")
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_TIMES = bytes(20)  # TR, flip angle, TE, TI and field of view: nothing was acquired
_COMMAND_TAG = 3  # a line of the history


@dataclass(frozen=True)
class _Header:
    fields: MGHHeader
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    affine: Affine
    warnings: tuple[str, ...]


def read(path: Path, volume: int | None = None) -> Loaded:
    """Read an MGH or MGZ file into voxels in the file's own axis order.

    Parameters
    ----------
    path
        ``.mgh``, or gzipped ``.mgz``; the content decides, not the name.
    volume
        Which one, counted from 0, of a file with several frames.

    Returns
    -------
    Loaded
        Voxels float32 of shape (X, Y, Z); affine to RAS+ mm.

    Raises
    ------
    UnreadableFileError, GeometryError
        If the file is damaged, places no voxel, or has several volumes and none is chosen.
    """
    require_file(path)
    with unreadable_on_error(path):
        header = read_header(path)
        index, count = choose_volume(header.shape, volume, path)
        size = int(np.prod(header.shape[:3], dtype=np.int64)) * header.dtype.itemsize
        digest = stream.verify(path, OFFSET + size * count, MAX_FOOTER_BYTES)
        content = stream.load(path, OFFSET + index * size, size)
        stored = content.view(header.dtype).reshape(header.shape[:3], order="F")
        array, warnings = to_float32(stored, 1.0, 0.0, str(path))
    source = Source(
        path=path,
        kind="mgh",
        sha256=digest,
        shape=header.shape[:3],
        affine=tuple(header.affine.ravel().tolist()),
        header=_grid_only(header.fields),
        warnings=(*header.warnings, *warnings),
        contrast=from_name(split_suffix(path)[0]),
    )
    return Loaded(array, header.affine, source, str(header.dtype.newbyteorder("=")))


def read_header(path: Path) -> _Header:
    """Read and check a header, and nothing behind it.

    Raises
    ------
    UnreadableFileError, GeometryError
        As for `read`.
    """
    block = stream.head(path, OFFSET)
    fields = MGHHeader(block, check=False) if len(block) == OFFSET else None
    if fields is None or int(fields["version"]) != 1 or int(fields["type"]) not in _DTYPES:
        raise UnreadableFileError(
            f"{path}: expected an MGH header of {OFFSET} bytes, of version 1, with voxels of 8- to "
            "32-bit integers or 32-bit floats, found none. The file is damaged or of another "
            "format: convert it again with FreeSurfer's mri_convert."
        )
    dtype = np.dtype(_DTYPES[int(fields["type"])])
    dims = tuple(int(n) for n in fields["dims"])
    geometry.check_size(dims, dtype.itemsize, str(path))
    placed = block[28:30] != b"\0\0"  # nibabel has put its default there by now
    affine = np.asarray(fields.get_affine(), dtype=np.float64)
    geometry.check_affine(affine, str(path))
    warnings = [] if placed else [
        f"{path}: the header states no directions, so left and right, and a spacing of 1 mm, are "
        "assumed, not known."
    ]  # fmt: skip
    shape = dims if dims[3] > 1 else dims[:3]
    return _Header(fields, shape, dtype, affine, tuple(warnings))


def write(voxels: Stored, path: Path, source: Source, provenance: Provenance) -> list[Path]:
    """Write voxels as ``.mgh`` or ``.mgz``, labelled synthetic, with a JSON sidecar.

    Parameters
    ----------
    voxels
        Shape (X, Y, Z); integers become the smallest of the format's integers that holds their
        type, everything else float32.
    path
        ``.mgh`` or ``.mgz``.
    source
        Whose grid the voxels lie on. An MGH source gives its spacing, directions and centre bit
        for bit; another kind gives its affine, rounded to 32 bits.
    provenance
        The label: it becomes the one line of the file's history.

    Returns
    -------
    list of Path
        The image and the sidecar.

    Raises
    ------
    OutputError
        If the file cannot be written, or cannot hold the grid.
    """
    fields = source.header if isinstance(source.header, MGHHeader) else _placed(source, path)
    header = fields.copy()
    header.set_data_dtype(_output_type(voxels.dtype))
    block = header.binaryblock[:90].ljust(OFFSET, b"\0")
    data = in_file_order(np.asarray(voxels, dtype=header.get_data_dtype()))
    sidecar = sidecar_of(path, "mgh")
    with replacing(path) as temporary, replacing(sidecar) as label:
        packed = split_suffix(path)[1] != ".mgh"
        content = chain([block], data, [_TIMES, _history(provenance.label())])
        stream.write(temporary, content, packed=packed)
        claim = Claim.of(source, provenance)
        write_sidecar(label, provenance, sidecar, claim, {path: temporary})
    return [path, sidecar]


def _history(line: str) -> bytes:
    text = line.encode("ascii") + b"\0"
    return _COMMAND_TAG.to_bytes(4, "big") + len(text).to_bytes(8, "big") + text


def _output_type(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    integers = ("u1", "i2", "u2", "i4") if dtype.kind in "iub" else ()
    return np.dtype(next((name for name in integers if np.can_cast(dtype, name)), "f4"))


def _grid_only(fields: MGHHeader) -> MGHHeader:
    """Return a new header with the fields that place the voxels and nothing else."""
    clean = MGHHeader()
    for name in GRID_FIELDS:
        clean[name] = fields[name]
    clean["dims"][3] = 1
    return clean


def _placed(source: Source, path: Path) -> MGHHeader:
    """Make a header that places voxels as a source of another kind does."""
    affine, shape = source.affine_matrix, (*source.shape, 1)[:3]
    header = MGHHeader()
    header["dims"] = (*shape, 1)
    header["goodRASFlag"] = 1
    header["delta"] = spacing = geometry.spacing_mm(affine)
    header["Mdc"] = (affine[:3, :3] / spacing).T
    header["Pxyz_c"] = affine[:3, :3] @ np.array(shape) / 2 + affine[:3, 3]
    moved = geometry.corner_distance_mm(header.get_affine(), affine, shape)
    if geometry.is_sheared(affine) or moved > geometry.SAME_GRID_MM:
        raise OutputError(
            f"{path}: an MGH file cannot hold the grid of this input (it is sheared, or far from "
            "the origin). Ask for nifti output."
        )
    return header
