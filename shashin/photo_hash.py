"""The hash of a photo: what rows keep of the SHA-256 of its original, and how it is written in text. Pure."""

from __future__ import annotations

import re

_BYTES = 8
_HEX = re.compile(r"[0-9a-f]{16}")


def photo_hash(content_sha256: bytes) -> int:
    """Return what a row keeps of a photo's SHA-256: its first 64 bits, little-endian; 0 if it is not known."""
    return int.from_bytes(content_sha256[:_BYTES], "little")


def hex_photo_hash(kept: int) -> str:
    """Return a row's photo hash in text: the first 16 hexadecimal digits of the SHA-256; empty if it is 0."""
    return kept.to_bytes(_BYTES, "little").hex() if kept else ""


def is_hex_photo_hash(text: str) -> bool:
    """Return whether a text is a photo hash: 16 hexadecimal digits in lower case."""
    return _HEX.fullmatch(text) is not None
