"""How much memory a photo takes to decode, as far as its header tells."""

from __future__ import annotations

from PIL import ImageFile, TiffImagePlugin

from shashin.photos.heif import HeifStructure
from shashin.photos.jpeg import JpegStructure

_OPENING_BYTES = 8 * 1024 * 1024
"""Metadata, tables and buffers."""

_WEBP_BYTES = 16
"""Per pixel: two canvases, a copy as bytes, and Pillow's image."""

_ORIENTATION, _BITS_PER_SAMPLE, _SAMPLES, _ROWS_PER_STRIP = 274, 258, 277, 278
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_PLAIN_COMPRESSIONS = frozenset(
    {"packbits", "group3", "group4", "tiff_ccitt", "tiff_lzw", "tiff_adobe_deflate"}
    | {"tiff_deflate", "lzma", "zstd"}
)
"""Compressions of TIFF that are decoded into the strip or tile, without an image of their own."""


def decoding_bytes(
    image: ImageFile.ImageFile, jpeg: JpegStructure | None, heif: HeifStructure | None = None
) -> int:
    """Return an upper bound of what loading an opened image takes, in bytes."""
    width, height = image.size
    pixels = width * height
    if heif is not None:
        return max(pixels, heif.pixels) * _heif_pixel_bytes(image.mode, heif) + _OPENING_BYTES
    if image.format == "WEBP":
        return pixels * _WEBP_BYTES + _OPENING_BYTES
    needed = pixels * _pixel_bytes(image.mode) + _OPENING_BYTES
    if jpeg is not None:
        needed += jpeg.coefficient_bytes
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        needed += _tiff_bytes(image, needed)
    elif image.format == "GIF":
        needed += pixels  # what later frames would restore
    elif image.tile and image.tile[0].codec_name == "bmp_rle":
        needed += 3 * pixels
    return needed


def _pixel_bytes(mode: str) -> int:
    """Return the bytes per pixel of Pillow's images; it pads several bands to four."""
    if mode.startswith("I;16"):
        return 2
    return 1 if mode in {"1", "L", "P"} else 4


def _heif_pixel_bytes(mode: str, heif: HeifStructure) -> int:
    """Return the bytes per pixel of the planes, their colours as bytes, and Pillow's image."""
    planes = 2 if heif.subsampled else 4
    if heif.deep:
        planes *= 2
    # Transparency has a plane of its own; grey is decoded to one byte.
    return planes + (4 if mode == "L" else 8) + (4 if mode.endswith("A") else 0)


def _tiff_bytes(image: TiffImagePlugin.TiffImageFile, whole: int) -> int:
    """Return what is needed beside the image: a copy that is turned, and a strip or tile."""
    tags = image.tag_v2
    needed = whole if tags.get(_ORIENTATION, 1) != 1 else 0
    if not image.tile or image.tile[0].codec_name != "libtiff":
        return needed
    width, height = image.size
    if _TILE_WIDTH in tags and _TILE_HEIGHT in tags:
        # A tile may be much larger than its image.
        area = int(tags[_TILE_WIDTH]) * int(tags[_TILE_HEIGHT])
    else:
        area = width * min(height, int(tags.get(_ROWS_PER_STRIP, height)))
    bits = int(max(tags.get(_BITS_PER_SAMPLE, (1,)))) * int(tags.get(_SAMPLES, 1))
    needed += area * bits // 8
    if image.info.get("compression") not in _PLAIN_COMPRESSIONS:
        needed += 8 * area
    return needed
