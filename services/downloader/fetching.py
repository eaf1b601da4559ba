"""Fetching one photo: the thumbnail or the error that comes of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from concurrent.futures import Executor
from dataclasses import dataclass

from services.downloader import metrics
from services.downloader.source import PhotoSource
from shashin.errors import PhotoError
from shashin.photos import thumbnail


@dataclass(frozen=True)
class FetchedPhoto:
    """What became of one photo: a thumbnail or an error."""

    uri: str
    content_sha256: bytes = b""
    """Of the original, 32 bytes; empty when it could not be read."""
    thumbnail: bytes = b""
    error: PhotoError | None = None


class PhotoFetcher:
    """Fetches photos, a bounded number at a time, and makes thumbnails in ``executor``."""

    def __init__(
        self,
        source: PhotoSource,
        *,
        concurrency: int,
        executor: Executor,
    ) -> None:
        self._source = source
        # Held until the thumbnail is made: what is bounded is how many originals are in memory.
        self._places = asyncio.Semaphore(concurrency)
        self._executor = executor

    async def fetch(self, uri: str) -> FetchedPhoto:
        """Return the photo's thumbnail, or the error that stands in its way."""
        async with self._places:
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
            digest, made = await loop.run_in_executor(self._executor, _hash_and_shrink, data)
        except _Refused as refused:
            return FetchedPhoto(uri, refused.digest, error=refused.error)
        return FetchedPhoto(uri, digest, made)


class _Refused(Exception):
    """A photo that was read and cannot be used."""

    def __init__(self, digest: bytes, error: PhotoError) -> None:
        super().__init__(str(error))
        self.digest = digest
        self.error = error


def _hash_and_shrink(data: bytes) -> tuple[bytes, bytes]:
    digest = hashlib.sha256(data).digest()
    with metrics.THUMBNAIL_SECONDS.time():
        try:
            return digest, thumbnail(data)
        except PhotoError as error:
            raise _Refused(digest, error) from None
