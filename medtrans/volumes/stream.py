"""Reading a plain or gzip file in pieces, with the checksum and the length verified first."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medtrans.errors import UnreadableFileError

PIECE = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
# zlib's names for the two containers of a deflate stream, both with a checksum.
GZIP, ZLIB = 31, 15
# Deflate cannot do better than 258 bytes in 2 bits, so a header that declares more is wrong.
MAX_DEFLATE_RATIO = 1032
COMPRESSION = 3
_AGAIN = "Copy, download or convert it again."


def is_gzip(path: Path) -> bool:
    """Whether the content, whatever the name, is gzip."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def head(path: Path, count: int) -> bytes:
    """Return the first `count` bytes of the (inflated) content, fewer if it is shorter.

    Raises
    ------
    UnreadableFileError
        If the compressed stream is damaged before that.
    """
    taken = bytearray()
    for piece in _pieces(path, piece=1 << 14):
        taken += piece
        if len(taken) >= count:
            break
    return bytes(taken[:count])


def verify(path: Path, expected: int, more: int = 0) -> str:
    """Check that the (inflated) content is whole and exactly as long as declared.

    The content is streamed, never held, and inflation stops at the first byte too many.

    Parameters
    ----------
    path
        A plain or gzip file.
    expected
        Length in bytes that the header declares, offset included.
    more
        How many bytes may follow.

    Returns
    -------
    str
        SHA-256 of the file's own bytes.

    Raises
    ------
    UnreadableFileError
        If the content is truncated, damaged, too long or too short.
    """
    verify_part(path, 0, expected, GZIP if is_gzip(path) else None, more)
    return sha256(path)


def verify_part(path: Path, start: int, expected: int, wbits: int | None, more: int = 0) -> None:
    """Check that a file from byte `start` on holds exactly `expected` bytes once inflated.

    Parameters
    ----------
    path, start
        The file, and where in it the content begins.
    expected
        Length in bytes that the header declares.
    wbits
        `GZIP`, `ZLIB`, or None for plain bytes.
    more
        How many bytes may follow.

    Raises
    ------
    UnreadableFileError
        As for `verify`.
    """
    stored = path.stat().st_size - start
    if expected > stored * (MAX_DEFLATE_RATIO if wbits else 1):
        raise _too_short(path, expected, stored)
    if wbits is None:
        if stored > expected + more:
            raise _too_long(path, expected)
        return
    length = 0
    for piece in _pieces(path, start=start, wbits=wbits):
        length += len(piece)
        if length > expected + more:
            raise _too_long(path, expected)
    if length < expected:
        raise _too_short(path, expected, length)


def load(path: Path, offset: int, count: int) -> npt.NDArray[np.uint8]:
    """Read `count` bytes from `offset` of the (inflated) content of a verified file.

    Returns
    -------
    array of uint8, shape (count,)

    Raises
    ------
    UnreadableFileError
        If the file has become shorter since.
    """
    if not is_gzip(path):
        content = np.fromfile(path, dtype=np.uint8, count=count, offset=offset)
        found = len(content)
    else:
        content = np.empty(count, dtype=np.uint8)
        position = -offset
        for piece in _pieces(path):
            start, end = max(position, 0), min(position + len(piece), count)
            if end > start:
                content[start:end] = np.frombuffer(piece, np.uint8)[
                    start - position : end - position
                ]
            position += len(piece)
        found = min(position, count)
    if found != count:
        raise _too_short(path, offset + count, offset + found)
    return content


def write(path: Path, pieces: Iterable[bytes], *, packed: bool) -> None:
    """Write bytes, as gzip where `packed`; the same bytes give the same file.

    Parameters
    ----------
    path
        The file.
    pieces
        Its content, in order.
    """
    with path.open("wb") as file:
        if not packed:
            file.writelines(pieces)
            return
        # No name and no time in the gzip header.
        with gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as archive:
            archive.writelines(pieces)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose bytes are others than a manifest states.

    Parameters
    ----------
    path
        The file.
    expected
        64 lower-case hexadecimal digits.

    Raises
    ------
    UnreadableFileError
        Also when the file cannot be read.
    """
    try:
        found = sha256(path)
    except OSError as error:
        raise UnreadableFileError(
            f"{path}: its sha256 cannot be checked ({error.strerror}). A sha256 is of one file; "
            "leave it empty for a folder."
        ) from None
    if found != expected:
        raise UnreadableFileError(
            f"{path}: its sha256 is {found}, not {expected} as the manifest states. Get the file "
            "again, or correct the manifest."
        )


def _pieces(
    path: Path, piece: int = PIECE, start: int = 0, wbits: int | None = None
) -> Iterator[bytes]:
    """Content in pieces of at most `piece` bytes, inflated and checked where it is packed."""
    if wbits is None and start == 0 and is_gzip(path):
        wbits = GZIP
    with path.open("rb") as file:
        file.seek(start)
        raw = iter(lambda: file.read(piece), b"")
        yield from raw if wbits is None else _inflate(raw, piece, wbits, path)


def _inflate(raw: Iterator[bytes], piece: int, wbits: int, path: Path) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=wbits)
    try:
        for data in raw:
            pending = data
            while pending:
                if inflater.eof:
                    if not pending.strip(b"\0"):
                        break  # gzip allows zero padding after a member
                    inflater = zlib.decompressobj(wbits=wbits)
                yield inflater.decompress(pending, piece)
                pending = inflater.unconsumed_tail or inflater.unused_data
    except zlib.error:
        raise UnreadableFileError(
            f"{path}: the compressed stream is damaged (its checksum or its codes do not fit). "
            f"{_AGAIN}"
        ) from None
    if not inflater.eof:
        raise UnreadableFileError(f"{path}: the compressed stream ends too early. {_AGAIN}")


def _too_short(path: Path, expected: int, length: int) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path}: the header declares {expected} bytes but the file holds only {length}; "
        f"it is truncated or its header is damaged. {_AGAIN}"
    )


def _too_long(path: Path, expected: int) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path}: the file holds more than the {expected} bytes that its header declares; "
        f"the header is damaged or it is no image. {_AGAIN}"
    )
