"""The canary against the whole system: it finds, sells, and reports what does not work."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from services.canary.handlers import known_listings
from shashin.client.listing_events import LISTED
from shashin.client.topic_tails import topic_tails
from shashin.kafka.topics import LISTINGS_EVENTS
from shashin.v1 import events_pb2
from tests.support.running_service import RunningService
from tests.support.running_system import ConnectedSystem
from tests.support.waiting import until

StartCanary = Callable[..., Awaitable[RunningService]]


@pytest.fixture
async def start_canary(system: ConnectedSystem, tmp_path: Path) -> AsyncIterator[StartCanary]:
    """Start a canary of its own name beside the system."""
    async with AsyncExitStack() as stack:

        async def start(replica: str, **settings: object) -> RunningService:
            values = {
                "router": system.system.router_address(),
                "photos": (system.system.photos / f"canary-{replica}").as_uri(),
                "replica": replica,
                "every_seconds": 0.5,
                **settings,
            }
            kafka = system.system.kafka_address()
            canary = RunningService("canary", kafka, values, log=tmp_path / "logs")
            stack.push_async_callback(canary.close)
            await canary.start()
            await canary.until_ready()
            return canary

        yield start


async def until_more(canary: RunningService, name: str, than: float = 0.0) -> None:
    async def more() -> bool:
        return await canary.metric(name) > than

    await until(more, f"{name} is more than {than}", limit_seconds=150)


def ids_of(replica: str) -> list[str]:
    return [listing.listing_id for listing in known_listings(replica)]


async def test_it_finds_what_it_publishes_sees_it_go_and_leaves_nothing_when_it_stops(
    system: ConnectedSystem, start_canary: StartCanary
) -> None:
    canary = await start_canary("plain")
    await until_more(canary, "shashin_canary_gone_seconds_count", 2)
    assert await canary.metric("shashin_canary_found_seconds_count") >= 3
    assert await canary.metric("shashin_canary_found_seconds_sum") > 0
    assert await canary.metric("shashin_canary_last_success_timestamp_seconds") > 0
    assert await canary.stop() == 0
    await system.until_versions(dict.fromkeys(ids_of("plain")))


async def test_a_listing_that_does_not_become_searchable_is_reported_and_then_it_recovers(
    system: ConnectedSystem, start_canary: StartCanary
) -> None:
    canary = await start_canary("slow", found_limit_seconds=5)
    await until_more(canary, "shashin_canary_gone_seconds_count")
    with system.running.supervisor_paused():
        system.running.send("downloader", signal.SIGSTOP)
        try:
            await until_more(canary, 'shashin_canary_failures_total{kind="not_found"}')
        finally:
            system.running.send("downloader", signal.SIGCONT)
    before = await canary.metric("shashin_canary_gone_seconds_count")
    await until_more(canary, "shashin_canary_gone_seconds_count", before)
    assert await canary.stop() == 0
    await system.until_versions(dict.fromkeys(ids_of("slow")))


async def test_without_the_live_tier_it_reports_incomplete_answers_and_then_it_recovers(
    system: ConnectedSystem, start_canary: StartCanary
) -> None:
    canary = await start_canary("gap", found_limit_seconds=5, gone_limit_seconds=5)
    await until_more(canary, "shashin_canary_gone_seconds_count")
    with system.running.supervisor_paused():
        system.running.send("indexer", signal.SIGSTOP)
        try:
            await until_more(canary, 'shashin_canary_failures_total{kind="incomplete"}')
        finally:
            system.running.send("indexer", signal.SIGCONT)
    before = await canary.metric("shashin_canary_gone_seconds_count")
    await until_more(canary, "shashin_canary_gone_seconds_count", before)
    assert await canary.stop() == 0
    await system.until_versions(dict.fromkeys(ids_of("gap")))


async def test_what_a_killed_canary_left_on_sale_is_sold_at_its_next_start(
    system: ConnectedSystem, start_canary: StartCanary
) -> None:
    canary = await start_canary("killed", found_limit_seconds=300)
    await until_more(canary, "shashin_canary_gone_seconds_count")
    listings = ids_of("killed")
    on_sale = partial(_on_sale, system, listings)
    with system.running.supervisor_paused():
        # So that it is killed while one of its listings is on sale.
        system.running.send("downloader", signal.SIGSTOP)
        try:
            await _kill_when(on_sale, canary)
            if not await on_sale():
                # It had just been found, and was sold before the kill. Now none is found any more.
                await _kill_when(on_sale, await start_canary("killed", found_limit_seconds=300))
        finally:
            system.running.send("downloader", signal.SIGCONT)

    async def stays() -> bool:
        return bool(await system.located(*listings))

    await until(stays, "a listing of the killed canary is searchable", limit_seconds=150)
    await start_canary("killed", every_seconds=3600)
    # Its first cycle ends with a sale, too.
    await system.until_versions(dict.fromkeys(listings))


async def _kill_when(on_sale: Callable[[], Awaitable[bool]], canary: RunningService) -> None:
    await until(on_sale, "a listing is published and not sold", limit_seconds=150)
    canary.process.kill()
    canary.process.wait()


async def _on_sale(system: ConnectedSystem, listing_ids: list[str]) -> bool:
    """Return whether the last event of one of the listings is not a sale."""
    keys = {listing_id.encode() for listing_id in listing_ids}
    last: dict[bytes, int] = {}
    async with topic_tails(system.system.kafka_address(), [LISTINGS_EVENTS]) as tails:
        for record in await tails[LISTINGS_EVENTS].new_records(lambda r: r.key in keys):
            assert record.key is not None
            last[record.key] = events_pb2.ListingEvent.FromString(record.value).kind
    return LISTED in last.values()
