"""Decodes a photo to an upright RGB image, or raises a PhotoError.

The downloader dead-letters photos with that error; see services.downloader.handlers.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from contextlib import nullcontext

from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError

from shashin.errors import PhotoEmpty, PhotoTooLarge, PhotoUndecodable
from shashin.photo_box import Box, PixelBox
from shashin.photos.budget import DecodeBudget
from shashin.photos.exif import check_tags
from shashin.photos.frame import Wanted, strips
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
    box: Box | None = None,
    enough: int | None = None,
    longest_ratio: int | None = None,
    budget: DecodeBudget | None = None,
) -> Image.Image:
    """Return a photo as it should be displayed: sRGB, upright, with transparency on white.

    Only the first frame of an animation is used. CMYK, palettes, greyscale, 16 bits per channel and
    colours of an embedded profile are converted. With ``box`` only that part of the upright photo
    is returned, and what follows is about the part. With ``enough``, the photo may be returned
    smaller, with a short side of at least that many pixels: then only the decoder's own image has
    the full size. With ``longest_ratio``, a longer photo is cropped to its middle. ``budget``
    bounds the memory of all decodes that share it; this one waits until it fits.

    A JPEG that lacks only its end marker is decoded, one that lacks image data is refused.

    Raises:
        InvalidQuery: when there are too few pixels in the box.
        PhotoEmpty: when there are no bytes.
        PhotoTooLarge: when its header claims more than 50 megapixels, decoding it would take more
            memory than the whole budget, or it has parts without number.
        PhotoUndecodable: when the bytes are not an image of a known format, or it is corrupt.
    """
    if not data:
        raise PhotoEmpty("the photo has no bytes: upload it again")
    check_parts(data)
    wanted = Wanted(box, enough, longest_ratio)
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
                        wanted.check_size(image)
                        _draft(image, wanted.part_of(image), enough)
                needed = decoding_bytes(image, jpeg, heif) + wanted.frame_bytes(image)
                with nullcontext() if budget is None else budget.reserve(needed):
                    if jpeg is not None and endless:
                        _check_nothing_is_missing(data, jpeg)
                    image.load()
                    try:
                        # Only now, since the orientation of some formats follows the image data.
                        return wanted.frame_of(image).as_rgb(image)
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


def _draft(image: Image.Image, part: PixelBox, enough: int) -> None:
    """Have a JPEG decoded at a half, a quarter or an eighth of its size, if that is enough for a part of it.

    Scaling its frequencies loses no more than a resize does, and saves two fifths of the time.
    """
    left, top, right, bottom = part
    width, height = image.size
    scale = enough / min(right - left, bottom - top)
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
    for box in strips((0, 0, *image.size), 1):
        digest.update(image.crop(box).tobytes())
    return digest.digest()
