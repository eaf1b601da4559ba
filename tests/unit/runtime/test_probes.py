"""The probes and the metrics over real HTTP."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from shashin.errors import UserError
from shashin.runtime.health import Health
from shashin.runtime.probes import PID_HEADER, start_probes

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(health: Health) -> AsyncIterator[str]:
    """Serve while the context is open; yields the URL."""
    runner, port = await start_probes(health, HOST, 0)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        await runner.cleanup()


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_a_process_that_is_well_answers_200() -> None:
    async with serving(Health()) as url:
        assert await get(f"{url}/livez") == (200, "ok\n")
        assert await get(f"{url}/readyz") == (200, "ok\n")


async def test_a_process_that_is_not_answers_503_with_one_reason_per_line() -> None:
    clock = [1000.0]
    health = Health(stall_seconds=10, clock=lambda: clock[0])
    async with serving(health) as url:
        reader = health.register("reader", ready_when="the end of the log")
        planner = health.register("planner", ready_when="the first plan")
        assert await get(f"{url}/readyz") == (
            503,
            "reader: waiting for the end of the log\nplanner: waiting for the first plan\n",
        )
        assert (await get(f"{url}/livez"))[0] == 200
        reader.not_ready = planner.not_ready = None
        assert await get(f"{url}/readyz") == (200, "ok\n")
        planner.degraded["kafka"] = "does not respond"
        assert await get(f"{url}/healthz") == (503, "kafka: does not respond\n")
        clock[0] += 11
        planner.progress()
        assert await get(f"{url}/livez") == (503, "reader made no progress for 11 s\n")


async def test_a_probe_identifies_the_process() -> None:
    async with serving(Health()) as url, aiohttp.ClientSession() as session:
        for probe in ("livez", "readyz"):
            async with session.get(f"{url}/{probe}") as response:
                assert response.headers[PID_HEADER] == str(os.getpid())


async def test_every_metric_of_the_process_is_on_the_page_in_prometheus_format() -> None:
    name = f"test_http_{uuid.uuid4().hex}"
    Counter(name, "Counts for a test.", ["topic"]).labels("listings.events").inc(3)
    async with (
        serving(Health()) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics") as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"] == CONTENT_TYPE_PLAIN_0_0_4
        assert f'{name}_total{{topic="listings.events"}} 3.0\n' in await response.text()


async def test_a_scrape_that_takes_openmetrics_gets_it_with_exemplars() -> None:
    name = f"test_http_{uuid.uuid4().hex}_seconds"
    slow = Histogram(name, "Times a test.", buckets=(0.1, 1))
    slow.observe(0.5, exemplar={"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    async with (
        serving(Health()) as url,
        aiohttp.ClientSession(headers=accept) as session,
        session.get(f"{url}/metrics") as response,
    ):
        assert response.content_type == "application/openmetrics-text"
        page = await response.text()
    families = text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
    (family,) = (f for f in families if f.name == name)
    (exemplar,) = (s.exemplar for s in family.samples if s.exemplar is not None)
    assert exemplar.labels == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert exemplar.value == 0.5


async def test_any_other_path_is_not_found() -> None:
    async with serving(Health()) as url:
        assert (await get(f"{url}/"))[0] == 404


async def test_the_error_for_a_port_in_use_says_how_to_fix_it() -> None:
    runner, port = await start_probes(Health(), HOST, 0)
    try:
        with pytest.raises(UserError, match=f"cannot listen on {HOST}:{port} ") as refused:
            await start_probes(Health(), HOST, port)
        assert "set SHASHIN_HTTP_PORT to a free port" in refused.value.message
    finally:
        await runner.cleanup()


async def test_others_run_while_a_scrape_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shashin.runtime.probes._TURN_SECONDS", 0.0)
    turns = [0]

    async def take_turns() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async with serving(Health()) as url:
        registered = len(list(REGISTRY.collect()))
        others = asyncio.create_task(take_turns())
        before = turns[0]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
            await response.read()
        assert turns[0] - before > registered
        others.cancel()
