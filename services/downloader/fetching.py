"""Fetches photos and makes their thumbnails."""

from __future__ import annotations

import asyncio
import hashlib
import time
from concurrent.futures import Executor
from dataclasses import dataclass

from services.downloader import metrics
from services.downloader.source import PhotoSource
from shashin.errors import PhotoError
from shashin.photos import DecodeBudget, thumbnail


@dataclass(frozen=True)
class FetchedPhoto:
    """The outcome of one photo: a thumbnail or an error."""

    uri: str
    content_sha256: bytes = b""
    """Digest of the original, 32 bytes; empty if it could not be read."""
    thumbnail: bytes = b""
    error: PhotoError | None = None


class PhotoFetcher:
    """Fetches a bounded number of photos concurrently and makes thumbnails in ``executor``.

    ``budget`` bounds the memory of its decodes.
    """

    def __init__(
        self,
        source: PhotoSource,
        *,
        concurrency: int,
        executor: Executor,
        budget: DecodeBudget,
    ) -> None:
        self._source = source
        # Held until the thumbnail is made, to bound the number of originals in memory.
        self._slots = asyncio.Semaphore(concurrency)
        self._executor = executor
        self._budget = budget
        metrics.WAITING_DECODES.set_function(lambda: budget.waiting)

    async def fetch(self, uri: str) -> FetchedPhoto:
        """Return the photo's thumbnail, or the error."""
        async with self._slots:
            fetched = await self._fetch(uri)
        metrics.PHOTOS.labels(fetched.error.reason if fetched.error else "ok").inc()
        return fetched

    async def _fetch(self, uri: str) -> FetchedPhoto:
        started = time.perf_counter()
        try:
            data = await self._source.fetch(uri)
        except PhotoError as error:
            return FetchedPhoto(uri, error=error)
        metrics.FETCH_SECONDS.observe(time.perf_counter() - started)
        metrics.PHOTO_BYTES.inc(len(data))
        loop = asyncio.get_running_loop()
        try:
            digest, made = await loop.run_in_executor(
                self._executor, _hash_and_thumbnail, data, self._budget
            )
        except _UnusablePhoto as unusable:
            return FetchedPhoto(uri, unusable.digest, error=unusable.error)
        return FetchedPhoto(uri, digest, made)


class _UnusablePhoto(Exception):
    """A photo that was read but cannot be used."""

    def __init__(self, digest: bytes, error: PhotoError) -> None:
        super().__init__(str(error))
        self.digest = digest
        self.error = error


def _hash_and_thumbnail(data: bytes, budget: DecodeBudget) -> tuple[bytes, bytes]:
    digest = hashlib.sha256(data).digest()
    with metrics.THUMBNAIL_SECONDS.time():
        try:
            return digest, thumbnail(data, budget=budget)
        except PhotoError as error:
            raise _UnusablePhoto(digest, error) from None
