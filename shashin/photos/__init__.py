"""Decodes photos as users upload them, or rejects them with a specific error."""

from shashin.photos.budget import DecodeBudget
from shashin.photos.decode import FORMATS, MAX_PIXELS, decode_photo
from shashin.photos.thumbnail import SHORT_SIDE, thumbnail, thumbnail_image

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SHORT_SIDE",
    "DecodeBudget",
    "decode_photo",
    "thumbnail",
    "thumbnail_image",
]
