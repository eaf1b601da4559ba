"""Faults of a whole system, one for each alert that they cause.

Each fault is a context: it is caused when the context is entered, and ended when it is left.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

from services.canary.handlers import known_listings
from shashin.kafka.topics import IMAGES_DOWNLOADED
from tests.drills.scene import Drill, SystemScene, repeated
from tests.support.running_system import RESTART_LIMIT
from tests.support.waiting import until

SLOW = {"objectives": 360.0, "promises": 360.0}
"""Six hours become a minute."""
STEADY = {"objectives": 4320.0, "promises": 4320.0}
"""Three days become a minute."""

_AHEAD_SECONDS = 25

# --- searching ----------------------------------------------------------------------------------


def searching(scene: SystemScene) -> AbstractAsyncContextManager[None]:
    """Users search."""
    return scene.searching()


def listing(scene: SystemScene) -> AbstractAsyncContextManager[None]:
    """Sellers list."""
    return scene.listing()


def embedder_hangs(scene: SystemScene) -> AbstractAsyncContextManager[None]:
    """The embedder hangs: searches by photo fail."""
    return scene.hung("embedder")


def index_server_hangs(scene: SystemScene) -> AbstractAsyncContextManager[None]:
    """The index server of the hourly tier hangs: searches lack what only it has."""
    return scene.hung("index-server-hourly")


@asynccontextmanager
async def embedder_is_slow(scene: SystemScene) -> AsyncIterator[None]:
    """The embedder stalls again and again, for longer than a listing may take."""
    waits = 'max(shashin_indexer_stage_lag_seconds{stage="embedder"})'

    async def stall() -> None:
        async with scene.hung("embedder"):
            await scene.alerts.until_more(waits, 7)
        await until_less(scene, waits, 1)

    async with repeated(stall, every_seconds=0):
        yield


async def until_less(scene: SystemScene, query: str, than: float) -> None:
    await scene.alerts.until_more(f"-({query})", -than)


@asynccontextmanager
async def sales_are_refused(scene: SystemScene) -> AsyncIterator[None]:
    """Listings come from a clock that is ahead, so their sales are dead-lettered as older versions.

    It ends once the clock that counts has caught up.
    """
    ahead = int((time.time() + _AHEAD_SECONDS) * 1000)
    for listing in known_listings("0"):
        await scene.system.publish(listing.listing_id, [listing.photo], version=ahead)
    yield


def router_is_dead(scene: SystemScene) -> AbstractAsyncContextManager[None]:
    """The only router has died."""
    return scene.dead("router")


def indexer_is_dead(scene: SystemScene) -> AbstractAsyncContextManager[None]:
    """The only indexer has died."""
    return scene.dead("indexer")


# --- pipeline -----------------------------------------------------------------------------------


@asynccontextmanager
async def photos_are_missing(scene: SystemScene) -> AsyncIterator[None]:
    """Photos of a few listings are not where their events say."""
    for number in range(20):
        uri = (scene.system.system.photos / f"missing-{number}.jpg").as_uri()
        await scene.system.publish(f"drill-missing-{number}", [uri])
    yield


@asynccontextmanager
async def photo_source_is_away(scene: SystemScene) -> AsyncIterator[None]:
    """The folder of most photos is not mounted; it comes back, and the downloader is restarted."""
    running, photos = scene.system.running, scene.system.system.photos
    folder = photos / "mounted"
    paths = [folder / f"{number}.jpg" for number in range(120)]
    for number, path in enumerate(paths):
        await scene.system.publish(f"drill-mounted-{number}", [path.as_uri()])
    yield
    folder.mkdir()
    for path in paths:
        path.write_bytes(scene.system.corpus[2].photos[0])
    await running.kill("downloader")


@asynccontextmanager
async def retention_is_short(scene: SystemScene) -> AsyncIterator[None]:
    """A topic retains its records for less than a minute, and its consumer hangs."""
    async with scene.topic_setting(IMAGES_DOWNLOADED, "retention.ms", "40000"):
        await scene.system.running.kill("embedder")
        async with scene.hung("embedder"):
            yield
    # The retention is read at the start.
    await scene.system.running.kill("embedder")


# --- tiers --------------------------------------------------------------------------------------


@asynccontextmanager
async def stored_shard_is_damaged(scene: SystemScene) -> AsyncIterator[None]:
    """A file of a served shard is damaged where it is stored, and the server that had it is new."""
    running = scene.system.running
    state = scene.system.system.folder
    damaged = await until(lambda: shard_files(state), "a shard is stored")
    contents = {path: path.read_bytes() for path in damaged}
    for path, content in contents.items():
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    before = running.row("index-server-hourly").restarts
    with running.supervisor_paused():
        running.send("index-server-hourly", signal.SIGKILL)
        await asyncio.to_thread(shutil.rmtree, state / "work/index-server-hourly")

    def restarted() -> bool:
        return running.row("index-server-hourly").restarts > before

    await until(restarted, "the index server is restarted", limit_seconds=RESTART_LIMIT)
    try:
        yield
    finally:
        for path, content in contents.items():
            path.write_bytes(content)


def shard_files(state: Path) -> list[Path]:
    """Return the files with the rows of all stored shards."""
    return sorted((state / "repository").rglob("rows*.arrow"))


@asynccontextmanager
async def repository_is_away(scene: SystemScene) -> AsyncIterator[None]:
    """The store of shards can neither be written nor read."""
    with moved_away(scene.system.system.folder / "repository"):
        yield


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    """Have a file where a folder is."""
    aside = folder.with_name(f"{folder.name}-aside")
    folder.rename(aside)
    folder.write_text("not a folder")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


# --- processes ----------------------------------------------------------------------------------


def image_builder_is_dead(scene: SystemScene) -> AbstractAsyncContextManager[None]:
    """The image builder has died."""
    return scene.dead("image-builder")


SEARCHES = r"searches failed over the last"
LEFT_OUT = r"searches left out a part of the listings over the last"
LATE = r"listings took longer than 5 seconds to become searchable over the last"

SYSTEM_DRILLS = {
    "ShashinAvailabilityBudgetBurnFast": Drill(embedder_hangs, f"{SEARCHES} 1h", searching),
    "ShashinAvailabilityBudgetBurnSlow": Drill(embedder_hangs, f"{SEARCHES} 6h", searching, SLOW),
    "ShashinAvailabilityBudgetBurnSteady": Drill(
        embedder_hangs, f"{SEARCHES} 3d", searching, STEADY
    ),
    "ShashinCompletenessBudgetBurnFast": Drill(index_server_hangs, f"{LEFT_OUT} 1h", searching),
    "ShashinCompletenessBudgetBurnSlow": Drill(
        index_server_hangs, f"{LEFT_OUT} 6h", searching, SLOW
    ),
    "ShashinCompletenessBudgetBurnSteady": Drill(
        index_server_hangs, f"{LEFT_OUT} 3d", searching, STEADY
    ),
    "ShashinFreshnessBudgetBurnFast": Drill(embedder_is_slow, f"{LATE} 1h", listing),
    "ShashinFreshnessBudgetBurnSlow": Drill(embedder_is_slow, f"{LATE} 6h", listing, SLOW),
    "ShashinFreshnessBudgetBurnSteady": Drill(embedder_is_slow, f"{LATE} 3d", listing, STEADY),
    "ShashinGhosts": Drill(sales_are_refused, "sold listings are still found"),
    "ShashinCanaryFailing": Drill(
        router_is_dead, r"found and gone again for \d+", factors={"searching": 20}
    ),
    "ShashinPartitionNotIndexed": Drill(indexer_is_dead, r"2 partitions are indexed by no ready"),
    "ShashinSearchesIncomplete": Drill(index_server_hangs, r"[1-9]\d* offsets are held by no"),
    "ShashinNoRouter": Drill(router_is_dead, "no router can be scraped"),
    "ShashinConsumerStuck": Drill(embedder_hangs, r"images\.downloaded", listing),
    "ShashinConsumptionPaused": Drill(photo_source_is_away, r"listings\.events is not processed"),
    "ShashinLagNearRetention": Drill(
        retention_is_short, r"records of images\.downloaded wait", listing
    ),
    "ShashinDeadLettersRising": Drill(
        photos_are_missing,
        r"2\d dead letters of listings\.events in 15 minutes: (NoUsablePhoto|PhotoMissing)",
    ),
    "ShashinBadShards": Drill(
        stored_shard_is_damaged, r"[1-9]\d* shards cannot be served by 127\.0\.0\.1:\d+"
    ),
    "ShashinSealingStuck": Drill(repository_is_away, "cannot seal", listing),
    "ShashinTargetDown": Drill(
        image_builder_is_dead, r"image-builder at 127\.0\.0\.1:\d+ cannot be scraped"
    ),
    "ShashinProblem": Drill(
        repository_is_away, r"(indexer|index-server-\w+|image-builder) at 127\.0\.0\.1:\d+ reports"
    ),
}
