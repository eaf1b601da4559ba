"""Decodes a photo to an upright RGB image, or raises a PhotoError.

The downloader dead-letters photos with that error; see services.downloader.handlers.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError

from shashin.errors import PhotoEmpty, PhotoTooLarge, PhotoUndecodable
from shashin.photos.budget import DecodeBudget
from shashin.photos.colour import to_srgb
from shashin.photos.exif import check_tags, orientation
from shashin.photos.heif import HeifStructure, heif_structure, is_heif
from shashin.photos.jpeg import CONTINUATIONS, END, MAX_SCANS, START, JpegStructure, jpeg_structure
from shashin.photos.memory import decoding_bytes
from shashin.photos.parts import check_parts

try:
    from pillow_heif import register_heif_opener
except ImportError:
    _READS_HEIF = False
else:
    _READS_HEIF = True
    # Only the photo itself is decoded, in the thread that asks for it.
    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_PLAIN_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
FORMATS = (*_PLAIN_FORMATS, "AVIF", "HEIF")
"""The supported formats, including the first JPEG of MPO files, which cameras write. Pillow supports
more, but each one adds attack surface. HEIF (HEIC) needs the package pillow-heif."""

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_500
MAX_RLE_SIZE = 4_000_000
"""Maximum pixels, and bytes, of a run-length encoded BMP: Pillow decodes these in Python."""

# Pillow refuses what is more than twice as large before it allocates anything, frames included.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# An image is one block, so that a large one goes back to the system as soon as it is closed: of
# blocks up to 32 MiB, the allocator keeps some for every thread.
Image.core.set_block_size(256 * 1024 * 1024)  # type: ignore[attr-defined]

_STRIP_PIXELS = 1 << 18
"""Pixels that are converted at once."""

_SIXTEEN_BITS = np.rint(np.arange(65536) / 257).astype(np.uint8)

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


def decode_photo(
    data: bytes,
    *,
    enough: int | None = None,
    longest_ratio: int | None = None,
    budget: DecodeBudget | None = None,
) -> Image.Image:
    """Return a photo as it should be displayed: sRGB, upright, with transparency on white.

    Only the first frame of an animation is used. CMYK, palettes, greyscale, 16 bits per channel and
    colours of an embedded profile are converted. With ``enough``, the photo may be returned
    smaller, with a short side of at least that many pixels: then only the decoder's own image has
    the full size. With ``longest_ratio``, a longer photo is cropped to its middle. ``budget``
    bounds the memory of all decodes that share it; this one waits until it fits.

    A JPEG that lacks only its end marker is decoded, one that lacks image data is refused.

    Raises:
        PhotoEmpty: when there are no bytes.
        PhotoTooLarge: when its header claims more than 50 megapixels, decoding it would take more
            memory than the whole budget, or it has parts without number.
        PhotoUndecodable: when the bytes are not an image of a known format, or it is corrupt.
    """
    if not data:
        raise PhotoEmpty("the photo has no bytes: upload it again")
    check_parts(data)
    try:
        with warnings.catch_warnings():
            # The size is checked below against our own limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            jpeg = jpeg_structure(data) if data.startswith(START) else None
            heif = _checked_heif(data)
            endless = jpeg is not None and not jpeg.ended
            source = io.BytesIO(data + END if endless else data)
            formats = _PLAIN_FORMATS if heif is None else (heif.format,)
            with Image.open(source, formats=formats) as image:
                _check_size(image, data)
                if jpeg is not None:
                    _check_scans(jpeg)
                    if enough is not None and not endless:
                        _draft(image, enough)
                frame = _Frame(image, enough, longest_ratio)
                needed = decoding_bytes(image, jpeg, heif) + frame.bytes
                with nullcontext() if budget is None else budget.reserve(needed):
                    if jpeg is not None and endless:
                        _check_nothing_is_missing(data, jpeg)
                    image.load()
                    try:
                        return frame.as_rgb(image)
                    finally:
                        image.close()  # before the budget is given back
    except UnidentifiedImageError:
        raise PhotoUndecodable(
            f"{len(data)} bytes are not an image of a known format: expected one of "
            f"{', '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError:
        found = f"more than {2 * MAX_PIXELS // 1_000_000} megapixels"
        raise PhotoTooLarge(_too_large(found)) from None
    except _BROKEN as error:
        raise PhotoUndecodable(
            f"the image is truncated or corrupt ({str(error) or type(error).__name__}): "
            "upload it again"
        ) from None


def _checked_heif(data: bytes) -> HeifStructure | None:
    """Return the structure of a HEIC or AVIF photo; None for other formats."""
    if not is_heif(data):
        return None
    heif = heif_structure(data)
    for exif in heif.exif:
        check_tags(exif, "its EXIF data")
    if heif.format == "HEIF" and not _READS_HEIF:
        raise PhotoUndecodable(
            "the photo is a HEIC file, and the package pillow-heif is not installed here: install "
            "it, or send a JPEG"
        )
    if heif.pixels > MAX_PIXELS or heif.tile_pixels > 2 * MAX_PIXELS:
        found = max(heif.pixels, heif.tile_pixels) / 1e6
        raise PhotoTooLarge(_too_large(f"images of {found:.0f} megapixels"))
    return heif


def _check_size(image: ImageFile.ImageFile, data: bytes) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise PhotoTooLarge(_too_large(f"{width} x {height} pixels"))
    if width < 1 or height < 1:
        raise PhotoUndecodable(f"the image has {width} x {height} pixels")
    if image.tile and image.tile[0].codec_name == "bmp_rle":
        size = max(width * height, len(data))
        if size > MAX_RLE_SIZE:
            raise PhotoTooLarge(
                f"the photo is a run-length encoded BMP of {width} x {height} pixels in "
                f"{len(data)} bytes; at most {MAX_RLE_SIZE // 1_000_000} megapixels and megabytes "
                "are allowed: save it as JPEG or PNG"
            )


def _too_large(found: str) -> str:
    return f"the photo has {found}; at most {MAX_PIXELS // 1_000_000} megapixels are allowed"


def _check_scans(jpeg: JpegStructure) -> None:
    if jpeg.scans > MAX_SCANS:
        raise PhotoTooLarge(
            f"the photo is a JPEG of more than {MAX_SCANS} scans: save it again, in any editor"
        )


def _draft(image: Image.Image, enough: int) -> None:
    """Have a JPEG decoded at a half, a quarter or an eighth of its size, if that is enough.

    Scaling its frequencies loses no more than a resize does, and saves two fifths of the time.
    """
    width, height = image.size
    scale = enough / min(width, height)
    if scale < 1:
        image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))


def _check_nothing_is_missing(data: bytes, jpeg: JpegStructure) -> None:
    """Check that a JPEG without an end marker has all its image data.

    Whatever follows complete image data is skipped, so every continuation gives the same image.
    Where data is missing, the decoder takes the continuation for it.
    """
    digests = set()
    # Zeros at the end are a file of which only a part was written.
    if jpeg.all_sent and not data.endswith(b"\0\0"):
        for continuation in (b"", *CONTINUATIONS):
            # A single 0xFF at the end is the first half of the end marker.
            continued = io.BytesIO(data.rstrip(b"\xff") + continuation + END)
            with Image.open(continued, formats=["JPEG"]) as image:
                image.load()
                digests.add(_digest(image))
                image.close()
    if len(digests) != 1:
        raise OSError("image data is missing at its end")


def _digest(image: Image.Image) -> bytes:
    digest = hashlib.sha256()
    for box in _strips((0, 0, *image.size), 1):
        digest.update(image.crop(box).tobytes())
    return digest.digest()


Box = tuple[int, int, int, int]


def _strips(box: Box, factor: int) -> Iterator[Box]:
    """Yield horizontal strips of a box, each of a multiple of ``factor`` rows but the last."""
    left, top, right, bottom = box
    rows = factor * max(1, _STRIP_PIXELS // ((right - left) * factor))
    for start in range(top, bottom, rows):
        yield left, start, right, min(start + rows, bottom)


class _Frame:
    """The part of a photo that is wanted, and by how much it is reduced.

    A photo is converted strip by strip, so that nothing but the decoder's own image ever has its
    full size.
    """

    def __init__(self, image: Image.Image, enough: int | None, longest_ratio: int | None) -> None:
        self._box = _middle(image.size, longest_ratio)
        left, top, right, bottom = self._box
        width, height = right - left, bottom - top
        # Averaging blocks of pixels is a coarse filter, so a finer one gets twice what is enough.
        self._factor = 1 if enough is None else max(1, min(width, height) // (2 * enough))
        self._size = -(-width // self._factor), -(-height // self._factor)

    @property
    def bytes(self) -> int:
        """The bytes of the returned image, of a copy that is turned, and of strips."""
        left, _, right, _ = self._box
        strip = max(_STRIP_PIXELS, (right - left) * self._factor)
        return 8 * self._size[0] * self._size[1] + 32 * strip

    def _is_small_rgb(self, image: Image.Image) -> bool:
        """Whether it is wanted as it is, like most JPEGs, and copies fit what strips would take."""
        return (
            image.mode == "RGB"
            and image.size == self._size
            and image.width * image.height <= 4 * _STRIP_PIXELS
            and "transparency" not in image.info
        )

    def as_rgb(self, image: Image.Image) -> Image.Image:
        """Return this part of a loaded image: RGB and upright."""
        white_level = _white_level(image)
        to_rgb = to_srgb(image.info.get("icc_profile"))
        if self._is_small_rgb(image):
            small = to_rgb(image.copy())
            small.info = {}
            return _upright(small, image)
        made = Image.new("RGB", self._size)
        for box in _strips(self._box, self._factor):
            strip = _simple(image.crop(box), white_level)
            if self._factor > 1:
                strip = strip.reduce(self._factor)
            at = 0, (box[1] - self._box[1]) // self._factor
            if strip.mode in {"LA", "RGBA"}:
                colours = strip.convert(strip.mode[:-1])
                made.paste((255, 255, 255), (*at, strip.width, at[1] + strip.height))
                made.paste(to_rgb(colours), at, strip.getchannel("A"))
            else:
                made.paste(to_rgb(strip), at)
        return _upright(made, image)


def _middle(size: tuple[int, int], longest_ratio: int | None) -> Box:
    width, height = size
    longest = max(size) if longest_ratio is None else longest_ratio * min(size)
    left, top = max(0, width - longest) // 2, max(0, height - longest) // 2
    return left, top, left + min(width, longest), top + min(height, longest)


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a photo upright, by its EXIF orientation."""


