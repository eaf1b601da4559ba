"""The photos that a load publishes and searches by, where the downloader may read them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shashin.client.listing_events import ListingAttributes
from shashin.codecs.limits import MAX_PHOTO_BYTES
from shashin.errors import UserError
from shashin.objectstore.open import opened_object_store
from shashin.runtime.files import open_regular


@dataclass(frozen=True)
class StockListing:
    """The photos and attributes of listings to publish."""

    uris: tuple[str, ...]
    attributes: ListingAttributes
    query: bytes
    """A photo to search by."""


def read_photo(path: Path) -> bytes:
    """Return a photo.

    Raises:
        UserError: if it cannot be read, or is larger than a query may be.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None
    if len(data) > MAX_PHOTO_BYTES:
        raise UserError(f"{path} is larger than {MAX_PHOTO_BYTES >> 20} MiB, the most for a photo")
    return data


async def uploaded(
    photos: Sequence[Path], destination: str, progress: Callable[[int], None]
) -> list[str]:
    """Copy photos to an object store, ``s3://BUCKET/PREFIX`` or ``gs://``, and return their URIs.

    They are named by their content, so that a run stores no photo twice. ``progress`` is called with the
    number of photos stored so far.

    Raises:
        UserError: if the destination is not of a known form.
        ObjectStoreUnavailable: if the store does not respond.
    """
    if not urlsplit(destination).scheme:
        raise UserError(f"{destination!r} is not a place for photos: expected s3://BUCKET/PREFIX")
    uris = []
    async with opened_object_store(destination) as store:
        for photo in photos:
            data = await asyncio.to_thread(read_photo, photo)
            key = f"{hashlib.sha256(data).hexdigest()}{photo.suffix.lower()}"
            await store.write(key, data)
            uris.append(f"{destination.rstrip('/')}/{key}")
            progress(len(uris))
    return uris
