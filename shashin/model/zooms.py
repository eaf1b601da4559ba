"""Zooms of a query photo: the whole, and its middle, where a product often is. Pure."""

from __future__ import annotations

from PIL import Image

ZOOMS = (1.0, 0.7, 0.5)
"""Shares of a photo's width and height; the whole comes first."""


def zoomed(photo: Image.Image) -> list[Image.Image]:
    """Return the whole photo, and its middle at each zoom."""
    return [photo if share == 1 else middle(photo, share) for share in ZOOMS]


def middle(photo: Image.Image, share: float) -> Image.Image:
    """Return the middle of a photo: ``share`` of its width and height, at least a pixel."""
    width, height = (max(1, round(side * share)) for side in photo.size)
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))
