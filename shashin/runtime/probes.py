"""The HTTP port of every service: ``/metrics``, ``/livez``, ``/readyz`` and ``/healthz``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shashin.errors import UserError
from shashin.metrics import process as process_metrics
from shashin.runtime.health import Health

PID_HEADER = "Shashin-Pid"
"""Identifies the process that answers a probe: another one may have taken the port."""

_TURN_SECONDS = 0.0005
"""For how long a scrape keeps the event loop at a time."""


def _probe(problems: Callable[[], list[str]]) -> Callable[[web.Request], web.Response]:
    def answer(_request: web.Request) -> web.Response:
        found = problems()
        return web.Response(
            status=503 if found else 200,
            text="\n".join(found or ["ok"]) + "\n",
            headers={PID_HEADER: str(os.getpid())},
        )

    return answer


class _Families(Collector):
    """Metrics as an encoder takes them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _encoded(generate: Callable[[Collector], bytes]) -> bytes:
    """Return all metrics, one after another, and let others run in between: no call waits for a scrape."""
    end = generate(_Families([]))  # of the whole page, in formats that have one
    encoded, turn_ends = [], time.perf_counter() + _TURN_SECONDS
    for family in REGISTRY.collect():
        encoded.append(generate(_Families([family])).removesuffix(end))
        if time.perf_counter() >= turn_ends:
            await asyncio.sleep(0)
            turn_ends = time.perf_counter() + _TURN_SECONDS
    return b"".join([*encoded, end])


async def start_probes(health: Health, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve the probes and the metrics; returns the runner and the port.

    Raises:
        UserError: when the port is in use.
    """

    async def metrics(request: web.Request) -> web.Response:
        # Exemplars are in OpenMetrics only, for which Prometheus asks in this header.
        generate, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=await _encoded(generate), headers={"Content-Type": content_type})

    live, ready = _probe(health.liveness_problems), _probe(health.readiness_problems)
    healthy = _probe(health.problems)
    process_metrics.PROBLEMS.set_function(lambda: len(health.problems()))

    async def livez(request: web.Request) -> web.Response:
        return live(request)

    async def readyz(request: web.Request) -> web.Response:
        return ready(request)

    async def healthz(request: web.Request) -> web.Response:
        return healthy(request)

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/healthz", healthz),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} for metrics and probes ({error.strerror}): "
            "set SHASHIN_HTTP_PORT to a free port"
        ) from error
    bound: int = runner.addresses[0][1]
    return runner, bound
