"""Starts the downloader: ``python -m services.downloader``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from services.downloader.cache_loop import cache_loop
from services.downloader.handlers import DownloadStage
from services.downloader.settings import DownloaderSettings
from services.downloader.versions import NewestVersions
from shashin.kafka.consume import StageConsumer, Subscription
from shashin.kafka.groups import DOWNLOADER_GROUP
from shashin.kafka.producer import Producer
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, LISTINGS_HIDDEN
from shashin.objectstore.open import opened_object_store
from shashin.photo_sources.fetching import PhotoFetcher
from shashin.photo_sources.open import photo_fetcher
from shashin.runtime.disk import watch_disk
from shashin.runtime.scope import Loop, LoopScope, ServiceScope
from shashin.runtime.service import run_service
from shashin.thumbnails.store import ThumbnailStore
from shashin.thumbnails.writer import ThumbnailWriter


async def serve(scope: ServiceScope[DownloaderSettings]) -> None:
    """Run the downloader until SIGTERM."""
    settings = scope.settings
    cache = settings.cache()
    async with AsyncExitStack() as stack:
        producer = await scope.start.retry(
            f"kafka at {settings.kafka}",
            lambda: stack.enter_async_context(Producer(settings.kafka, client_id="downloader")),
        )
        fetcher = await stack.enter_async_context(
            photo_fetcher(settings, cache, confirm_after_seconds=settings.confirm_after_seconds)
        )
        thumbnails = await _thumbnails(settings, stack)
        consumer = StageConsumer(
            DownloadStage(fetcher, NewestVersions(settings.remembered_listings), thumbnails),
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
        consuming = _reporting_photos(consumer.loop(), fetcher)
        loops = [consuming]
        if thumbnails is not None:
            loops = [_finishing(consuming, thumbnails), thumbnails.loop()]
        if cache is not None:
            watch_disk("cache", cache.folder)
            loops.append(cache_loop(cache))
        await scope.run(*loops)


def _reporting_photos(loop: Loop, fetcher: PhotoFetcher) -> Loop:
    """Have each photo count as progress: a batch of slow hosts may take minutes."""

    async def run(handle: LoopScope) -> None:
        fetcher.on_progress = handle.next_turn
        await loop.run(handle)

    return replace(loop, run=run)


async def _thumbnails(
    settings: DownloaderSettings, stack: AsyncExitStack
) -> ThumbnailWriter | None:
    """Return what writes thumbnails for web pages; None if there is no store for them."""
    if not settings.thumbnails:
        return None
    objects = await stack.enter_async_context(opened_object_store(settings.thumbnails))
    return ThumbnailWriter(ThumbnailStore(objects), queue_bytes=settings.thumbnail_queue_bytes)


def _finishing(loop: Loop, thumbnails: ThumbnailWriter) -> Loop:
    """Have the end of the loop that offers thumbnails be known: their writer drains after it."""

    async def run(handle: LoopScope) -> None:
        try:
            await loop.run(handle)
        finally:
            thumbnails.finish()

    return replace(loop, run=run)


if __name__ == "__main__":
    run_service("downloader", DownloaderSettings, serve)
