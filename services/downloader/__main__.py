"""Starts the downloader: ``python -m services.downloader``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from services.downloader.fetching import PhotoFetcher
from services.downloader.handlers import DownloadStage
from services.downloader.settings import DownloaderSettings
from services.downloader.source import FileSource, Sources
from services.downloader.versions import NewestVersions
from shashin.kafka.consume import consume
from shashin.kafka.producer import Producer
from shashin.kafka.retry import until_done
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.runtime.scope import Runtime, run_service


async def serve(runtime: Runtime[DownloaderSettings]) -> None:
    """Run the downloader until SIGTERM."""
    settings, health, stopping = runtime.settings, runtime.health, runtime.stopping
    sources = Sources({"file": FileSource(settings.roots(), max_bytes=settings.max_bytes)})
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(
            ThreadPoolExecutor(settings.decoders, thread_name_prefix="decode")
        )
        beat = health.heartbeat("start")
        producer = await until_done(
            f"connect to kafka at {settings.kafka}",
            lambda: stack.enter_async_context(Producer(settings.kafka, client_id="downloader")),
            stopping=stopping,
            beat=beat,
        )
        health.finished(beat)
        fetcher = PhotoFetcher(
            sources,
            concurrency=settings.concurrency,
            executor=executor,
        )
        await runtime.run_until_stopped(
            consume(
                DownloadStage(fetcher, NewestVersions(settings.remembered_listings)),
                bootstrap=settings.kafka,
                topic=LISTINGS_EVENTS,
                group="downloader",
                producer=producer,
                health=health,
                stopping=stopping,
                max_records=settings.batch_records,
                giving_up=settings.giving_up(),
            )
        )


if __name__ == "__main__":
    run_service("downloader", DownloaderSettings, serve)
