"""What being watched costs: searches with everything on, in turns with searches with everything off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

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
from bench.switched_instrumentation import OFF, ON
from shashin.shards.kinds.registry import DEFAULT_SEALED_KIND
from tests.support.collector import collecting

_ROWS, _SHARDS, _QUERIES = 40_000, 8, 500
_PAIRS, _SECONDS, _CLIENTS = 40, 1.0, 8
_TURNS = 5
"""One of so many turns of a second has a scrape, as with Prometheus' interval of the compose stack."""
_KEPT_TRACES = 0.01
_ANSWERS = "shashin_rpc_answers_total"


@dataclass
class _Side:
    """What was seen with everything on, or off."""

    queries: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    """Seconds of each query that was alone."""


def planned_figures() -> list[Figure]:
    """Return every figure with its goal."""
    return [
        Figure("watched: queries, of unwatched", "x", 0.97, at_least=True),
        Figure("watched: CPU a query, of unwatched", "x"),
        Figure("watched: p50 alone, of unwatched", "x"),
        Figure("watched: p99 alone, of unwatched", "x", 1.03),
    ]


async def instrumentation(scratch: Path) -> dict[str, float]:
    """Compare metrics, scrapes, the recall monitor and traces, of which 1 % are kept, with their absence.

    The same processes are searched with everything on and off, in turns of two seconds, since what a
    machine gives changes by more than the difference from one minute to the next.
    """
    data = made("easy", _ROWS, _QUERIES)
    shards = scratch / "shards"
    kind = await asyncio.to_thread(prepared_kind, DEFAULT_SEALED_KIND, data.rows)
    await asyncio.to_thread(write_shards, shards, kind, data.rows, _SHARDS)
    requests = requests_of(data.queries)
    with collecting() as collector:
        async with running(
            scratch,
            shards,
            through=["bench.switched_instrumentation"],
            trace_endpoint=collector.endpoint,
            trace_share=_KEPT_TRACES,
        ) as processes:
            await search_together(processes.router.grpc, requests, _CLIENTS, _SECONDS)
            figures = await _compare(processes, requests)
        if not collector.spans():
            raise RuntimeError("the collector has no spans")
    return figures


async def _compare(processes: Processes, requests: Sequence[bytes]) -> dict[str, float]:
    address = processes.router.grpc
    sides = {False: _Side(), True: _Side()}
    for pair in range(_PAIRS):
        # Each as often first as second.
        for is_watched in (False, True) if pair % 2 else (True, False):
            side = sides[is_watched]
            async with _switched(processes, is_on=is_watched):
                before = _cpu_seconds(processes)
                async with _scraping(processes, is_due=is_watched and pair % _TURNS == 0):
                    together = await search_together(address, requests, _CLIENTS, _SECONDS)
                side.queries += len(together.took)
                side.seconds += together.seconds
                side.cpu_seconds += _cpu_seconds(processes) - before
                async with _scraping(processes, is_due=is_watched and pair % _TURNS == 1):
                    alone = await asyncio.to_thread(search_alone, address, requests, _SECONDS)
                side.took += alone.took
    on, off = sides[True], sides[False]
    return {
        "watched: queries, of unwatched": on.queries / on.seconds / (off.queries / off.seconds),
        "watched: CPU a query, of unwatched": on.cpu_seconds
        / on.queries
        / (off.cpu_seconds / off.queries),
        "watched: p50 alone, of unwatched": percentile(on.took, 0.5) / percentile(off.took, 0.5),
        "watched: p99 alone, of unwatched": percentile(on.took, 0.99) / percentile(off.took, 0.99),
    }


def _cpu_seconds(processes: Processes) -> float:
    """Return the CPU time of the router and the index server until now."""
    of = [
        psutil.Process(one.process.pid).cpu_times() for one in (processes.router, processes.server)
    ]
    return sum(one.user + one.system for one in of)


@asynccontextmanager
async def _switched(processes: Processes, *, is_on: bool) -> AsyncIterator[None]:
    """Watch the processes while the context is open, or do not, and check that it was so."""
    services = processes.router, processes.server
    for service in services:
        service.process.send_signal(ON if is_on else OFF)
        # Signals come before the next thing that the event loop does.
        await service.get("livez")
    counted = [await service.metric(_ANSWERS) for service in services]
    yield
    for service, before in zip(services, counted, strict=True):
        if (await service.metric(_ANSWERS) > before) != is_on:
            raise RuntimeError(f"{service.name} could not be switched {'on' if is_on else 'off'}")


@asynccontextmanager
async def _scraping(processes: Processes, *, is_due: bool) -> AsyncIterator[None]:
    """Read the metrics of every process once while the context is open, as Prometheus does, if that is due."""
    if not is_due:
        yield
        return
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_scrape(processes))
        yield


async def _scrape(processes: Processes) -> None:
    for service in (processes.router, processes.server):
        if await service.get("metrics") is None:
            raise RuntimeError(f"{service.name} shows no metrics")
