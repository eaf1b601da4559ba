"""What being watched costs: searches with everything on, in turns with searches with everything off."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.figures import Figure, percentile
from bench.search.data import made
from bench.search.processes import (
    Processes,
    requests_of,
    running,
    search_alone,
    search_together,
)
from bench.search.sealed import prepared_kind, write_shards
from shashin.shards.kinds.registry import DEFAULT_SEALED_KIND
from tests.support.collector import collecting

_ROWS, _SHARDS, _QUERIES = 40_000, 8, 500
_PAIRS, _SECONDS, _CLIENTS = 16, 2.0, 8
_SCRAPE_SECONDS, _KEPT_TRACES = 5.0, 0.01
_ANSWERS = "shashin_rpc_answers_total"


def planned_figures() -> list[Figure]:
    """Return every figure with its goal."""
    return [
        Figure("watched: queries, of unwatched", "x", 0.97, at_least=True),
        Figure("watched: p50 alone, of unwatched", "x"),
        Figure("watched: p99 alone, of unwatched", "x", 1.03),
    ]


async def instrumentation(scratch: Path) -> dict[str, float]:
    """Compare metrics, scrapes, the recall monitor and traces, of which 1 % are kept, with their absence.

    Both systems run at the same time and are searched in turns of two seconds, since what a machine
    gives changes by more than the difference from one minute to the next.
    """
    data = made("easy", _ROWS, _QUERIES)
    shards = scratch / "shards"
    kind = await asyncio.to_thread(prepared_kind, DEFAULT_SEALED_KIND, data.rows)
    await asyncio.to_thread(write_shards, shards, kind, data.rows, _SHARDS)
    requests = requests_of(data.queries)
    unwatched = running(
        scratch / "off", shards, through=["bench.without_metrics"], recall_cpu_share=0
    )
    async with AsyncExitStack() as stack:
        collector = stack.enter_context(collecting())
        off = await stack.enter_async_context(unwatched)
        watched = running(
            scratch / "on", shards, trace_endpoint=collector.endpoint, trace_share=_KEPT_TRACES
        )
        on = await stack.enter_async_context(watched)
        await stack.enter_async_context(_scraped(on))
        addresses = {False: off.router.grpc, True: on.router.grpc}
        for address in addresses.values():
            await search_together(address, requests, _CLIENTS, _SECONDS)
        figures = await _compare(addresses, requests)
        counted = {one: await one.router.metric(_ANSWERS) for one in (off, on)}
        if counted[off] or not counted[on]:
            raise RuntimeError(f"{_ANSWERS} is {counted[off]} unwatched and {counted[on]} watched")
        if not collector.spans():
            raise RuntimeError("the collector has no spans")
        return figures


async def _compare(addresses: dict[bool, str], requests: Sequence[bytes]) -> dict[str, float]:
    rates: list[float] = []
    took: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(_PAIRS):
        per_second = {}
        # Each as often first as second.
        for is_watched in (False, True) if pair % 2 else (True, False):
            address = addresses[is_watched]
            together = await search_together(address, requests, _CLIENTS, _SECONDS)
            per_second[is_watched] = together.per_second
            # So many queries that each is asked, also if they take longer than the time.
            alone = await asyncio.to_thread(search_alone, address, requests, _SECONDS)
            took[is_watched] += alone.took
        rates.append(per_second[True] / per_second[False])
    shares = {
        share: percentile(took[True], share) / percentile(took[False], share)
        for share in (0.5, 0.99)
    }
    return {
        "watched: queries, of unwatched": statistics.median(rates),
        "watched: p50 alone, of unwatched": shares[0.5],
        "watched: p99 alone, of unwatched": shares[0.99],
    }


@asynccontextmanager
async def _scraped(processes: Processes) -> AsyncIterator[None]:
    """Read the metrics of every process every few seconds, as Prometheus does."""

    async def scrape() -> None:
        while True:
            for service in (processes.router, processes.server):
                if await service.get("metrics") is None:
                    raise RuntimeError(f"{service.name} shows no metrics")
            await asyncio.sleep(_SCRAPE_SECONDS)

    scraping = asyncio.ensure_future(scrape())
    try:
        yield
        if scraping.done():
            scraping.result()
    finally:
        scraping.cancel()
        await asyncio.gather(scraping, return_exceptions=True)
