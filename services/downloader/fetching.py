"""Fetching one photo: tries, time, and the thumbnail or the error that comes of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from concurrent.futures import Executor
from dataclasses import dataclass

from services.downloader import metrics
from services.downloader.source import PhotoSource
from shashin.errors import PhotoError
from shashin.kafka.retry import backoff_seconds
from shashin.photos import thumbnail
from shashin.service.runtime import sleep_unless


@dataclass(frozen=True)
class FetchedPhoto:
    """What became of one photo: a thumbnail or an error."""

    uri: str
    content_sha256: bytes = b""
    """Of the original, 32 bytes; empty when it could not be read."""
    thumbnail: bytes = b""
    error: PhotoError | None = None
    tries: int = 1


class PhotoFetcher:
    """Fetches photos, a bounded number at a time, and makes thumbnails in ``executor``."""

    def __init__(
        self,
        source: PhotoSource,
        *,
        concurrency: int,
        tries: int,
        executor: Executor,
        stopping: asyncio.Event,
    ) -> None:
        self._source = source
        # Held until the thumbnail is made: what is bounded is how many originals are in memory.
        self._places = asyncio.Semaphore(concurrency)
        self._tries = tries
        self._executor = executor
        self._stopping = stopping

    async def fetch(self, uri: str) -> FetchedPhoto:
        """Return the photo's thumbnail, or the error that stands in its way."""
        async with self._places:
            fetched = await self._fetch(uri)
        metrics.PHOTOS.labels(fetched.error.reason if fetched.error else "ok").inc()
        return fetched

    async def _fetch(self, uri: str) -> FetchedPhoto:
        started = time.perf_counter()
        tries, digest = 0, b""
        for wait in backoff_seconds():
            tries += 1
            try:
                data = await self._source.fetch(uri)
                break
            except PhotoError as error:
                if not error.retryable or tries >= self._tries or self._stopping.is_set():
                    return FetchedPhoto(uri, error=error, tries=tries)
            await sleep_unless(self._stopping, wait)
        metrics.FETCH_SECONDS.observe(time.perf_counter() - started)
        metrics.PHOTO_BYTES.inc(len(data))
        loop = asyncio.get_running_loop()
        try:
            digest, made = await loop.run_in_executor(self._executor, _hash_and_shrink, data)
        except _Refused as refused:
            return FetchedPhoto(uri, refused.digest, error=refused.error, tries=tries)
        return FetchedPhoto(uri, digest, made, tries=tries)


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
