"""Stores of thumbnails that fail or hang, over a folder that works."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from shashin.errors import ObjectStoreUnavailable
from shashin.objectstore.file import FileObjectStore
from shashin.thumbnails.store import ThumbnailStore


class OddStore(ThumbnailStore):
    """Raises ``errors`` one after another, then works; waits while ``open`` is not set."""

    def __init__(self, folder: Path, errors: Sequence[Exception] = ()) -> None:
        super().__init__(FileObjectStore(folder))
        self.errors = list(errors)
        self.open = asyncio.Event()
        self.open.set()
        self.calls = 0

    async def _before(self) -> None:
        self.calls += 1
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)

    async def write(self, photo_hash: str, thumbnail: bytes) -> bool:
        """Write, after what is odd."""
        await self._before()
        return await super().write(photo_hash, thumbnail)

    async def read(self, photo_hash: str) -> bytes | None:
        """Read, after what is odd."""
        await self._before()
        return await super().read(photo_hash)


def unavailable() -> ObjectStoreUnavailable:
    """Return an error after which a retry can help."""
    return ObjectStoreUnavailable("the store is on fire")
