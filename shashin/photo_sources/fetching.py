"""Fetches photos and makes their thumbnails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from shashin.errors import PhotoError
from shashin.metrics import downloader as metrics
from shashin.photo_sources.byte_budget import ByteBudget, Lease
from shashin.photo_sources.originals import Originals
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
    """Fetches photos concurrently and makes thumbnails in ``executor``.

    ``originals_budget`` bounds the memory of originals, from their download until the thumbnail is
    made, and ``decode_budget`` that of decodes.
    """

    def __init__(
        self,
        originals: Originals,
        *,
        originals_budget: ByteBudget,
        executor: Executor,
        decode_budget: DecodeBudget,
    ) -> None:
        self._originals = originals
        self._originals_budget = originals_budget
        self._executor = executor
        self._decode_budget = decode_budget
        self.on_progress: Callable[[], object] = lambda: None
        """Called after each photo."""
        metrics.WAITING_DECODES.set_function(lambda: decode_budget.waiting)
        metrics.WAITING_ORIGINALS.set_function(lambda: originals_budget.waiting)
        metrics.ORIGINAL_BYTES.set_function(lambda: originals_budget.taken)

    async def fetch(self, uri: str, *, confirm: bool = False) -> FetchedPhoto:
        """Return the photo's thumbnail, or the error.

        With ``confirm`` its source is asked whether it has changed, even if it is cached.
        """
        with self._originals_budget.lease() as lease:
            fetched = await self._fetch(uri, lease, confirm=confirm)
        metrics.PHOTOS.labels(fetched.error.reason if fetched.error else "ok").inc()
        self.on_progress()
        return fetched

    async def _fetch(self, uri: str, lease: Lease, *, confirm: bool) -> FetchedPhoto:
        started = time.perf_counter()
        try:
            original = await self._originals.fetch(uri, lease, confirm=confirm)
        except PhotoError as error:
            return FetchedPhoto(uri, error=error)
        metrics.FETCH_SECONDS.observe(time.perf_counter() - started)
        metrics.PHOTO_BYTES.inc(len(original.data))
        try:
            made = await asyncio.get_running_loop().run_in_executor(
                self._executor, _thumbnail, original.data, self._decode_budget
            )
        except PhotoError as error:
            await self._originals.forget(uri)
            return FetchedPhoto(uri, original.sha256, error=error)
        return FetchedPhoto(uri, original.sha256, made)


def _thumbnail(data: bytes, budget: DecodeBudget) -> bytes:
    with metrics.THUMBNAIL_SECONDS.time():
        return thumbnail(data, budget=budget)
