"""Decodes a photo to an upright RGB image, or raises a PhotoError.

The downloader dead-letters photos with that error; see services.downloader.handlers.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shashin.errors import PhotoEmpty, PhotoTooLarge, PhotoUndecodable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The supported formats, including the first JPEG of MPO files, which cameras write. Pillow supports
more, but each one adds attack surface."""

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_500

_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,  # raised by Pillow for a corrupt PNG
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    MemoryError,
)


def decode_photo(data: bytes, *, enough: int | None = None) -> Image.Image:
    """Return a photo as it should be displayed: RGB, upright, with transparency on white.

    Only the first frame of an animation is used. CMYK, palettes, greyscale and 16 bits per channel
    are converted. With ``enough``, a JPEG may be decoded at a smaller size, with a short side of
    at least that many pixels, which is several times faster.

    Raises:
        PhotoEmpty: when there are no bytes.
        PhotoTooLarge: when its header claims more than 50 megapixels.
        PhotoUndecodable: when the bytes are not an image of a known format, or it is corrupt.
    """
    if not data:
        raise PhotoEmpty("the photo has no bytes: upload it again")
    try:
        with warnings.catch_warnings():
            # The size is checked below against our own limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image)
                if enough is not None and image.format in {"JPEG", "MPO"}:
                    _draft(image, enough)
                image.load()
                return _as_rgb(_upright(image))
    except UnidentifiedImageError:
        raise PhotoUndecodable(
            f"{len(data)} bytes are not an image of a known format: expected one of "
            f"{', '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError as error:
        raise PhotoTooLarge(_too_large(str(error))) from None
    except _BROKEN as error:
        raise PhotoUndecodable(
            f"the image is truncated or corrupt ({str(error) or type(error).__name__}): "
            "upload it again"
        ) from None


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise PhotoTooLarge(_too_large(f"{width} x {height} pixels"))
    if width < 1 or height < 1:
        raise PhotoUndecodable(f"the image has {width} x {height} pixels")


def _too_large(found: str) -> str:
    return f"the photo has {found}; at most {MAX_PIXELS // 1_000_000} megapixels are allowed"


def _draft(image: Image.Image, enough: int) -> None:
    width, height = image.size
    scale = enough / min(width, height)
    if scale < 1:
        image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = ImageOps.exif_transpose(image)
    except _BROKEN:
        # Viewers do not rotate a photo with corrupt EXIF data.
        return image
    return image if turned is None else turned


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if "A" in image.getbands() or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits per pixel to 8; Pillow's own conversion would clip them."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        top = 1.0 if values.size and values.max() <= 1.0 else 255.0
    else:
        top = 65535.0 if values.size and values.max() > 255 else 255.0
    if image.mode.startswith("I;16"):
        top = 65535.0
    scaled = np.nan_to_num(np.clip(values / top, 0.0, 1.0)) * 255.0
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
