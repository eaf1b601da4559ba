"""What a probe says of a process, in one line."""

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
    """Answer every connection so while the context is open; yields the URL."""
    goes_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if hangs:
            await goes_on.wait()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/readyz"
        goes_on.set()


async def test_a_service_is_ready_when_it_says_so_and_else_says_why_not() -> None:
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
    assert says == f"process {HERE} answers at {HOST}:{port} instead"


async def test_a_port_that_nobody_listens_on_is_said_to_be_so() -> None:
    assert await probe(f"http://{HOST}:{free_port()}/readyz", HERE) == "does not listen yet"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nwaits\nfor kafka\n", "waits; for kafka"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "answers 404"),
        (b"HTTP/1.0 503 No\r\n\r\n\xff\xfe", "\ufffd\ufffd"),
        (b"HTTP/1.0 503 No\r\n\r\n" + b"x" * 100_000, "x" * 500),
        (b"no http at all", "answers http"),
        (b"", "answers nothing"),
    ],
)
async def test_any_answer_is_understood_or_quoted(answer: bytes, says: str | None) -> None:
    async with answering(answer) as url:
        assert await probe(url, HERE) == says


async def test_a_process_that_hangs_is_not_waited_for() -> None:
    async with answering(b"HTTP/1.0 200 OK\r\n", hangs=True) as url:
        assert await probe(url, HERE, timeout=0.05) == "no answer within 0.05 s"
