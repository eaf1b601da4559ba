"""The standard health service, grpc.health.v1: what load balancers, probes and clients ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
_Status = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc, unused-ignore]
    """Answers for the whole server, by the empty name, and for services by theirs."""

    def __init__(self, *, serving: bool = True) -> None:
        self._serving: Mapping[str, bool] = {"": serving}
        self._draining = False
        self._changed = asyncio.Event()

    def report(self, serving: Mapping[str, bool]) -> None:
        """Replace what is known: whether each service is serving. Others are unknown."""
        if serving != self._serving:
            self._serving = dict(serving)
            self._wake()

    def drain(self) -> None:
        """Serve nothing from now on; whoever watches is told, and the watch ends."""
        self._draining = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, service: str) -> int | None:
        if (serving := self._serving.get(service)) is None:
            return None
        return int(_Status.SERVING if serving and not self._draining else _Status.NOT_SERVING)

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service; NOT_FOUND if it is unknown."""
        if (status := self._status(request.service)) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "the service is unknown")
        return _Status(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Yield the status of a service, and each that it changes to; SERVICE_UNKNOWN if it is unknown."""
        del context
        last = None
        while True:
            # Before the status is sent: what changes meanwhile is looked at in the next round.
            changed, draining = self._changed, self._draining
            status = self._status(request.service)
            if status is None:
                status = int(_Status.SERVICE_UNKNOWN)
            if status != last:
                yield _Status(status=status)
                last = status
            if draining:
                return
            await changed.wait()
