"""A few real photos, which ship with this package: a folder per product, licences beside them."""

from __future__ import annotations

from pathlib import Path


def real_photos_folder() -> Path:
    """Return the folder of products; ``README.md`` in it names sources and licences."""
    return Path(__file__).parent / "real_photos"
