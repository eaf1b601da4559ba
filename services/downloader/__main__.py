"""Starts the downloader: ``python -m services.downloader``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from services.downloader.fetching import PhotoFetcher
from services.downloader.handlers import DownloadStage
from services.downloader.settings import DownloaderSettings
from services.downloader.source import FileSource, Sources
from services.downloader.versions import NewestVersions
from shashin.kafka.consume import StageConsumer, Subscription
from shashin.kafka.groups import DOWNLOADER_GROUP
from shashin.kafka.producer import Producer
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, LISTINGS_HIDDEN
from shashin.photos import DecodeBudget
from shashin.runtime.scope import ServiceScope
from shashin.runtime.service import run_service


async def serve(scope: ServiceScope[DownloaderSettings]) -> None:
    """Run the downloader until SIGTERM."""
    settings = scope.settings
    sources = Sources({"file": FileSource(settings.roots(), max_bytes=settings.max_bytes)})
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(
            ThreadPoolExecutor(settings.decoders, thread_name_prefix="decode")
        )
        producer = await scope.start.retry(
            f"kafka at {settings.kafka}",
            lambda: stack.enter_async_context(Producer(settings.kafka, client_id="downloader")),
        )
        fetcher = PhotoFetcher(
            sources,
            concurrency=settings.concurrency,
            executor=executor,
            budget=DecodeBudget(settings.decode_bytes),
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
        await scope.run(consumer.loop())


if __name__ == "__main__":
    run_service("downloader", DownloaderSettings, serve)
