"""Slices laid out as a picture, in the radiological convention's orientation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Resampling
from PIL.PngImagePlugin import PngInfo

from medtrans.system.atomic import replacing
from medtrans.volumes import marks

_GAP = 4
_CAPTION = 22
_INK = 235


Rows = Sequence[Sequence[NDArray[np.float32]]]
"""Tiles, each (height, width) in [0, 1], or (height, width, 3) in colour, row by row."""


def save_grid(path: Path, rows: Rows, captions: Sequence[str], scale: int = 1) -> None:
    """Write a PNG of image tiles, as `draw_grid` lays them out."""
    _save(path, draw_grid(rows, captions, scale))


def draw_grid(
    rows: Rows, captions: Sequence[str], scale: int = 1, sides: Sequence[tuple[str, str]] = ()
) -> Image.Image:
    """Lay image tiles out, with captions.

    Parameters
    ----------
    rows : sequence of rows of arrays
        Each (height, width) in [0, 1], or (height, width, 3): red, green, blue; every tile is shown
        upright as given. Tiles of a row may differ in size from those of other rows.
    captions : sequence of str
        One above each column.
    scale : int
        Integer enlargement.
    sides : sequence of (str, str)
        Of each row, what to write at the left and the right of its tiles; empty for nothing.
    """
    tiles = [[_tile(tile, scale) for tile in row] for row in rows]
    widths = [max(row[c].width for row in tiles) for c in range(len(captions))]
    heights = [max(tile.height for tile in row) for row in tiles]
    width = sum(widths) + _GAP * (len(widths) + 1)
    coloured = any(tile.mode == "RGB" for row in tiles for tile in row)
    size = width, sum(heights) + _GAP * (len(heights) + 1) + _CAPTION
    canvas = Image.new("RGB" if coloured else "L", size)
    draw, ink = ImageDraw.Draw(canvas), (_INK, _INK, _INK) if coloured else _INK
    font = ImageFont.load_default(size=14)
    left = _GAP
    for column, caption in enumerate(captions):
        draw.text((left + 2, 3), caption, fill=ink, font=font)
        top = _CAPTION + _GAP
        for number, (row, height) in enumerate(zip(tiles, heights, strict=True)):
            canvas.paste(row[column], (left, top))
            for letter, at in zip(sides[number] if sides else (), (4, -4), strict=False):
                across = left + at + (row[column].width if at < 0 else 0)
                anchor = "lm" if at > 0 else "rm"
                draw.text((across, top + height // 2), letter, fill=ink, font=font, anchor=anchor)
            top += height + _GAP
        left += widths[column] + _GAP
    return canvas


def save_curves(
    path: Path, x: Sequence[float], curves: Mapping[str, Sequence[float]], marked: float
) -> None:
    """Write a PNG of curves with values in [0, 1] over a logarithmic axis.

    Parameters
    ----------
    path : Path
    x : sequence of float
        Above 0, rising.
    curves : mapping
        Name -> values at `x`; the last one is drawn thickest.
    marked : float
        Gets a vertical line.
    """
    width, height, margin = 640, 400, 48
    canvas = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=13)
    low, span = np.log(x[0]), max(float(np.log(x[-1] / x[0])), 1e-9)

    def place(at: float, value: float) -> tuple[float, float]:
        across = margin + (width - 2 * margin) * float(np.log(at) - low) / span
        return across, height - margin - (height - 2 * margin) * value

    draw.line([place(x[0], 1), place(x[0], 0), place(x[-1], 0)], fill=0)
    draw.line([place(marked, 0), place(marked, 1)], fill=190, width=2)
    for at in x:
        across, down = place(at, 0)
        draw.text((across - 8, down + 6), f"{at:g}", fill=0, font=ImageFont.load_default(size=10))
    for number, (name, values) in enumerate(curves.items()):
        last = number == len(curves) - 1
        ink = 0 if last else 90 + 70 * number
        points = [place(*point) for point in zip(x, values, strict=True)]
        draw.line(points, fill=ink, width=4 if last else 2)
        draw.text((margin + 150 * number, 12), name, fill=ink, font=font)
    _save(path, canvas)


def upright(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn a plane of a RAS volume, indexed (right or anterior, anterior or superior), for viewing.

    The second axis points up; the first runs from the viewer's right to left, so that the
    patient's right is on the left, as radiologists hold it.
    """
    return np.flip(plane.T, (0, 1))


def shrink(plane: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
    """Make a plane smaller, if need be, so that its longer side has so many pixels."""
    factor = longest / max(plane.shape)
    if factor >= 1:
        return plane
    height, width = (max(round(side * factor), 1) for side in plane.shape)
    small = Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def encode(canvas: Image.Image) -> bytes:
    """Give the bytes of a PNG that says that medtrans made it."""
    facts = PngInfo()
    name, _, value = marks.PNG.decode().partition("\0")
    facts.add_text(name, value)
    written = BytesIO()
    canvas.save(written, format="PNG", pnginfo=facts)
    return written.getvalue()


def at_most(png: bytes, most: int) -> bytes:
    """Make a picture smaller, half the size at a time, until its file has so few bytes."""
    while len(png) > most:
        with Image.open(BytesIO(png)) as image:
            png = encode(image.resize((image.width // 2, image.height // 2), Resampling.BOX))
    return png


def _save(path: Path, canvas: Image.Image) -> None:
    with replacing(path) as partial:
        partial.write_bytes(encode(canvas))


def _tile(values: NDArray[np.float32], scale: int) -> Image.Image:
    grey = (np.clip(np.nan_to_num(values), 0, 1) * 255).round().astype(np.uint8)
    tile = Image.fromarray(grey)
    return tile.resize((tile.width * scale, tile.height * scale), Resampling.BICUBIC)
