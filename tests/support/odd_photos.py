"""Unusual, broken and malicious photos."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from tests.support.rendered_listings import photo_of

_ORIENTATION = 0x0112
_GREY, _RGB = 0, 2
"""Colour types of PNG."""

_ANOTHER = 299


def picture(number: int) -> Image.Image:
    """Return a rendered photo as pixels: upright RGB."""
    return Image.open(io.BytesIO(photo_of(number))).convert("RGB")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as a file of that kind."""
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def _cmyk(image: Image.Image) -> bytes:
    return saved(image.convert("CMYK"), "JPEG", quality=90)


def _palette(image: Image.Image) -> bytes:
    return saved(image.quantize(256), "PNG")


def _sixteen_bits(image: Image.Image) -> bytes:
    values = np.asarray(image).astype(">u2") * 257
    return _png(*image.size, 16, _RGB, (row.astype(">u2").tobytes() for row in values))


def _exif_rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6  # to be turned clockwise by a quarter
    return saved(image.rotate(90, expand=True), "JPEG", quality=90, exif=exif)


def _animated(image: Image.Image) -> bytes:
    return saved(image, "GIF", save_all=True, append_images=[picture(_ANOTHER)], duration=100)


def _transparent(image: Image.Image) -> bytes:
    return saved(image.convert("RGBA"), "PNG")


def _heic(image: Image.Image) -> bytes:
    return saved(image, "HEIF", quality=90)  # shashin.photos has registered the format


def _avif(image: Image.Image) -> bytes:
    return saved(image, "AVIF", quality=90)


ODD: dict[str, Callable[[Image.Image], bytes]] = {
    "CMYK JPEG": _cmyk,
    "palette PNG": _palette,
    "16-bit PNG": _sixteen_bits,
    "EXIF-rotated JPEG": _exif_rotated,
    "animated GIF": _animated,
    "PNG with alpha": _transparent,
    "HEIC": _heic,
    "AVIF": _avif,
}
"""Formats that must not change how a picture is searched."""


def sixteen_bit_grey(image: Image.Image) -> bytes:
    """Return a picture without its colours as a PNG of 16 bits per pixel."""
    values = np.asarray(image.convert("L")).astype(np.uint16) * 257
    return saved(Image.fromarray(values), "PNG")


def bomb(side: int = 20_000) -> bytes:
    """Return a PNG of some kilobytes that unpacks to ``side`` x ``side`` pixels."""
    return _png(side, side, 1, _GREY, (bytes((side + 7) // 8) for _ in range(side)))


def _png(width: int, height: int, bits: int, colour_type: int, rows: Iterable[bytes]) -> bytes:
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(b"\0" + row) for row in rows) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data) for name, data in ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
