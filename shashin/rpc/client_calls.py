"""Counts, times and traces the calls that this process sends to one endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import grpc

from shashin.metrics import rpc as metrics
from shashin.rpc.call_traces import STATUS_CODE
from shashin.runtime import tracing
from shashin.runtime.logging import debug_check, get_logger

if TYPE_CHECKING:
    from shashin.runtime.spans import Span, Tracer

_INDEX_SERVICE = "shashin.v1.IndexService"
_SERVICES = {"embedder": "shashin.v1.EmbedService"}
"""By role; all others have an index."""

T = TypeVar("T")
ResponseT_co = TypeVar("ResponseT_co", covariant=True)


log = get_logger(__name__)
_debugging = debug_check(__name__)


class Method(Protocol[ResponseT_co]):
    """A method of a stub."""

    def __call__(
        self, request: Any, *, timeout: float | None = None, metadata: Any = None
    ) -> Awaitable[ResponseT_co]:
        """Send a call."""
        ...


class ClientCalls:
    """The calls to an endpoint of some role and tier."""

    def __init__(self, role: str, tier: str, address: str = "") -> None:
        self._role = role
        self._tier = tier
        self._service = _SERVICES.get(role, _INDEX_SERVICE)
        host, _, port = address.rpartition(":")
        self._known_metrics: dict[tuple[str, str], tuple[Any, Any]] = {}
        """By method and status."""
        self._of_spans = {
            "rpc.system.name": "grpc",
            "server.address": host,
            "server.port": port,
            "shashin.role": role,
            "shashin.tier": tier,
        }

    def send(
        self,
        method: str,
        to: Method[T],
        request: Any,
        *,
        seconds: float,
        served: Sequence[Span] | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Send a call, and return what waits for its response: the call is cancelled with it.

        It is a span of the caller's trace if that is kept or, if it serves several callers, of the first of
        ``served`` that is kept, linked with the others. Such a call is sent once it is waited for. Otherwise
        nothing about traces is sent, since metadata cost more than all of the rest.

        Waiting raises:
            grpc.aio.AioRpcError: when the call fails, or takes longer than ``seconds``.
        """
        tracer = tracing.tracer()
        parents = _current() if served is None else served
        if tracer is None or not any(span.is_kept for span in parents):
            return self.observed(method, to(request, timeout=seconds))
        return self._traced(tracer, parents, method, to, request, seconds)

    async def _traced(
        self,
        tracer: Tracer,
        parents: Sequence[Span],
        method: str,
        to: Method[T],
        request: Any,
        seconds: float,
    ) -> T:
        name = f"{self._service}/{method}"
        attributes = {"rpc.method": name, **self._of_spans}
        with tracer.serving(name, "client", parents, attributes) as span:
            metadata = grpc.aio.Metadata(*span.carrier.items())
            try:
                return await self.observed(method, to(request, timeout=seconds, metadata=metadata))
            except grpc.aio.AioRpcError as error:
                span.set(STATUS_CODE, error.code().name)
                span.fail(error.code().name)
                raise

    async def observed(self, method: str, call: Awaitable[T]) -> T:
        """Return the response of a call that was just sent; it is counted and timed.

        Raises:
            grpc.aio.AioRpcError: when the call fails.
        """
        started = time.perf_counter()
        status = "UNKNOWN"
        try:
            response = await call
            status = "OK"
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        finally:
            latency, answers = self._metrics(method, status)
            latency.observe(time.perf_counter() - started)
            answers.inc()
            if _debugging():
                log.debug(
                    "call ended", method=method, role=self._role, tier=self._tier, status=status
                )
        return response

    def _metrics(self, method: str, status: str) -> tuple[Any, Any]:
        """Return the latency of a method and the counter of a status; to look them up takes longer than to count."""
        known = self._known_metrics.get((method, status))
        if known is None:
            of = method, self._role, self._tier
            known = self._known_metrics[method, status] = (
                metrics.CLIENT_LATENCY.labels(*of),
                metrics.CLIENT_ANSWERS.labels(*of, status),
            )
        return known


def _current() -> Sequence[Span]:
    span = tracing.current()
    return () if span is None else (span,)
