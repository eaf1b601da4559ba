"""Fetches originals: from the cache where it may be used, else from their sources."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from shashin.errors import PhotoMissing, PhotoUnavailable
from shashin.metrics import downloader as metrics
from shashin.originals import CacheEntry, Original, OriginalsCache
from shashin.photo_sources.byte_budget import Lease
from shashin.photo_sources.source import PhotoSource, SourcePhoto
from shashin.runtime.logging import get_logger

P = ParamSpec("P")
T = TypeVar("T")

log = get_logger(__name__)


class Originals:
    """Originals by URI.

    A cached original is used as it is, without any request, if its source sent or confirmed it
    within ``confirm_after_seconds``. Otherwise, and when the caller asks for it, the source is asked
    whether it has changed.
    """

    def __init__(
        self,
        source: PhotoSource,
        cache: OriginalsCache | None,
        *,
        confirm_after_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._cache = cache
        self._confirm_after_seconds = confirm_after_seconds
        self._clock = clock
        # More threads than cores would only take turns with those that decode.
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="originals")

    async def fetch(self, uri: str, lease: Lease, *, confirm: bool = False) -> Original:
        """Return the original at a URI; ``lease`` holds its bytes.

        With ``confirm`` the source is always asked. If it does not respond and ``confirm`` is not
        set, the cached original is used however old it is.

        Raises:
            PhotoError: see ``PhotoSource``.
        """
        if self._cache is None:
            found = await self._source.fetch(uri, lease)
            assert found is not None
            return await self._in_thread(_original, found)
        entry = await self._in_thread(self._cache.lookup, uri)
        if entry is not None and not confirm and self._is_recent(entry):
            original = await self._cached(self._cache, entry, lease)
            if original is not None:
                return original
            entry = None
        return await self._ask(self._cache, uri, lease, entry, confirm=confirm)

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(work, *args, **kwargs))

    async def forget(self, uri: str) -> None:
        """Have the source asked the next time, since what it sent cannot be used."""
        if self._cache is not None:
            await self._in_thread(self._cache.forget, uri)

    def _is_recent(self, entry: CacheEntry) -> bool:
        return 0 <= self._clock() - entry.fetched_at < self._confirm_after_seconds

    async def _cached(
        self, cache: OriginalsCache, entry: CacheEntry, lease: Lease
    ) -> Original | None:
        await lease.hold(entry.size)
        return await self._in_thread(cache.read, entry)

    async def _ask(
        self,
        cache: OriginalsCache,
        uri: str,
        lease: Lease,
        entry: CacheEntry | None,
        *,
        confirm: bool,
    ) -> Original:
        try:
            found = await self._source.fetch(uri, lease, entry.version if entry else None)
            if found is None:
                assert entry is not None
                original = await self._cached(cache, entry, lease)
                if original is not None:
                    await self._in_thread(cache.confirm, entry)
                    metrics.CONFIRMATIONS.labels("unchanged").inc()
                    return original
                found = await self._source.fetch(uri, lease)
                assert found is not None
        except PhotoMissing:
            await self._in_thread(cache.forget, uri)
            raise
        except PhotoUnavailable as error:
            if entry is not None and not confirm:
                original = await self._cached(cache, entry, lease)
                if original is not None:
                    metrics.CONFIRMATIONS.labels("unavailable").inc()
                    log.info("photo used from the cache", uri=uri, error=error.message)
                    return original
            raise
        original = await self._in_thread(_original, found)
        if entry is not None:
            self._note_confirmed(uri, entry, original)
        await self._in_thread(cache.store, uri, original, found.version)
        return original

    def _note_confirmed(self, uri: str, entry: CacheEntry, original: Original) -> None:
        changed = original.sha256.hex() != entry.sha256
        metrics.CONFIRMATIONS.labels("changed" if changed else "unchanged").inc()
        if changed:
            log.warning(
                "photo changed under its URI",
                uri=uri,
                before=entry.sha256,
                now=original.sha256.hex(),
                last_fetched_at=entry.fetched_at,
            )


def _original(found: SourcePhoto) -> Original:
    return Original(found.data, hashlib.sha256(found.data).digest())
