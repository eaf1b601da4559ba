"""The result of a probe, in one line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shashin.local.ports import HOST, free_port
from shashin.local.probe import probe
from shashin.runtime.health import Health
from shashin.runtime.probes import start_probes

HERE = os.getpid()


@asynccontextmanager
async def answering(answer: bytes, *, hangs: bool = False) -> AsyncIterator[str]:
    """Answer every connection with these bytes; yields the URL."""
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if hangs:
            await release.wait()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/readyz"
        release.set()


async def test_a_service_is_ready_or_reports_why_not() -> None:
    health = Health()
    runner, port = await start_probes(health, HOST, 0)
    try:
        ready = f"http://{HOST}:{port}/readyz"
        assert await probe(ready, HERE) is None
        health.register("reader", ready_when="the end of the log")
        health.register("planner", ready_when="the first plan")
        assert await probe(ready, HERE) == (
            "reader: waiting for the end of the log; planner: waiting for the first plan"
        )
        assert await probe(f"http://{HOST}:{port}/livez", HERE) is None
    finally:
        await runner.cleanup()


async def test_another_process_that_took_the_port_is_not_taken_for_the_right_one() -> None:
    runner, port = await start_probes(Health(), HOST, 0)
    try:
        says = await probe(f"http://{HOST}:{port}/readyz", HERE + 1)
    finally:
        await runner.cleanup()
    assert says == f"process {HERE} is listening at {HOST}:{port} instead"


async def test_a_closed_port_is_reported() -> None:
    assert await probe(f"http://{HOST}:{free_port()}/readyz", HERE) == "not listening"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nwaits\nfor kafka\n", "waits; for kafka"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "returned 404"),
        (b"HTTP/1.0 503 No\r\n\r\n\xff\xfe", "\ufffd\ufffd"),
        (b"HTTP/1.0 503 No\r\n\r\n" + b"x" * 100_000, "x" * 500),
        (b"no http at all", "returned http"),
        (b"", "returned nothing"),
    ],
)
async def test_any_answer_is_understood_or_quoted(answer: bytes, says: str | None) -> None:
    async with answering(answer) as url:
        assert await probe(url, HERE) == says


async def test_a_process_that_hangs_is_not_waited_for() -> None:
    async with answering(b"HTTP/1.0 200 OK\r\n", hangs=True) as url:
        assert await probe(url, HERE, timeout=0.05) == "no response within 0.05 s"
