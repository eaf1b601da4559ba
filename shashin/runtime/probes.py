"""The HTTP port of every service: ``/metrics``, ``/livez``, ``/readyz`` and ``/healthz``."""

from __future__ import annotations

import os
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Gauge, generate_latest

from shashin.errors import UserError
from shashin.runtime.health import Health

PROBLEMS = Gauge("shashin_problems", "Number of problems on /healthz; 0 when healthy.")

PID_HEADER = "Shashin-Pid"
"""Identifies the process that answers a probe: another one may have taken the port."""


def _probe(problems: Callable[[], list[str]]) -> Callable[[web.Request], web.Response]:
    def answer(_request: web.Request) -> web.Response:
        found = problems()
        return web.Response(
            status=503 if found else 200,
            text="\n".join(found or ["ok"]) + "\n",
            headers={PID_HEADER: str(os.getpid())},
        )

    return answer


async def start_probes(health: Health, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve the probes and the metrics; returns the runner and the port.

    Raises:
        UserError: when the port is in use.
    """

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    live, ready = _probe(health.liveness_problems), _probe(health.readiness_problems)
    healthy = _probe(health.problems)
    PROBLEMS.set_function(lambda: len(health.problems()))

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
