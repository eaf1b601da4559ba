"""Changes that a photo goes through before it is a query: crops, turns, light, compression, clutter. Pure.

They are what a head is trained to ignore, and what an evaluation searches with; each takes its own
generator, so a seed gives the same photos.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Rng = np.random.Generator
Range = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """How far a copy may be from its photo."""

    crop: Range
    """Side of the crop, as a share of the photo's."""
    turn: float
    """Degrees to either side."""
    light: float
    """Largest relative change of brightness, contrast and colour."""
    jpeg: Range
    """JPEG quality."""
    mirror: float = 0.5
    """Probability."""


GENTLE = Change(crop=(0.6**0.5, 0.9**0.5), turn=8, light=0.2, jpeg=(30, 30))
"""Crops of 60 to 90 % of the photo's area."""

HARD = Change(crop=(0.35**0.5, 0.6**0.5), turn=20, light=0.4, jpeg=(20, 20))
"""Crops of 35 to 60 % of the photo's area."""

TRAINING = Change(crop=(0.35, 1.0), turn=20, light=0.4, jpeg=(20, 90))
IN_LIKE_LIGHT = replace(TRAINING, light=0.1)
"""For a share of the views: a head that only sees other light learns that colours tell nothing."""

IN_CLUTTER = replace(TRAINING, crop=(0.8, 1.0))
"""For what is a small part of its photo already."""

_CLUTTER_SHARE = (0.45, 0.75)
"""Side of a photo that is pasted on another, as a share of that one's."""


def changed(photo: Image.Image, change: Change, rng: Rng) -> Image.Image:
    """Return a changed copy of an RGB photo."""
    if rng.random() < change.mirror:
        photo = ImageOps.mirror(photo)
    turned = photo.rotate(
        rng.uniform(-change.turn, change.turn), Image.Resampling.BILINEAR, fillcolor=_edge(photo)
    )
    return _compressed(_lit(_cropped(turned, change.crop, rng), change.light, rng), change, rng)


def with_clutter(photo: Image.Image, background: Image.Image, rng: Rng) -> Image.Image:
    """Return the photo as a smaller part of another one."""
    place = background.resize(photo.size, Image.Resampling.BILINEAR)
    share = rng.uniform(*_CLUTTER_SHARE)
    width, height = (max(1, round(side * share)) for side in photo.size)
    left, top = (
        int(rng.integers(0, whole - part + 1))
        for whole, part in zip(photo.size, (width, height), strict=True)
    )
    place.paste(photo.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return place


def _edge(photo: Image.Image) -> tuple[int, ...]:
    """Return the mean colour, which fills the corners of a turned photo."""
    mean = np.asarray(photo.resize((1, 1), Image.Resampling.BOX)).reshape(3)
    return tuple(int(value) for value in mean)


def _cropped(photo: Image.Image, share: Range, rng: Rng) -> Image.Image:
    width, height = (max(1, round(side * rng.uniform(*share))) for side in photo.size)
    left = int(rng.integers(0, photo.width - width + 1))
    top = int(rng.integers(0, photo.height - height + 1))
    return photo.crop((left, top, left + width, top + height))


def _lit(photo: Image.Image, light: float, rng: Rng) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        photo = enhance(photo).enhance(rng.uniform(1 - light, 1 + light))
    return photo


def _compressed(photo: Image.Image, change: Change, rng: Rng) -> Image.Image:
    kept = io.BytesIO()
    photo.save(kept, "JPEG", quality=round(rng.uniform(*change.jpeg)))
    with Image.open(kept) as image:
        return image.convert("RGB")
