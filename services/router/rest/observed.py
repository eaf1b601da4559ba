"""Counts, times and traces the requests of an app."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shashin.metrics import rest as metrics
from shashin.rpc.call_traces import extract
from shashin.runtime import tracing

_NO_ANSWER = 499
"""In place of the status of a request whose client left before an answer began."""
_SERVER_ERRORS = 500


class Observed:
    """An app whose requests are counted and timed by route, and are spans if their trace is kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), _NO_ANSWER

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._traced(scope, receive, noting)
        finally:
            route = _route_of(scope)
            metrics.LATENCY.labels(route).observe(time.perf_counter() - started)
            metrics.ANSWERS.labels(route, str(status)).inc()

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        tracer = tracing.tracer()
        if tracer is None:
            await self._app(scope, receive, send)
            return
        parent = extract(
            (name.decode(), value.decode("latin-1")) for name, value in scope["headers"]
        )
        if parent is None and not tracer.keeps_another():
            await self._app(scope, receive, send)
            return
        begun = tracer.span(scope["method"], "server", parent=parent, is_chosen=parent is None)
        with begun as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set("http.route", _route_of(scope))
                    span.set("http.response.status_code", message["status"])
                    if message["status"] >= _SERVER_ERRORS:
                        span.fail(str(message["status"]))
                await send(message)

            await self._app(scope, receive, noting)


def _route_of(scope: Scope) -> str:
    """Return the path of the route as OpenAPI writes it; it is in the scope once the request is routed."""
    path: str = getattr(scope.get("route"), "path_format", metrics.NO_ROUTE)
    return path
