"""Thumbnails: the small JPEG of a photo that the pipeline carries, large enough for the models."""

from __future__ import annotations

import io

from PIL import Image

from shashin.photos.decode import decode_photo

SHORT_SIDE = 256
"""Maximum pixels of the shorter side; smaller photos are not resized."""

LONGEST_RATIO = 4
"""Maximum aspect ratio; longer photos are cropped to their middle."""

QUALITY = 88


def thumbnail(data: bytes) -> bytes:
    """Return a photo as a JPEG: RGB, upright, short side at most 256 pixels.

    Raises:
        PhotoError: when it cannot be used; see ``decode_photo``.
    """
    image = _crop_middle(decode_photo(data, enough=2 * SHORT_SIDE))
    width, height = image.size
    scale = SHORT_SIDE / min(width, height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    output = io.BytesIO()
    image.save(output, "JPEG", quality=QUALITY)
    return output.getvalue()


def _crop_middle(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = LONGEST_RATIO * min(width, height)
    if max(width, height) <= longest:
        return image
    if width > height:
        left = (width - longest) // 2
        return image.crop((left, 0, left + longest, height))
    top = (height - longest) // 2
    return image.crop((0, top, width, top + longest))
