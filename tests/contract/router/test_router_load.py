"""Twice as many queries as can be answered, for real: some are refused at once, and the rest are answered."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shashin.v1 import search_pb2, search_pb2_grpc

PROCESS = Path(__file__).parents[2] / "support" / "loaded_front.py"
CAPACITY = 200
"""Queries a second, as loaded_front.py answers them."""
SECONDS, DEADLINE = 4.0, 30.0


@asynccontextmanager
async def loaded_front(kind: str) -> AsyncIterator[grpc.aio.Channel]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROCESS), kind, stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        process.stdin.close()
        await process.wait()


async def searched(
    channel: grpc.aio.Channel, per_second: float
) -> list[tuple[grpc.StatusCode, float]]:
    """Search at a rate, whatever the answers; returns the status of each, and the share of its deadline."""
    stub = search_pb2_grpc.SearchServiceStub(channel)
    request = search_pb2.SearchRequest(vector=bytes(512))
    begin = time.monotonic()

    async def one(number: int) -> tuple[grpc.StatusCode, float]:
        await asyncio.sleep(max(0.0, begin + number / per_second - time.monotonic()))
        sent = time.monotonic()
        try:
            await stub.Search(request, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            return error.code(), (time.monotonic() - sent) / DEADLINE
        return grpc.StatusCode.OK, (time.monotonic() - sent) / DEADLINE

    return await asyncio.gather(*(one(n) for n in range(round(per_second * SECONDS))))


@pytest.mark.parametrize("kind", ["loop", "endpoints"])
async def test_at_twice_the_capacity_some_are_refused_and_nobody_waits_for_the_deadline(
    kind: str,
) -> None:
    async with loaded_front(kind) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        status = search_pb2_grpc.SearchServiceStub(channel)
        load = asyncio.ensure_future(searched(channel, 2 * CAPACITY))
        while not load.done():
            # Neither is ever refused.
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
            assert answer.status == answer.SERVING
            await status.Status(search_pb2.StatusRequest(), timeout=DEADLINE)
        answers = await load
    counts = Counter(code for code, _ in answers)
    assert set(counts) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert counts[grpc.StatusCode.OK] > 0.02 * len(answers)
    assert counts[grpc.StatusCode.RESOURCE_EXHAUSTED] > 0.1 * len(answers)
    assert max(share for _, share in answers) < 0.5


async def test_queries_one_after_another_are_never_refused() -> None:
    async with loaded_front("loop") as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        for _ in range(200):
            answer = await stub.Search(
                search_pb2.SearchRequest(vector=bytes(512)), timeout=DEADLINE
            )
            assert answer.model_id == "answered"
