"""EXIF data: the one thing that is needed of it, and whether reading it is safe.

Pillow copies the value of every tag when it opens a photo, and values may overlap: a file of some
megabytes could take any memory.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from shashin.errors import PhotoTooLarge

MAX_TAG_VALUES = 200_000
"""A TIFF of 50 megapixels has an offset and a size for each of up to 65,500 rows."""

MAX_TAGS = 2_000
"""Cameras write fewer than a hundred."""

_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
"""Bytes per value, by type."""
_READ_AS_A_WHOLE = frozenset({1, 2, 6, 7})
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_MAX_RAW_PROFILE = 256 * 1024


class _Tag(NamedTuple):
    number: int
    kind: int
    values: int
    value_at: int
    """Where its value is, if it fits into the tag."""


def _tags(data: bytes) -> Iterator[_Tag]:
    """Yield the tags of a TIFF's first directory.

    Raises:
        struct.error: when the data ends before.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    at = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
    if at > len(data):  # by how much, no C type may have room for
        raise struct.error("the first directory is beyond the data")
    entries = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, at)[0]
    at += 8 if big else 2
    for _ in range(entries):
        number, kind, count = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHI", data, at)
        yield _Tag(number, kind, count, at + (12 if big else 8))
        at += 20 if big else 12


def check_tags(data: bytes, what: str = "its tags") -> None:
    """Check what the tags of a TIFF, or of EXIF data, take to read.

    Raises:
        PhotoTooLarge: when there are too many values, or more bytes of them than there are.
    """
    values = size = 0
    try:
        for count, tag in enumerate(_tags(_without_prefix(data)), start=1):
            values += 1 if tag.kind in _READ_AS_A_WHOLE else tag.values
            size += _SIZES.get(tag.kind, 0) * tag.values
            if count > MAX_TAGS:
                raise _too_large(f"more than {MAX_TAGS} tags", what)
            if values > MAX_TAG_VALUES:
                raise _too_large(f"more than {MAX_TAG_VALUES} values", what)
            if size > 2 * len(data) + 64 * 1024:
                raise _too_large("more bytes than there are", what)
    except struct.error:
        return  # it is cut short, which Pillow names


def _too_large(found: str, what: str) -> PhotoTooLarge:
    return PhotoTooLarge(f"the photo has {found} in {what}: save it again, in any editor")


def orientation(info: Mapping[Any, Any]) -> int:
    """Return how a photo with this ``info`` of Pillow is to be turned: 1 to 8; 1 if unknown."""
    found = _orientation_of(_without_prefix(_exif_of(info)))
    if found is None:
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
        in_xmp = _XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else bytes(xmp))
        found = int(in_xmp[1]) if in_xmp else 1
    return found if 1 <= found <= 8 else 1


def _exif_of(info: Mapping[Any, Any]) -> bytes:
    exif = info.get("exif")
    if isinstance(exif, bytes):
        return exif
    # Of a PNG: its length in a line, then lines of hexadecimal digits.
    raw = info.get("Raw profile type exif")
    if not isinstance(raw, str) or len(raw) > _MAX_RAW_PROFILE:
        return b""
    try:
        return bytes.fromhex("".join(raw.split("\n")[3:]))
    except ValueError:
        return b""


def _without_prefix(data: bytes) -> bytes:
    return data.removeprefix(_PREFIX)


def _orientation_of(data: bytes) -> int | None:
    if data[:2] not in {b"II", b"MM"}:
        return None
    try:
        for tag in _tags(data):
            if tag.number == _ORIENTATION:
                short = struct.unpack_from("<H" if data[:2] == b"II" else ">H", data, tag.value_at)
                return int(short[0]) if tag.kind == 3 else None
    except struct.error:
        pass
    return None
