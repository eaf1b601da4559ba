"""Reads thumbnails for web pages, from memory where it can."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shashin.metrics import thumbnails as metrics
from shashin.objectstore.open import opened_object_store
from shashin.thumbnails.store import ThumbnailStore


class ThumbnailReader:
    """The thumbnails of a store, with those that were asked for last in memory, up to ``cache_bytes``.

    What is missing is not remembered: it may be written at any moment.
    """

    def __init__(self, store: ThumbnailStore, *, cache_bytes: int) -> None:
        self._store = store
        self._limit = cache_bytes
        self._cached: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._reading: dict[str, asyncio.Future[bytes | None]] = {}
        metrics.CACHE_BYTES.set_function(lambda: self._bytes)

    @property
    def cached_bytes(self) -> int:
        """Bytes of the thumbnails in memory."""
        return self._bytes

    async def read(self, photo_hash: str) -> bytes | None:
        """Return a photo's thumbnail as a JPEG; None if there is none (yet).

        Whoever asks for one that is being read waits for the same read.

        Raises:
            UserError: when it is not a photo hash, 16 hexadecimal digits.
            ObjectStoreError: when the store cannot be read.
        """
        if (thumbnail := self._cached.get(photo_hash)) is not None:
            self._cached.move_to_end(photo_hash)
            metrics.READS.labels(metrics.CACHED).inc()
            return thumbnail
        reading = self._reading.get(photo_hash)
        if reading is None:
            reading = self._reading[photo_hash] = asyncio.ensure_future(self._read(photo_hash))
            reading.add_done_callback(lambda read: self._end(photo_hash, read))
        # Whoever stops waiting ends nobody else's read.
        try:
            thumbnail = await asyncio.shield(reading)
        except asyncio.CancelledError:
            raise
        except Exception:
            metrics.READS.labels(metrics.FAILED).inc()
            raise
        metrics.READS.labels(metrics.MISSING if thumbnail is None else metrics.FOUND).inc()
        return thumbnail

    async def close(self) -> None:
        """End all reads; no other may follow."""
        reads = list(self._reading.values())
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    async def _read(self, photo_hash: str) -> bytes | None:
        started = time.perf_counter()
        try:
            return await self._store.read(photo_hash)
        finally:
            metrics.READ_SECONDS.observe(time.perf_counter() - started)

    def _end(self, photo_hash: str, read: asyncio.Future[bytes | None]) -> None:
        del self._reading[photo_hash]
        # Taken also if nobody waits any more: otherwise it would be reported as never retrieved.
        if read.cancelled() or read.exception() is not None:
            return
        if (thumbnail := read.result()) is not None:
            self._keep(photo_hash, thumbnail)

    def _keep(self, photo_hash: str, thumbnail: bytes) -> None:
        if len(thumbnail) > self._limit:
            return
        self._cached[photo_hash] = thumbnail
        self._bytes += len(thumbnail)
        while self._bytes > self._limit:
            _, oldest = self._cached.popitem(last=False)
            self._bytes -= len(oldest)


@asynccontextmanager
async def opened_thumbnails(uri: str, *, cache_bytes: int) -> AsyncIterator[ThumbnailReader]:
    """Open the thumbnails in the object store at ``uri``, to read them; closes all at the end.

    Raises:
        UserError: when it is no object store's URI, or its library is not installed.
    """
    async with opened_object_store(uri) as objects:
        reader = ThumbnailReader(ThumbnailStore(objects), cache_bytes=cache_bytes)
        try:
            yield reader
        finally:
            await reader.close()
