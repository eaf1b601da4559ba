"""A part of a photo, in shares of the photo's size, and its pixels. Pure: also for those who decode none."""

from __future__ import annotations

import math
from typing import NamedTuple

MIN_BOX_PIXELS = 8
"""Minimum width and height of a box in pixels of the photo as it was sent: less shows nothing to search for."""

PixelBox = tuple[int, int, int, int]
"""Left, top, right and bottom edge, in pixels."""


class Box(NamedTuple):
    """Shares of the width and height of an upright photo: 0 <= left < right <= 1, top and bottom alike."""

    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, width: int, height: int) -> PixelBox:
        """Return its edges in an upright photo of this size."""
        left, top, right, bottom = self
        return (
            round(left * width),
            round(top * height),
            round(right * width),
            round(bottom * height),
        )


def box_problem(box: Box) -> str | None:
    """Return what is wrong with a box, beginning with the name of the side; None if nothing is."""
    for side, share in zip(box._fields, box, strict=True):
        if not (math.isfinite(share) and 0 <= share <= 1):
            return f"{side} is {share:g}; expected 0 to 1, a share of the photo's size"
    for low, high in (("left", "right"), ("top", "bottom")):
        begin, end = getattr(box, low), getattr(box, high)
        if begin >= end:
            return (
                f"{low} is {begin:g} and {high} is {end:g}; expected {low} to be less than {high}"
            )
    return None


def size_problem(box: Box, width: int, height: int) -> str | None:
    """Return why there is too little in a box of an upright photo of this size, in pixels; None if there is enough."""
    left, top, right, bottom = box.pixels(width, height)
    if min(right - left, bottom - top) >= MIN_BOX_PIXELS:
        return None
    return (
        f"{right - left} x {bottom - top} pixels of a photo of {width} x {height}; expected at least "
        f"{MIN_BOX_PIXELS} x {MIN_BOX_PIXELS}"
    )


def stored_pixels(upright: PixelBox, orientation: int, width: int, height: int) -> PixelBox:
    """Return where pixels of an upright photo are in the photo as it is stored.

    ``orientation`` is that of EXIF, 1 to 8; ``width`` and ``height`` are those of the stored photo.
    """
    left, top, right, bottom = upright
    if orientation >= 5:  # its sides are swapped
        left, top, right, bottom = top, left, bottom, right
    if orientation in {2, 3, 7, 8}:
        left, right = width - right, width - left
    if orientation in {3, 4, 6, 7}:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def upright_size(orientation: int, width: int, height: int) -> tuple[int, int]:
    """Return width and height of a photo once it is upright; ``orientation`` is that of EXIF, 1 to 8."""
    return (height, width) if orientation >= 5 else (width, height)
