"""Opens every photo source that the settings allow, and what fetches from them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

from shashin.originals import OriginalsCache
from shashin.photo_sources.byte_budget import ByteBudget
from shashin.photo_sources.fetching import PhotoFetcher
from shashin.photo_sources.files import FileSource
from shashin.photo_sources.https import HttpsLimits, HttpsSource
from shashin.photo_sources.object_store import ObjectStoreSource
from shashin.photo_sources.originals import Originals
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.settings import PhotoSettings
from shashin.photo_sources.source import Sources
from shashin.photos import DecodeBudget


@asynccontextmanager
async def photo_fetcher(
    settings: PhotoSettings, cache: OriginalsCache | None, *, confirm_after_seconds: float
) -> AsyncIterator[PhotoFetcher]:
    """Open the sources and the threads that decode; yields what fetches photos.

    A photo that its source sent or confirmed within ``confirm_after_seconds`` is taken from the cache
    without a request.
    """
    requests = RequestLimits(total=settings.concurrency, per_host=settings.host_concurrency)
    max_bytes = settings.max_bytes
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(
            ThreadPoolExecutor(settings.decoders, thread_name_prefix="decode")
        )
        https = await stack.enter_async_context(
            HttpsSource(
                settings.hosts(),
                HttpsLimits(max_bytes, settings.photo_connect_seconds, settings.photo_seconds),
                requests,
                private_networks=settings.private_networks(),
            )
        )
        buckets = await stack.enter_async_context(
            ObjectStoreSource(
                settings.buckets(),
                requests,
                max_bytes=max_bytes,
                total_seconds=settings.photo_seconds,
            )
        )
        files = FileSource(settings.roots(), max_bytes=max_bytes, limits=requests)
        yield PhotoFetcher(
            Originals(
                Sources({"file": files, "https": https, "s3": buckets, "gs": buckets}),
                cache,
                confirm_after_seconds=confirm_after_seconds,
            ),
            originals_budget=ByteBudget(settings.original_bytes),
            executor=executor,
            decode_budget=DecodeBudget(settings.decode_bytes),
        )