def _upright(made: Image.Image, image: Image.Image) -> Image.Image:
    turn = _TURNS.get(orientation(image.info))
    return made if turn is None else made.transpose(turn)


def _simple(strip: Image.Image, white_level: float | None) -> Image.Image:
    """Return a strip in a mode that can be reduced: L, LA, RGB, RGBA or CMYK."""
    if white_level is not None:
        return _eight_bits(strip, white_level)
    if "transparency" in strip.info:
        return strip.convert("RGBA")
    if strip.mode in {"L", "LA", "RGB", "RGBA", "CMYK"}:
        return strip
    other = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
    return strip.convert(other.get(strip.mode, "RGB"))


def _white_level(image: Image.Image) -> float | None:
    """Return the value that is white in a mode of more than 8 bits, else None."""
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in {"I", "F"}:
        return None
    highest = image.getextrema()[1]
    assert isinstance(highest, int | float)
    if image.mode == "I":
        return 65535.0 if highest > 255 else 255.0
    return 1.0 if highest <= 1.0 else 255.0


def _eight_bits(strip: Image.Image, white_level: float) -> Image.Image:
    """Scale to 8 bits per pixel; Pillow's own conversion would clip."""
    if strip.mode.startswith("I;16"):
        return Image.fromarray(_SIXTEEN_BITS.take(np.asarray(strip)))
    scaled = np.clip(np.asarray(strip, dtype=np.float32) * (255.0 / white_level), 0.0, 255.0)
    return Image.fromarray(np.rint(np.nan_to_num(scaled)).astype(np.uint8))
