"""Reads the photos of a query, from wherever callers have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import cast

from shashin.client.query import Image, Part, PhotoFile, PhotoInput, Query, ReadPart
from shashin.codecs.limits import MAX_PHOTO_BYTES
from shashin.errors import InvalidQuery, PhotoEmpty, PhotoMissing, PhotoTooLarge, UserError


def photos_read(query: Query) -> list[ReadPart]:
    """Return the parts of a query with their photos read: one for the query itself, then its ``parts``.

    Raises:
        PhotoMissing, PhotoEmpty, PhotoTooLarge, UserError: if a photo cannot be read or sent.
    """
    own = Part(query.photo, query.vector, query.listing_id, query.crop)
    named = [("photo", own), *((f"parts[{n}].photo", part) for n, part in enumerate(query.parts))]
    return [
        ReadPart(
            None if part.photo is None else photo_bytes(part.photo, name),
            part.vector,
            part.listing_id,
            part.crop,
            part.weight,
        )
        for name, part in named
    ]


def photo_bytes(photo: PhotoInput, name: str = "photo") -> bytes:
    """Return the bytes of a photo, at most 16 MiB; ``name`` is what errors call it.

    Raises:
        PhotoMissing: if no file has its path.
        UserError: if its file cannot be read.
        PhotoEmpty: if it has no bytes.
        PhotoTooLarge: if it has more than 16 MiB.
        InvalidQuery: if it is nothing that a photo can be.
    """
    # One byte more shows that it is too large, without reading the rest.
    data = _read(photo, name, MAX_PHOTO_BYTES + 1)
    if not data:
        raise PhotoEmpty(f"{name} is empty; expected an image file")
    if len(data) > MAX_PHOTO_BYTES:
        raise PhotoTooLarge(
            f"{name} has more than {MAX_PHOTO_BYTES} bytes; expected at most {MAX_PHOTO_BYTES}: send a "
            "smaller one, 256 pixels on the short side is enough"
        )
    return data


def _read(photo: PhotoInput, name: str, limit: int) -> bytes:
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return bytes(memoryview(photo).cast("B")[:limit])
    if isinstance(photo, (str, os.PathLike)):
        return _file(Path(photo), name, limit)
    if callable(getattr(photo, "read", None)):
        return _all(cast("PhotoFile", photo).read, name, limit)
    if callable(getattr(photo, "save", None)):
        written = BytesIO()
        cast("Image", photo).save(written, format="PNG")
        return written.getvalue()
    raise InvalidQuery(
        f"{name} is a {type(photo).__name__}; expected bytes, the path of a file, an open file or an image "
        "with a method save",
        field=name,
    )


def _file(path: Path, name: str, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        raise PhotoMissing(f"{name}={str(path)!r}: no such file") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{name}={str(path)!r}: {why.lower()}") from None


def _all(read: Callable[[int], bytes], name: str, limit: int) -> bytes:
    """Read until the end or the limit: a file that is not buffered may return less than was asked for."""
    found = bytearray()
    while len(found) < limit and (piece := read(limit - len(found))):
        if not isinstance(piece, bytes):
            raise InvalidQuery(
                f"{name} is a file of text; expected one that is open for bytes, as with "
                'open(path, "rb")',
                field=name,
            )
        found += piece
    return bytes(found)
