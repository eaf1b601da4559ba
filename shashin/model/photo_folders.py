"""Folders of products: each subfolder is a product, and its files are its photos.

Files named ``query-*`` are photos to search with, and not part of what is searched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from shashin.errors import PhotoError, PhotoFolderError
from shashin.photo_names import PHOTO_SUFFIXES
from shashin.photos import DecodeBudget, thumbnail_image

_QUERY = "query-"
_DECODE_BYTES = 1024 * 1024 * 1024


@dataclass(frozen=True)
class ProductPhotos:
    """The photos of one product."""

    name: str
    """Of its folder."""
    photos: tuple[Path, ...]
    queries: tuple[Path, ...] = ()


def read_products(folders: Sequence[Path]) -> list[ProductPhotos]:
    """Return the products in some folders, by folder and name; subfolders without photos are none.

    Raises:
        PhotoFolderError: if a folder cannot be read, or has no products.
    """
    return [product for folder in folders for product in _products_of(folder)]


def _products_of(folder: Path) -> list[ProductPhotos]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
        files = {
            home: sorted(path for path in home.iterdir() if _is_photo(path)) for home in inside
        }
    except OSError as error:
        raise PhotoFolderError(f"{folder} cannot be read: {error.strerror or error}") from None
    found = []
    for home, photos in files.items():
        queries = tuple(photo for photo in photos if photo.name.startswith(_QUERY))
        kept = tuple(photo for photo in photos if not photo.name.startswith(_QUERY))
        if kept:
            found.append(ProductPhotos(home.name, kept, queries))
    if not found:
        raise PhotoFolderError(
            f"{folder} has no products: expected a folder for each one, with its photos as files"
        )
    return found


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()


def is_held_out(product: ProductPhotos, one_in: int) -> bool:
    """Return whether a product is the one in ``one_in`` that no head is fitted on; its name decides.

    Of 0 products, none is.
    """
    number = int.from_bytes(hashlib.sha256(product.name.encode()).digest())
    return one_in > 0 and number % one_in == one_in - 1


def open_photo(path: Path) -> Image.Image:
    """Return a photo as services see it: upright, RGB, in sRGB, 256 pixels on its short side.

    Raises:
        PhotoFolderError: if it cannot be used; the message names the file.
    """
    try:
        return thumbnail_image(path.read_bytes(), budget=DecodeBudget(_DECODE_BYTES))
    except OSError as error:
        raise PhotoFolderError(f"{path} cannot be read: {error.strerror or error}") from None
    except PhotoError as error:
        raise PhotoFolderError(
            f"{path} cannot be used ({error.reason}: {error.message}): remove it, or save it anew"
        ) from None
