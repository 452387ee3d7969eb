"""The text headers of MetaImage (MHA, MHD) and NRRD, checked before any library opens the file.

Only what decides the size and place of the voxel bytes is read here; SimpleITK, which opens
truncated files without a word, does the rest.
Sources: the MetaIO documentation of ITK, and teem's "Definition of NRRD File Format".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medtrans.errors import GeometryError, UnreadableFileError
from medtrans.volumes import geometry, stream
from medtrans.volumes.source import require_file

MAX_HEADER_BYTES = 1 << 16
META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
_NRRD_NAMES = {
    1: "signed char|int8|int8_t|uchar|unsigned char|uint8|uint8_t",
    2: "short|short int|signed short|signed short int|int16|int16_t|ushort|unsigned short|"
    "unsigned short int|uint16|uint16_t",
    4: "int|signed int|int32|int32_t|uint|unsigned int|uint32|uint32_t|float",
    8: "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t|"
    "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t|double",
}
NRRD_BYTES = {name: size for size, names in _NRRD_NAMES.items() for name in names.split("|")}
_META_KEY = re.compile(r"\s*[\w.:|-]+(\[\d+\])?\s*", re.ASCII)  # dim[0] comes from a NIfTI header
_AGAIN = "Convert it again, to NIfTI or to a plain MHA or NRRD file."


@dataclass(frozen=True)
class ItkHeader:
    """Where the voxels are, what is odd about the header, and which reader of ITK's it is for."""

    reader: str
    shape: tuple[int, ...]
    itemsize: int
    data: Path
    offset: int
    wbits: int | None
    warnings: tuple[str, ...]

    def verify(self) -> None:
        """Refuse a file whose voxel bytes are not exactly what the header declares."""
        count = math.prod(self.shape) * self.itemsize
        stream.verify_part(self.data, self.offset, count, self.wbits)


def read_header(path: Path) -> ItkHeader:
    """Read and check the header of an MHA, MHD, NRRD or NHDR file.

    Raises
    ------
    UnreadableFileError
        If it is damaged, or declares what medtrans does not read.
    GeometryError
        If the shape is no volume's, or too large.
    """
    with path.open("rb") as file:
        block = file.read(MAX_HEADER_BYTES)
    header = _nrrd(block, path) if block.startswith(b"NRRD") else _meta(block, path)
    if not 2 <= len(header.shape) <= 4:
        raise GeometryError(
            f"{path}: expected 2 or 3 axes, or 4 with time, found the shape "
            f"{geometry.grid(header.shape)}. Split the file into scalar 3D volumes."
        )
    geometry.check_size(header.shape, header.itemsize, str(path))
    return header


def _meta(block: bytes, path: Path) -> ItkHeader:
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        end = block.find(b"\n", position)
        line = block[position : max(end, 0)].decode("latin-1")
        position = end + 1
        if end >= 0 and not line.strip():
            continue  # ITK ends what it cannot spell, such as a matrix, with an empty line
        key, equals, value = line.partition("=")
        if end < 0 or not equals or not _META_KEY.fullmatch(key) or key.strip() in fields:
            raise _damaged(path, "a line of the MetaImage header is no 'key = value'")
        fields[key.strip()] = value.strip()
    _expect(path, fields, "ObjectType", ("Image",))
    _expect(path, fields, "BinaryData", ("True",))
    _expect(path, fields, "ElementNumberOfChannels", ("1", None))
    _expect(path, fields, "HeaderSize", ("0", None))
    itemsize = _itemsize(path, META_BYTES, fields.get("ElementType", ""), "ElementType")
    packed = _expect(path, fields, "CompressedData", ("True", "False", None)) == "True"
    name = fields["ElementDataFile"]
    attached = name == "LOCAL"
    data = path if attached else _beside(path, name)
    offset = position if attached else 0
    _expect(path, fields, "CompressedDataSize", (str(data.stat().st_size - offset), None))
    return ItkHeader(
        reader="MetaImageIO",
        shape=_sizes(path, fields, "DimSize", "NDims"),
        itemsize=itemsize,
        data=data,
        offset=offset,
        wbits=stream.ZLIB if packed else None,
        warnings=() if "TransformMatrix" in fields else (_no_directions(path),),
    )


def _nrrd(block: bytes, path: Path) -> ItkHeader:
    end = min((i + n for mark, n in ((b"\n\n", 2), (b"\r\n\r\n", 4))
               if (i := block.find(mark)) >= 0), default=0)  # fmt: skip
    detached = not end
    lines = block[: end or len(block)].decode("latin-1").splitlines()[1:]
    fields: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not line or line.startswith("#") or value.startswith("="):
            continue
        if not colon:
            raise _damaged(path, "a line of the NRRD header is no 'field: value'")
        fields[key.strip().lower()] = value.strip()
    for skip in ("line skip", "lineskip", "byte skip", "byteskip"):
        _expect(path, fields, skip, ("0", None))
    name = fields.get("data file", fields.get("datafile"))
    if detached and name is None:
        raise _damaged(path, "the NRRD header does not end")
    encodings = ("raw", "gzip", "gz")
    packed = _expect(path, fields, "encoding", encodings) != "raw"
    return ItkHeader(
        reader="NrrdImageIO",
        shape=_sizes(path, fields, "sizes", "dimension"),
        itemsize=_itemsize(path, NRRD_BYTES, fields.get("type", ""), "type"),
        data=path if name is None else _beside(path, name),
        offset=end if name is None else 0,
        wbits=stream.GZIP if packed else None,
        warnings=() if "space directions" in fields else (_no_directions(path),),
    )


def _no_directions(path: Path) -> str:
    return f"{path}: no axis directions are stored, so left and right are assumed, not known."


def _beside(path: Path, name: str) -> Path:
    """Find a detached data file: only beside its header, never anywhere else on the disk."""
    data = path.with_name(Path(name).name) if name else path
    if Path(name).name != name or data == path or "%" in name or name.startswith("LIST"):
        raise _damaged(path, "its voxels are not in one file beside it")
    require_file(data)
    return data


def _expect(
    path: Path, fields: Mapping[str, str], key: str, allowed: tuple[str | None, ...]
) -> str | None:
    value = fields.get(key)
    if value not in allowed:
        values = " or ".join(v for v in allowed if v is not None)
        raise _damaged(path, f"the header field {key!r} is not {values}")
    return value


def _itemsize(path: Path, known: Mapping[str, int], name: str, key: str) -> int:
    if name not in known:
        raise _damaged(path, f"the header field {key!r} is no plain integer or float type")
    return known[name]


def _sizes(path: Path, fields: Mapping[str, str], key: str, count_key: str) -> tuple[int, ...]:
    texts = fields.get(key, "").split()
    if str(len(texts)) != fields.get(count_key) or not all(
        t.isascii() and t.isdigit() and len(t) < 12 for t in texts
    ):
        raise _damaged(path, f"the header fields {key!r} and {count_key!r} do not fit")
    return tuple(int(t) for t in texts)


def _damaged(path: Path, what: str) -> UnreadableFileError:
    return UnreadableFileError(f"{path}: {what}; the file is damaged or unusual. {_AGAIN}")
