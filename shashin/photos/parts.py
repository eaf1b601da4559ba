"""Refuses files of so many parts that merely opening them would take seconds.

Pillow reads the parts of a file in Python, one by one: segments of a JPEG, chunks of a PNG, values
of a TIFF's tags.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice

from shashin.errors import PhotoTooLarge
from shashin.photos import jpeg

MAX_PARTS = 20_000
"""Ordinary photos have up to a few hundred; PNGs may come in thousands of chunks of 8 KB."""

MAX_TAG_VALUES = 200_000
"""A TIFF of 50 megapixels has an offset and a size for each of up to 65,500 rows."""

_PNG = b"\x89PNG\r\n\x1a\n"
_BYTES = frozenset({1, 2, 6, 7})
"""Types of tags that are read as a whole."""


def check_parts(data: bytes) -> None:
    """Check how many parts a photo has.

    Raises:
        PhotoTooLarge: when there are too many.
    """
    try:
        if data.startswith(jpeg.START):
            parts, most, name = jpeg.header_segments(data), MAX_PARTS, "segments"
        elif data.startswith(_PNG):
            parts, most, name = _png_chunks(data), MAX_PARTS, "chunks"
        elif data[:2] in {b"II", b"MM"}:
            parts, most, name = _tiff_values(data), MAX_TAG_VALUES, "values in its tags"
        else:
            return
        found = _count(parts, most)
    except struct.error:
        return  # it is cut short, which Pillow names
    if found > most:
        raise PhotoTooLarge(f"the photo has more than {most} {name}: save it again, in any editor")


def _count(parts: Iterable[object], most: int) -> int:
    return sum(1 for _ in islice(parts, most + 1))


def _png_chunks(data: bytes) -> Iterator[int]:
    at = len(_PNG)
    while at + 8 <= len(data):
        yield at
        at += 12 + int.from_bytes(data[at : at + 4])


def _tiff_values(data: bytes) -> Iterator[int]:
    """Yield a number for each value in the first image's tags."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    at = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
    entries = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)[0]
    at += 8 if big else 2
    for _ in range(entries):
        _, kind, count = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHI", data, at)
        yield from range(1 if kind in _BYTES else count)
        at += 20 if big else 12
