"""From a photo's bytes to an upright RGB image, or a PhotoError that says why not.

The downloader makes a dead letter of that error; see services.downloader.handlers.
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
"""What is read, and of MPO, which cameras write, the first JPEG. Pillow knows more, but each one is
a way in for a hostile file."""

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_500

_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,  # Pillow's word for a broken PNG
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
    """Return a photo as a person sees it: RGB, upright, on white where it is transparent.

    Of an animation the first frame counts. CMYK, palettes, grey and 16 bits a channel are
    converted. With ``enough``, a JPEG may come smaller than it is, with a short side of at least
    so many pixels, which is several times faster.

    Raises:
        PhotoEmpty: when there are no bytes.
        PhotoTooLarge: when it has more than 50 megapixels, as its header says.
        PhotoUndecodable: when the bytes are no image of a known format, or a broken one.
    """
    if not data:
        raise PhotoEmpty("the photo has no bytes: upload it again")
    try:
        with warnings.catch_warnings():
            # Its size is checked below, against a limit of our own.
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
            f"{len(data)} bytes are no image of a known format: expected one of "
            f"{', '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError as error:
        raise PhotoTooLarge(_too_large(str(error))) from None
    except _BROKEN as error:
        raise PhotoUndecodable(
            f"the image is cut short or broken ({str(error) or type(error).__name__}): "
            "upload it again"
        ) from None


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise PhotoTooLarge(_too_large(f"{width} x {height} pixels"))
    if width < 1 or height < 1:
        raise PhotoUndecodable(f"the image has {width} x {height} pixels")


def _too_large(found: str) -> str:
    return f"the photo has {found}; at most {MAX_PIXELS // 1_000_000} megapixels are read"


def _draft(image: Image.Image, enough: int) -> None:
    width, height = image.size
    scale = enough / min(width, height)
    if scale < 1:
        image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = ImageOps.exif_transpose(image)
    except _BROKEN:
        # A photo whose EXIF data are broken is shown as it lies by every viewer.
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
    """Scale 16 bits a pixel to 8, where Pillow's own conversion would clip them."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        top = 1.0 if values.size and values.max() <= 1.0 else 255.0
    else:
        top = 65535.0 if values.size and values.max() > 255 else 255.0
    if image.mode.startswith("I;16"):
        top = 65535.0
    scaled = np.nan_to_num(np.clip(values / top, 0.0, 1.0)) * 255.0
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
