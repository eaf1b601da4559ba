"""What the pipeline carries of a photo: a small JPEG that has all that a model looks at."""

from __future__ import annotations

import io

from PIL import Image

from shashin.photos.decode import decode_photo

SHORT_SIDE = 256
"""Pixels of the shorter side; a smaller photo stays as it is."""

LONGEST_RATIO = 4
"""A side is at most so many times the other; the middle of a longer photo is kept."""

QUALITY = 88


def thumbnail(data: bytes) -> bytes:
    """Return a photo as a JPEG: RGB, upright, short side 256 pixels at most.

    Raises:
        PhotoError: when it cannot be used; see ``decode_photo``.
    """
    image = _middle(decode_photo(data, enough=2 * SHORT_SIDE))
    width, height = image.size
    scale = SHORT_SIDE / min(width, height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    made = io.BytesIO()
    image.save(made, "JPEG", quality=QUALITY)
    return made.getvalue()


def _middle(image: Image.Image) -> Image.Image:
    width, height = image.size
    longest = LONGEST_RATIO * min(width, height)
    if max(width, height) <= longest:
        return image
    if width > height:
        left = (width - longest) // 2
        return image.crop((left, 0, left + longest, height))
    top = (height - longest) // 2
    return image.crop((0, top, width, top + longest))
