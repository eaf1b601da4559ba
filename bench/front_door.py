"""What the router and gRPC add to a search of the index itself, and what becomes of more load than fits."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from bench.figures import Figure, percentile
from bench.loads import Load
from bench.search import system
from bench.search.data import K, Vectors, made
from bench.search.processes import (
    requests_of,
    running,
    search_alone,
    search_together,
)
from bench.search.sealed import prepared_kind, write_shards
from shashin.shards.kinds.registry import DEFAULT_SEALED_KIND

_ROWS, _QUERIES, _CLIENTS = 100_000, 1_000, 32
_SECONDS, _TURNS = 10.0, 5
_DEADLINE = 1.0
"""Seconds that a caller waits for an answer."""
_SHEDDING: dict[str, Any] = {
    "shed_wait_seconds": 0.005,
    "shed_answer_seconds": 0.02,
    "max_work": 16,
}
"""Settings of a router that would rather refuse bursts than answer them late."""


def planned_figures() -> list[Figure]:
    """Return every figure with its goal."""
    return [
        Figure("front door: search of the index itself, p50", "ms"),
        Figure("front door: added by router and gRPC, p50", "ms", 1.0),
        Figure("front door: added to a query by grpcio's client, p50", "ms"),
        Figure("front door: 32 clients", "queries/s", 1_500.0, at_least=True),
        Figure("front door: at half of that load, p99", "ms", 15.0),
        Figure("front door: at twice that load, p99 of those admitted", "ms", 15.0),
        Figure("front door: at twice that load, answered", "of what fits"),
        Figure("front door: at twice that load, refused", "%"),
        Figure("front door: at twice that load, lost in other ways", "%"),
        Figure("front door: REST, p50 alone", "ms"),
    ]


async def front_door(scratch: Path) -> dict[str, float]:
    """Measure one shard of 100,000 rows, in process and through the router."""
    data = made("easy", _ROWS, _QUERIES)
    folder = scratch / "shards"
    kind = await asyncio.to_thread(prepared_kind, DEFAULT_SEALED_KIND, data.rows)
    manifests = await asyncio.to_thread(write_shards, folder, kind, data.rows, 1)
    requests = requests_of(data.queries)
    async with running(scratch / "all", folder, shed_load=False) as processes:
        router = processes.router.grpc
        await search_together(router, requests, _CLIENTS, 2.0)
        served = system.served(system.opened(folder, manifests))
        load = await asyncio.to_thread(Load, data.queries, scratch)
        inside, alone, by_grpcio = await _in_turns(
            lambda: _inside(served, data.queries), load, router, requests
        )
        rest = await _rest(processes.router.rest, data.queries)
        fits = (await load.together(router, _CLIENTS, _SECONDS)).answered
        half = await load.at_rate(router, fits / 2, _SECONDS, deadline=_DEADLINE)
    async with running(scratch / "shedding", folder, **_SHEDDING) as processes:
        router = processes.router.grpc
        await search_together(router, requests, 1, 2.0)
        twice = await load.at_rate(router, 2 * fits, _SECONDS, deadline=_DEADLINE)
    return {
        "front door: search of the index itself, p50": inside,
        "front door: added by router and gRPC, p50": alone - inside,
        "front door: added to a query by grpcio's client, p50": by_grpcio - inside,
        "front door: 32 clients": fits,
        "front door: at half of that load, p99": half.p99,
        "front door: at twice that load, p99 of those admitted": twice.p99,
        "front door: at twice that load, answered": twice.answered / fits,
        "front door: at twice that load, refused": 100 * twice.refused,
        "front door: at twice that load, lost in other ways": 100 * twice.others,
        "front door: REST, p50 alone": rest,
    }


async def _in_turns(
    inside: Callable[[], list[float]], load: Load, router: str, requests: Sequence[bytes]
) -> tuple[float, float, float]:
    """Return the p50 of all ways in milliseconds, measured in turns: in process, and by either client."""
    took_inside: list[float] = []
    took_outside: list[float] = []
    took_by_grpcio: list[float] = []
    for _ in range(_TURNS):
        took_inside += await asyncio.to_thread(inside)
        took_outside += (await load.together(router, 1, _SECONDS / _TURNS)).took
        searched = await asyncio.to_thread(search_alone, router, requests[:100], _SECONDS / _TURNS)
        took_by_grpcio += searched.took
    ways = took_inside, took_outside, took_by_grpcio
    inside_p50, outside_p50, by_grpcio_p50 = (1e3 * percentile(took, 0.5) for took in ways)
    return inside_p50, outside_p50, by_grpcio_p50


def _inside(served: Any, queries: Vectors) -> list[float]:
    snapshot, took = served.snapshot(), []
    for query in queries:
        started = time.perf_counter()
        system.search(snapshot, query)
        took.append(time.perf_counter() - started)
    return took


async def _rest(url: str, queries: Vectors) -> float:
    """Return the p50 of REST in milliseconds, one query after the other."""
    bodies = [json.dumps({"vector": query.tolist(), "k": K}) for query in queries[:200]]
    headers = {"Content-Type": "application/json"}
    took: list[float] = []
    async with aiohttp.ClientSession() as session:
        for body in bodies:
            started = time.perf_counter()
            async with session.post(f"{url}/v1/search", data=body, headers=headers) as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(await response.text())
            took.append(time.perf_counter() - started)
    return 1e3 * percentile(took, 0.5)
