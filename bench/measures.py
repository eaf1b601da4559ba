"""The benchmarks: each takes the workload and returns its measurements by name."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np

from bench.figures import percentile
from bench.vector_record import vector_record
from bench.workload import PHOTOS_EACH, Workload
from shashin.model_space import ModelSpace
from shashin.rpc.channel import open_channel
from shashin.v1 import index_pb2, index_pb2_grpc
from shashin.workload.load.drivers import QUERIES, Queries
from shashin.workload.load.generator import Generator, OpenLoop
from shashin.workload.load.rates import Phase, Schedule
from shashin.workload.load.recorder import OK, Recorder

DIMENSIONS = 128
MODEL = "demo-v1"
SPACE = ModelSpace(MODEL, DIMENSIONS)
_VECTORS = 300
_BURST_LISTINGS = 700
_STREAM_SECONDS = 30.0
_STEADY_PHOTOS_PER_SECOND = 20.0
_QUERIES_PER_SECOND = 6.0
_QUIET_QUERIES_PER_SECOND = 5.0
_QUIET_LISTINGS = 100


async def idle_memory(workload: Workload) -> dict[str, float]:
    """Return the total resident memory of all processes, in GB."""
    rows = workload.system.processes()
    return {"memory, idle": sum(row.rss_bytes for row in rows) / 1e9}


async def live_row_memory(_scratch: Path) -> dict[str, float]:
    """Return the resident memory of one row of the live tier, in bytes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.live_row", stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"python -m bench.live_row ended with {process.returncode}")
    return {"memory, a live row": float(printed)}


async def freshness(workload: Workload) -> dict[str, float]:
    """Return the time from an event to the first search that finds it, at 20 photos per second."""
    streamer = await workload.streamer(_STREAM_SECONDS, _STEADY_PHOTOS_PER_SECOND)
    await streamer.run()
    if streamer.freshness.missed:
        raise RuntimeError(streamer.freshness.missed[0])
    found = streamer.freshness.found
    return {"freshness p50": percentile(found, 0.5), "freshness p99": percentile(found, 0.99)}


async def vector_to_live(workload: Workload) -> dict[str, float]:
    """Return the time from the append of a vector to the first live search that finds it, in ms."""
    rows = workload.system.processes()
    address = next(row.addresses["grpc"] for row in rows if row.name == "indexer")
    rng = np.random.default_rng(time.time_ns())
    times = []
    async with open_channel(address) as channel:
        search = index_pb2_grpc.IndexServiceStub(channel).Search
        for number in range(_VECTORS):
            vector = rng.normal(size=DIMENSIONS).astype(np.float32)
            vector /= np.linalg.norm(vector)
            listing_id = f"vector-{time.time_ns()}-{number}"
            request = index_pb2.IndexSearchRequest(
                model_id=MODEL,
                queries=vector.astype("<f4").tobytes(),
                dimensions=DIMENSIONS,
                k=1,
            )
            await workload.producer.send_all([vector_record(SPACE, listing_id, vector)])
            appended = time.perf_counter()
            while listing_id.encode() not in (await search(request)).hits.listing_ids:  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
            times.append((time.perf_counter() - appended) * 1000)
            await asyncio.sleep(0.01)
    return {
        "vector appended to found live p50": percentile(times, 0.5),
        "vector appended to found live p99": percentile(times, 0.99),
    }


async def gap(workload: Workload) -> dict[str, float]:
    """Return the time from the death of the live tier until the router's metric reports it."""
    rows = {row.name: row for row in workload.system.processes()}
    indexer, router = rows["indexer"].pid, rows["router"].addresses["http"]
    assert indexer is not None
    async with aiohttp.ClientSession() as session:

        async def complete() -> bool:
            async with session.get(f"http://{router}/metrics") as page:
                lines = (await page.text()).splitlines()
            return "shashin_router_coverage_complete 1.0" in lines

        os.kill(indexer, signal.SIGKILL)
        killed = time.monotonic()
        while await complete():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        noticed = time.monotonic() - killed
        while not await complete():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return {"coverage gap noticed": noticed}


async def throughput(workload: Workload) -> dict[str, float]:
    """Return the photos per second that the pipeline processes in a burst."""
    seconds = await workload.publish(_BURST_LISTINGS)
    return {"pipeline throughput": _BURST_LISTINGS * PHOTOS_EACH / seconds}


async def photo_queries(workload: Workload) -> dict[str, float]:
    """Return the time of a search by photo through the router at 20 photos per second of ingest."""
    streamer = await workload.streamer(_STREAM_SECONDS, _STEADY_PHOTOS_PER_SECOND)
    # Until the stream has ended: the rate does not depend on how fast the answers come.
    searching = asyncio.ensure_future(_searches(workload, _QUERIES_PER_SECOND, math.inf))
    try:
        await streamer.run()
    finally:
        searching.cancel()
        await asyncio.wait([searching])
    return _in_milliseconds("search by photo under ingest", await searching)


async def quiet_photo_queries(workload: Workload) -> dict[str, float]:
    """Return the time of a search by photo through the router while nothing else happens."""
    return await quiet_searches(workload, "search by photo, 5 a second,")


async def quiet_searches(workload: Workload, what: str) -> dict[str, float]:
    """Return the time of a search by photo, five a second, under names that begin with ``what``."""
    await workload.publish(_QUIET_LISTINGS)
    recorder = await _searches(workload, _QUIET_QUERIES_PER_SECOND, _STREAM_SECONDS)
    return _in_milliseconds(what, recorder)


async def _searches(workload: Workload, per_second: float, seconds: float) -> Recorder:
    """Search for photos at a steady rate, for so long or until cancelled."""
    photos = [
        await asyncio.to_thread(listing.query.read_bytes)
        for listing in workload.listings
        if listing.query is not None
    ]
    queries = Queries(workload.router, photos=photos)
    recorder = Recorder([QUERIES])
    due = Schedule((Phase(per_second, per_second, seconds),)).due_times(seconds, "even", 0)
    with contextlib.suppress(asyncio.CancelledError):
        await Generator(recorder).run(OpenLoop(QUERIES, due, queries.search))
    return recorder


def _in_milliseconds(what: str, recorder: Recorder) -> dict[str, float]:
    total = recorder.kinds[QUERIES].total
    if failed := total.due - total.outcomes[OK]:
        raise RuntimeError(f"{failed} of {total.due} searches failed: {dict(total.outcomes)}")
    return {
        f"{what} {name}": (total.latency.percentile(share) or math.nan) * 1000
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
