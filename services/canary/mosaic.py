"""Photos of the canary: mosaics of random colours, which no photo of a product resembles. Pure.

They are written as PNG here, since that takes a few lines, and Pillow would be the only library that
the canary needs for it.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIDE = 256
_TILES = 8
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def mosaic(seed: int) -> bytes:
    """Return the PNG of a mosaic of 8 by 8 tiles, 256 pixels wide; the same for the same seed."""
    tiles = np.random.default_rng(seed).integers(0, 256, (_TILES, _TILES, 3), dtype=np.uint8)
    size = _SIDE // _TILES
    pixels = tiles.repeat(size, axis=0).repeat(size, axis=1)
    # Each row begins with its filter: 0, none (PNG, third edition, section 9).
    rows = np.concatenate([np.zeros((_SIDE, 1), np.uint8), pixels.reshape(_SIDE, -1)], axis=1)
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
