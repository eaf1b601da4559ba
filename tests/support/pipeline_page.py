"""A page with the pipeline view alone, over a router with endpoints of every tier."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
from aiohttp import web

from services.router import rest
from shashin.offsets.coverage import LiveReport, Position
from shashin.offsets.progress import PartitionOffsets, PipelineProgress, StageOffsets
from tests.support.aged_shards import aged_shard
from tests.support.running_router import Listing, System, shard_of

FILES = Path(rest.__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Pipeline</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/page/test.css">
<main id="pipeline"></main><script type="module" src="/page/test.js"></script>
</html>"""
STYLE = """:root { color-scheme: light dark; } body { font: 16px system-ui, sans-serif; margin: 0;
padding: 1rem; background: Canvas; }"""
SCRIPT = """import { mount, unmount } from "./pipeline.js";
const element = document.getElementById("pipeline");
window.view = { mount: () => mount(element), unmount };
mount(element);"""

HOUR, DAY = 3600, 86_400
STAGES = {
    "downloader": ("listings.events", 40),
    "embedder": ("images.downloaded", 1800),
    "indexer": ("vectors.embedded", 3),
}


class Front:
    """Serves the page and passes on what it asks for, while the router is to be reached."""

    def __init__(self, router: str) -> None:
        self.router = router
        self.reachable = True
        self.url = ""

    async def page(self, request: web.Request) -> web.Response:
        return _answer(PAGE, "text/html")

    async def no_icon(self, request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        own = {"test.css": STYLE, "test.js": SCRIPT}
        text = own.get(name) or (FILES / name).read_text()
        return _answer(text, "text/css" if name.endswith(".css") else "text/javascript")

    async def pipeline(self, request: web.Request) -> web.Response:
        if not self.reachable:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.router}{request.path_qs}") as answer,
        ):
            return web.Response(
                body=await answer.read(), status=answer.status, content_type=answer.content_type
            )


def _answer(text: str, media_type: str) -> web.Response:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return web.Response(text=text, content_type=media_type, headers=headers)


@asynccontextmanager
async def front_of(system: System) -> AsyncIterator[Front]:
    front = Front(system.rest)
    app = web.Application()
    app.add_routes(
        [
            web.get("/", front.page),
            web.get("/favicon.ico", front.no_icon),
            web.get("/page/{name}", front.file),
            web.get("/v1/pipeline", front.pipeline),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    front.url = f"http://127.0.0.1:{port}/"
    try:
        yield front
    finally:
        await runner.cleanup()


def numbered() -> Iterator[Listing]:
    return (Listing(f"l-{number}") for number in itertools.count())


class Traffic:
    """A live tier's samples of a pipeline in which events arrive all the time."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.dead_letters = 0

    def __call__(self) -> PipelineProgress:
        seconds = time.monotonic() - self.began
        written = int(50_000 + 120 * seconds)
        return PipelineProgress(
            tuple(
                StageOffsets(
                    stage,
                    topic,
                    behind / 120,
                    {
                        p: PartitionOffsets(written // 3 - behind // 3, written // 3)
                        for p in range(3)
                    },
                )
                for stage, (topic, behind) in STAGES.items()
            ),
            {
                "listings.events.dlq": self.dead_letters,
                "images.downloaded.dlq": 0,
                "vectors.embedded.dlq": 0,
            },
            searchable_events=written,
            searchable_event_seconds=written * 0.42,
        )


async def fill(system: System) -> Traffic:
    """Start endpoints of each tier, one of which does not answer."""
    traffic, listings, now = Traffic(), numbered(), int(time.time())

    def some(number: int) -> list[Listing]:
        return list(itertools.islice(listings, number))

    live = [shard_of(some(20 + 9 * p), partition=p, from_offset=900) for p in range(3)]
    for shard in live:
        shard._bucket_start = now - 1500
    hourly = [
        aged_shard(
            some(30),
            "hourly",
            bucket_start=(now // HOUR - hour) * HOUR,
            bucket_seconds=HOUR,
            partition=p,
            from_offset=900 - 30 * hour,
        )
        for p in range(3)
        for hour in range(1, 7)
    ]
    hourly[4].hide_rows(np.arange(18))
    daily = [
        aged_shard(
            some(60),
            "daily",
            bucket_start=(now // DAY - day) * DAY,
            bucket_seconds=DAY,
            from_offset=720 - 60 * day,
        )
        for day in range(1, 9)
    ]
    monthly = [
        aged_shard(
            some(40),
            "monthly",
            bucket_start=now - (10 + 30 * month) * DAY,
            bucket_seconds=30 * DAY,
            from_offset=240 - 40 * month,
        )
        for month in range(1, 6)
    ]
    report = LiveReport({p: Position(0, shard.position) for p, shard in enumerate(live)}, 3)
    indexer = await system.index("indexer-0", "live", *live, report=report)
    indexer.handlers._progress = traffic
    await system.index("hourly-0", "hourly", *hourly)
    await system.index("hourly-1", "hourly", *hourly)
    await system.index("daily-0", "daily", *daily)
    await system.index("monthly-0", "monthly", *monthly)
    stopped = await system.index("monthly-1", "monthly", *monthly)
    await system.until_described()
    await stopped.stop()
    return traffic
