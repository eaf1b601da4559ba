"""Thumbnails: the small JPEG of a photo that the pipeline carries, large enough for the models."""

from __future__ import annotations

import io

from PIL import Image

from shashin.photo_box import Box
from shashin.photos.budget import DecodeBudget
from shashin.photos.decode import decode_photo

SHORT_SIDE = 256
"""Maximum pixels of the shorter side; smaller photos are not resized."""

LONGEST_RATIO = 4
"""Maximum aspect ratio; longer photos are cropped to their middle."""

QUALITY = 88


def thumbnail(data: bytes, *, budget: DecodeBudget | None = None) -> bytes:
    """Return a photo as a JPEG; see ``thumbnail_image``."""
    output = io.BytesIO()
    thumbnail_image(data, budget=budget).save(output, "JPEG", quality=QUALITY)
    return output.getvalue()


def thumbnail_image(
    data: bytes, *, box: Box | None = None, budget: DecodeBudget | None = None
) -> Image.Image:
    """Return a photo at the size that models use: sRGB, upright, short side at most 256 pixels.

    With ``box`` only that part of it, as if it had been sent by itself.

    Raises:
        PhotoError: when it cannot be used; see ``decode_photo``.
        InvalidQuery: when there are too few pixels in the box.
    """
    image = decode_photo(
        data, box=box, enough=SHORT_SIDE, longest_ratio=LONGEST_RATIO, budget=budget
    )
    width, height = image.size
    scale = SHORT_SIDE / min(width, height)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
