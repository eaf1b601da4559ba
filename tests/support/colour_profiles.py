"""Small ICC profiles (version 2), written field by field."""

from __future__ import annotations

import struct
from collections.abc import Mapping

D50 = (0.9642, 1.0, 0.8249)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""XYZ of the red, green and blue of Adobe RGB (1998), adapted to D50."""


def matrix_profile(primaries: tuple[tuple[float, ...], ...] = ADOBE_RGB) -> bytes:
    """Return the profile of an RGB space with these primaries and a gamma of 2.2."""
    xyz = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, primaries), strict=True))
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _gamma(2.2))
    return _profile(b"mntr", b"RGB ", b"XYZ ", {b"wtpt": _xyz(D50), **xyz, **curves})


def grey_profile(gamma: float) -> bytes:
    """Return the profile of greyscale with this gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _gamma(gamma)})


def ink_profile(paper: tuple[int, int, int], ink: tuple[int, int, int]) -> bytes:
    """Return a CMYK profile in which full ink of any kind has one Lab colour, and none another."""
    grid = b"".join(bytes(paper if corner == 0 else ink) for corner in range(16))
    identity = bytes(range(256))
    matrix = struct.pack(">9I", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + grid + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": table})


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _profile(device: bytes, space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", at + len(body), b"test", 0x02100000, device, space, connection
    )
    header = (header + b"\0" * 12 + b"acsp").ljust(68, b"\0")
    header += struct.pack(">3i", *(round(value * 65536) for value in D50))
    return header.ljust(128, b"\0") + table + body
