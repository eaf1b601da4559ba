"""Which files are photos, by their names."""

from __future__ import annotations

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jpe", ".jfif"}
    | {".heic", ".heif", ".hif", ".avif"}
)
"""In lower case, of the formats that the services read."""
