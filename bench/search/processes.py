"""A router, an index server and an indexer as processes, and clients that search through them."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.search.data import DIMENSIONS, K, Numbers, Vectors
from bench.search.sealed import SPACE, row_of
from shashin.discovery.protocol import INDEX_SERVER, INDEXER
from shashin.kafka.topic_admin import ensure_topics
from shashin.local.kafka import EmbeddedKafka
from shashin.tiers import HOURLY, LIVE
from shashin.v1 import search_pb2
from tests.support.running_service import RunningService

SEARCH = "/shashin.v1.SearchService/Search"
_SECONDS = 30.0


@dataclass(frozen=True)
class Processes:
    """The processes that answer a search."""

    router: RunningService
    server: RunningService
    kafka: str
    """Bootstrap address."""


@asynccontextmanager
async def running(
    scratch: Path,
    shards: Path,
    *,
    live: bool = False,
    through: Sequence[str] = (),
    **settings: object,
) -> AsyncIterator[Processes]:
    """Serve the shards of a folder by an index server, and search them through a router.

    With ``live``, an indexer serves open shards as well: its tier is searched beside the others.
    ``through`` is a module that runs each service. Each takes what it knows of ``settings``.
    """
    await asyncio.to_thread(scratch.mkdir, parents=True, exist_ok=True)
    kafka = EmbeddedKafka(scratch, default_port=None)
    await kafka.start()
    try:
        await ensure_topics(kafka.bootstrap, partitions=1)
        async with AsyncExitStack() as stack:

            async def start(name: str, **own: object) -> RunningService:
                values = {"model_id": SPACE.model_id, "dimensions": DIMENSIONS, **settings, **own}
                service = RunningService(
                    name, kafka.bootstrap, values, log=scratch / "logs", through=through
                )
                stack.push_async_callback(service.close)
                await service.start()
                await service.until_ready()
                return service

            yield await _started(scratch, shards, kafka.bootstrap, start, live=live)
    finally:
        await kafka.stop()


async def _started(
    scratch: Path,
    shards: Path,
    kafka: str,
    start: Callable[..., Awaitable[RunningService]],
    *,
    live: bool,
) -> Processes:
    repository = (scratch / "repository").as_uri()
    server = await start(
        "index_server",
        tier=HOURLY,
        shards_folder=shards,
        repository=repository,
    )
    endpoints = [{"name": "one", "role": INDEX_SERVER, "tier": HOURLY, "address": server.grpc}]
    discovery = scratch / "discovery.json"
    discovery.write_text(json.dumps({"endpoints": endpoints}))
    if live:
        indexer = await start(
            "indexer",
            repository=repository,
            discovery=discovery.as_uri(),
            work_folder=scratch / "work",
        )
        endpoints.append({"name": "live", "role": INDEXER, "tier": LIVE, "address": indexer.grpc})
        discovery.write_text(json.dumps({"endpoints": endpoints}))
    return Processes(await start("router", discovery=discovery.as_uri()), server, kafka)


def requests_of(queries: Vectors) -> list[bytes]:
    """Return the requests of queries, encoded."""
    return [
        search_pb2.SearchRequest(vector=query.astype("<f4").tobytes(), k=K).SerializeToString()
        for query in queries
    ]


@dataclass(frozen=True)
class Searched:
    """What clients saw."""

    took: list[float]
    """Seconds of each query."""
    answers: list[bytes]
    """As they were encoded, of each query."""
    seconds: float
    """From the first query to the last answer."""

    @property
    def per_second(self) -> float:
        """Queries a second."""
        return len(self.took) / self.seconds


def search_alone(address: str, requests: Sequence[bytes], seconds: float) -> Searched:
    """Search one query after the other for so many seconds, each request at least once."""
    took, answers = [], []
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(SEARCH)
        call(requests[0], timeout=_SECONDS)
        started = ended = time.perf_counter()
        for number in itertools.count():
            if number >= len(requests) and ended - started >= seconds:
                break
            sent = time.perf_counter()
            answers.append(call(requests[number % len(requests)], timeout=_SECONDS))
            ended = time.perf_counter()
            took.append(ended - sent)
    return Searched(took, answers, ended - started)


async def search_together(
    address: str, requests: Sequence[bytes], clients: int, seconds: float
) -> Searched:
    """Search by so many clients at a time, each one query after the other."""
    took: list[float] = []
    answers: list[bytes] = []
    numbers = itertools.count()
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(SEARCH)
        await call(requests[0], timeout=_SECONDS)
        started = time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - started < seconds:
                sent = time.perf_counter()
                answers.append(
                    await call(requests[next(numbers) % len(requests)], timeout=_SECONDS)
                )
                took.append(time.perf_counter() - sent)

        await asyncio.gather(*(client() for _ in range(clients)))
        ended = time.perf_counter()
    return Searched(took, answers, ended - started)


def found_by(answers: Sequence[bytes]) -> Numbers:
    """Return the rows that answers have, (len(answers), 10); -1 where there are fewer."""
    found = np.full((len(answers), K), -1, np.int64)
    for number, encoded in enumerate(answers):
        hits = search_pb2.SearchResponse.FromString(encoded).hits
        found[number, : len(hits)] = [row_of(hit.listing_id) for hit in hits]
    return found
