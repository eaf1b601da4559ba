"""Where the thumbnail of a photo is. Pure."""

from __future__ import annotations

from shashin.errors import UserError
from shashin.photo_hash import is_hex_photo_hash

FOLDER = "thumbnails"
"""In the object store."""


def thumbnail_key(photo_hash: str) -> str:
    """Return the key of a photo's thumbnail.

    Raises:
        UserError: when it is not a photo hash (shashin.photo_hash), so that nothing else can be read.
    """
    if not is_hex_photo_hash(photo_hash):
        raise UserError(
            f"photo hash {photo_hash!r} is not valid: expected 16 hexadecimal digits in lower case"
        )
    return f"{FOLDER}/{photo_hash[:2]}/{photo_hash}.jpg"
