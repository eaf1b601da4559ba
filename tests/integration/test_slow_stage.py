"""A paused stage: the log is the buffer, and no process's memory grows."""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import psutil
from PIL import Image

from shashin.client.listing_events import LISTED, listing_event, record_of
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import Producer
from shashin.kafka.topics import IMAGES_DOWNLOADED, VECTORS_EMBEDDED
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]

PAUSE_SECONDS = 60.0
LISTINGS_AT_ONCE = 150
PHOTOS_EACH = 3
GROWTH_BYTES = 40 * 1024 * 1024
"""Allowance for allocators; the thumbnails passing through are far larger."""


async def test_a_paused_embedder_costs_no_memory_and_loses_no_listing(
    start_service: StartService, producer: Producer, kafka: str, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(PHOTOS_EACH):
        Image.effect_noise((640, 480), 60 + number).convert("RGB").save(photos / f"{number}.jpg")
    uris = [(photos / f"{number}.jpg").as_uri() for number in range(PHOTOS_EACH)]
    downloader = await start_service("downloader", photo_roots=photos)
    embedder = await start_service("embedder")
    embedder.process.send_signal(signal.SIGSTOP)
    memory = psutil.Process(downloader.process.pid).memory_info
    sent = warm = peak = 0
    stopped_at = time.monotonic()
    try:
        # As fast as the downloader takes them, for a minute.
        while time.monotonic() - stopped_at < PAUSE_SECONDS:
            await _publish(producer, uris, sent, sent + LISTINGS_AT_ONCE)
            sent += LISTINGS_AT_ONCE
            await until(partial(_reaches, kafka, IMAGES_DOWNLOADED, sent), "all are downloaded")
            warm = warm or memory().rss
            peak = max(peak, memory().rss)
    finally:
        embedder.process.send_signal(signal.SIGCONT)
    assert sent > LISTINGS_AT_ONCE
    assert peak - warm < GROWTH_BYTES
    before = psutil.Process(embedder.process.pid).memory_info().rss
    await until(
        lambda: _reaches(kafka, VECTORS_EMBEDDED, sent), "nothing is lost", limit_seconds=240
    )
    grown = psutil.Process(embedder.process.pid).memory_info().rss - before
    assert grown < 4 * GROWTH_BYTES  # one batch of listings with their decoded photos


async def _publish(producer: Producer, uris: list[str], first: int, last: int) -> None:
    await producer.send_all(
        record_of(listing_event(f"listing-{n}", 1, LISTED, photo_uris=uris))
        for n in range(first, last)
    )


async def _reaches(kafka: str, topic: str, records: int) -> bool:
    async with LogReader(kafka, topic, client_id="test") as reader:
        ends = await reader.end_offsets(await reader.partitions())
    return sum(ends.values()) >= records
