"""Refuses files of so many parts that merely opening them would take seconds.

Pillow reads the parts of a file in Python, one by one: segments of a JPEG, chunks of a PNG, values
of a TIFF's tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from shashin.errors import PhotoTooLarge
from shashin.photos import jpeg
from shashin.photos.exif import check_tags

MAX_PARTS = 20_000
"""Ordinary photos have up to a few hundred; PNGs may come in thousands of chunks of 8 KB."""

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF, _MULTI_PICTURE = b"Exif\0\0", b"MPF\0"


def check_parts(data: bytes) -> None:
    """Check how many parts a photo has.

    Raises:
        PhotoTooLarge: when there are too many.
    """
    if data.startswith(jpeg.START):
        _check_count(jpeg.header_segments(data), "segments")
        _check_jpeg_tags(data)
    elif data.startswith(_PNG):
        _check_count(_png_chunks(data), "chunks")
    elif data[:2] in {b"II", b"MM"}:
        check_tags(data)


def _check_jpeg_tags(data: bytes) -> None:
    """Check the EXIF data, which may be in several segments, and the index of an MPO file."""
    exif = b""
    for _, body in jpeg.header_segments(data):
        if body.startswith(_EXIF):
            exif += body[len(_EXIF) :]
        elif body.startswith(_MULTI_PICTURE):
            check_tags(body[len(_MULTI_PICTURE) :], "its index of pictures")
    check_tags(exif, "its EXIF data")


def _check_count(parts: Iterable[object], name: str) -> None:
    if sum(1 for _ in islice(parts, MAX_PARTS + 1)) > MAX_PARTS:
        raise PhotoTooLarge(
            f"the photo has more than {MAX_PARTS} {name}: save it again, in any editor"
        )


def _png_chunks(data: bytes) -> Iterator[int]:
    at = len(_PNG)
    while at + 8 <= len(data):
        yield at
        at += 12 + int.from_bytes(data[at : at + 4])
