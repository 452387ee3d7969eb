"""Size of the image in a JPEG, JPEG-LS or JPEG 2000 codestream, from its header alone.

Sources: ITU-T T.81 (JPEG) annex B, T.87 (JPEG-LS) annex C, T.800 (JPEG 2000) annex A.
"""

from __future__ import annotations

import struct

_JPEG_2000 = b"\xff\x4f\xff\x51"
# Start-of-frame markers: baseline to lossless, without the three that are something else.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a codestream declares; None if it is of another kind or damaged."""
    try:
        if data.startswith(_JPEG_2000):
            right, bottom, left, top = struct.unpack_from(">4I", data, 8)
            return bottom - top, right - left
        return _jpeg_size(data) if data.startswith(b"\xff\xd8") else None
    except struct.error:
        return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position = 2
    while True:
        mark, marker, length = struct.unpack_from(">BBH", data, position)
        if mark != 0xFF or marker == 0xDA:  # not a marker, or the scan without a frame before it
            return None
        if marker in _FRAME_MARKERS:
            rows, columns = struct.unpack_from(">HH", data, position + 5)
            return rows, columns
        position += 2 + length
