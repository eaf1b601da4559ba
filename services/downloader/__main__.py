"""Starts the downloader: ``python -m services.downloader``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace

from services.downloader.byte_budget import ByteBudget
from services.downloader.cache_loop import cache_loop
from services.downloader.fetching import PhotoFetcher
from services.downloader.handlers import DownloadStage
from services.downloader.originals import Originals
from services.downloader.request_limits import RequestLimits
from services.downloader.settings import DownloaderSettings
from services.downloader.sources.files import FileSource
from services.downloader.sources.https import HttpsLimits, HttpsSource
from services.downloader.sources.object_store import ObjectStoreSource
from services.downloader.sources.source import Sources
from services.downloader.versions import NewestVersions
from shashin.kafka.consume import StageConsumer, Subscription
from shashin.kafka.groups import DOWNLOADER_GROUP
from shashin.kafka.producer import Producer
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, LISTINGS_HIDDEN
from shashin.photos import DecodeBudget
from shashin.runtime.scope import Loop, LoopScope, ServiceScope
from shashin.runtime.service import run_service


async def serve(scope: ServiceScope[DownloaderSettings]) -> None:
    """Run the downloader until SIGTERM."""
    settings = scope.settings
    cache = settings.cache()
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(
            ThreadPoolExecutor(settings.decoders, thread_name_prefix="decode")
        )
        sources = await _open_sources(settings, stack)
        producer = await scope.start.retry(
            f"kafka at {settings.kafka}",
            lambda: stack.enter_async_context(Producer(settings.kafka, client_id="downloader")),
        )
        fetcher = PhotoFetcher(
            Originals(sources, cache, confirm_after_seconds=settings.confirm_after_seconds),
            originals_budget=ByteBudget(settings.original_bytes),
            executor=executor,
            decode_budget=DecodeBudget(settings.decode_bytes),
        )
        consumer = StageConsumer(
            DownloadStage(fetcher, NewestVersions(settings.remembered_listings)),
            Subscription(
                settings.kafka,
                LISTINGS_EVENTS,
                DOWNLOADER_GROUP,
                settings.batch_records,
                on_lost_records=settings.on_lost_records,
                writes=(IMAGES_DOWNLOADED, LISTINGS_HIDDEN),
            ),
            producer,
            settings.dead_letter_policy(),
        )
        loops = [_reporting_photos(consumer.loop(), fetcher)]
        if cache is not None:
            loops.append(cache_loop(cache))
        await scope.run(*loops)


async def _open_sources(settings: DownloaderSettings, stack: AsyncExitStack) -> Sources:
    requests = RequestLimits(total=settings.concurrency, per_host=settings.host_concurrency)
    max_bytes = settings.max_bytes
    https = HttpsSource(
        settings.hosts(),
        HttpsLimits(max_bytes, settings.photo_connect_seconds, settings.photo_seconds),
        requests,
        private_networks=settings.private_networks(),
    )
    buckets = await stack.enter_async_context(
        ObjectStoreSource(
            settings.buckets(),
            requests,
            max_bytes=max_bytes,
            total_seconds=settings.photo_seconds,
        )
    )
    return Sources(
        {
            "file": FileSource(settings.roots(), max_bytes=max_bytes, limits=requests),
            "https": await stack.enter_async_context(https),
            "s3": buckets,
            "gs": buckets,
        }
    )


def _reporting_photos(loop: Loop, fetcher: PhotoFetcher) -> Loop:
    """Have each photo count as progress: a batch of slow hosts may take minutes."""

    async def run(handle: LoopScope) -> None:
        fetcher.on_progress = handle.next_turn
        await loop.run(handle)

    return replace(loop, run=run)


if __name__ == "__main__":
    run_service("downloader", DownloaderSettings, serve)
