"""Runs gRPC servers: health service, mapping of errors to statuses, metrics, graceful shutdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from shashin.errors import ShashinError, UserError
from shashin.metrics import rpc as metrics
from shashin.rpc.call_traces import note_answered, traced
from shashin.runtime import tracing
from shashin.runtime.logging import debug_check, get_logger

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Maximum size of a request or response: a batch of photos, or a thousand hits of many queries."""

log = get_logger(__name__)
_debugging = debug_check(__name__)


class _Timed(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Handlers of which each call is timed, and a ShashinError mapped to its status and message.

    An interceptor would do the same, for a tenth of what a call costs the server: it is awaited for each.
    """

    def __init__(self, handlers: grpc.GenericRpcHandler) -> None:
        self._handlers = handlers
        self._timed: dict[str, tuple[Any, Any]] = {}
        """The handler of each method as it is and as it is timed, made when it is called first."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call; None if it is of another service."""
        handler = self._handlers.service(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        method = handler_call_details.method
        untimed, timed = self._timed.get(method, (None, None))
        if untimed is handler:
            return timed
        timed = _timed(method.removeprefix("/"), handler)
        self._timed[method] = handler, timed
        return timed


def _timed(full_name: str, handler: Any) -> Any:
    inner, method = handler.unary_unary, full_name.rpartition("/")[2]
    latency, succeeded = metrics.LATENCY.labels(method), metrics.ANSWERS.labels(method, "OK")

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        started = time.perf_counter()
        status, reason = "OK", ""
        try:
            return await inner(request, context)
        except ShashinError as error:
            status, reason = error.grpc_status, error.reason
            await context.abort(grpc.StatusCode[status], f"{error.reason}: {error.message}")
        except grpc.aio.AbortError:
            status = metrics.ABORTED_BY_HANDLER
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception:
            status = "INTERNAL"
            log.exception("a call failed unexpectedly", method=method)
            raise
        finally:
            latency.observe(time.perf_counter() - started, tracing.exemplar())
            (succeeded if status == "OK" else metrics.ANSWERS.labels(method, status)).inc()
            if _debugging():
                seconds = time.perf_counter() - started
                log.debug("call answered", method=method, status=status, seconds=round(seconds, 6))
            if (span := tracing.current()) is not None:
                note_answered(span, status, reason)

    tracer = tracing.tracer()
    return grpc.unary_unary_rpc_method_handler(
        answer if tracer is None else traced(tracer, full_name, answer),
        handler.request_deserializer,
        handler.response_serializer,
    )


class _TimingServer:
    """Takes the handlers of services for a server."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add the handlers of a service."""
        self._server.add_generic_rpc_handlers([_Timed(one) for one in handlers])

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Ignore what ``add_generic_rpc_handlers`` has got as well."""


@asynccontextmanager
async def grpc_server(
    add: Callable[[grpc.aio.Server], None], *, host: str, port: int, drain_seconds: float
) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port.

    On exit, new calls are refused, and calls in progress get ``drain_seconds`` to finish.

    Raises:
        UserError: when the port is in use.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    timing = cast("grpc.aio.Server", _TimingServer(server))
    add(timing)
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), timing)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise UserError(
            f"cannot listen on {host}:{port} for gRPC: set SHASHIN_GRPC_PORT to a free port"
        ) from error
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(drain_seconds)
