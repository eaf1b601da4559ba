"""Converts the colours of a photo to sRGB, which models expect and screens show."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from itertools import product

from PIL import Image, ImageChops, ImageCms

MAX_PROFILE_BYTES = 4 * 1024 * 1024
"""Profiles of printing presses take up to 3 MB."""

_CACHED_PROFILE_BYTES = 64 * 1024
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The mode of the images that a profile of a colour space describes."""

ToRgb = Callable[[Image.Image], Image.Image]


def to_srgb(profile: bytes | None) -> ToRgb:
    """Return a function from an L, RGB or CMYK image to its RGB image, by its colour profile.

    A profile that is broken, or of another kind of image, is ignored, as in browsers.
    """
    # Profiles of type "mpet" may have any number of steps for each pixel.
    if not profile or len(profile) > MAX_PROFILE_BYTES or b"mpet" in profile:
        return _without_profile
    # Cameras and phones use a few small profiles. Large ones are rare, and would fill the cache.
    small = len(profile) <= _CACHED_PROFILE_BYTES
    found = _cached_transform(profile) if small else _transform(profile)
    if found is None:
        return _without_profile
    mode, transform = found

    def convert(image: Image.Image) -> Image.Image:
        return transform.apply(image) if image.mode == mode else _without_profile(image)

    return convert


def _without_profile(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[source.profile.xcolor_space.strip()]
        transform = ImageCms.ImageCmsTransform(
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
    except (OSError, KeyError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else (mode, transform)


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether this is the transform of an sRGB profile, the most frequent one."""
    levels = bytes(range(0, 256, 51))
    colours = bytes(value for colour in product(levels, repeat=3) for value in colour)
    samples = Image.frombytes("RGB", (len(levels) ** 3, 1), colours)
    difference = ImageChops.difference(samples, transform.apply(samples))
    return max(difference.tobytes()) <= 1


_cached_transform = lru_cache(maxsize=32)(_transform)
