"""The thumbnails in an object store, by the hash of their photo."""

from __future__ import annotations

from shashin.errors import ObjectNotFound, PreconditionFailed
from shashin.objectstore.protocol import ObjectStore, OnlyIf
from shashin.thumbnails.keys import thumbnail_key


class ThumbnailStore:
    """Thumbnails are written once and never changed; a hash that is not one raises UserError.

    All operations raise ObjectStoreError as those of the object store do.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def write(self, photo_hash: str, thumbnail: bytes) -> bool:
        """Write a thumbnail unless there is one; returns whether there was none."""
        try:
            await self._objects.write(thumbnail_key(photo_hash), thumbnail, only_if=OnlyIf.absent())
        except PreconditionFailed:
            # Also after a retry whose first attempt succeeded.
            return False
        return True

    async def read(self, photo_hash: str) -> bytes | None:
        """Return a photo's thumbnail; None if there is none."""
        try:
            thumbnail, _ = await self._objects.read(thumbnail_key(photo_hash))
        except ObjectNotFound:
            return None
        return thumbnail

    async def has(self, photo_hash: str) -> bool:
        """Return whether there is a thumbnail of a photo."""
        try:
            await self._objects.stat(thumbnail_key(photo_hash))
        except ObjectNotFound:
            return False
        return True
