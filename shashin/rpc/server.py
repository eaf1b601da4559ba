"""Runs gRPC servers: health service, mapping of errors to statuses, metrics, graceful shutdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2_grpc

from shashin.errors import InvalidQuery, Overloaded, RateLimited, ShashinError, UserError
from shashin.metrics import rpc as metrics
from shashin.rpc.call_traces import Answer, is_traced, note_answered, traced
from shashin.rpc.error_details import message_of, trailing_metadata
from shashin.rpc.health_service import HealthService
from shashin.rpc.server_limits import MAX_MESSAGE_BYTES, ServerLimits
from shashin.rpc.server_tls import ServerCertificates
from shashin.runtime import tracing
from shashin.runtime.logging import debug_check, get_logger

if TYPE_CHECKING:
    from shashin.runtime.spans import Tracer

log = get_logger(__name__)
_debugging = debug_check(__name__)


class Guard(Protocol):
    """Decides on a call before its request is received."""

    def __call__(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> ShashinError | None:
        """Return why a call of ``/PACKAGE.SERVICE/METHOD`` is refused; None if it is not."""
        ...


class _Timed(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Handlers of which each call is timed, and a ShashinError mapped to its status and message.

    An interceptor would do the same, for a tenth of what a call costs the server: it is awaited for each.
    """

    def __init__(self, handlers: grpc.GenericRpcHandler, guard: Guard | None) -> None:
        self._handlers = handlers
        self._guard = guard
        self._timed: dict[str, _TimedMethod] = {}
        """Made when they are called first."""
        self._overloaded: dict[tuple[str, str, float], Any] = {}
        """Handlers that refuse calls of a method for too much load, by the error's message and pause, of
        which there are a few. They are kept since they are needed most when there is no time to make them."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call; None if it is of another service."""
        handler = self._handlers.service(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        metadata = handler_call_details.invocation_metadata or ()
        if self._guard is not None:
            error = self._guard(method, metadata)
            if error is not None:
                return self._refusal(method, error)
        if handler.unary_unary is None:
            return handler
        timed = self._timed.get(method)
        if timed is None or timed.handler is not handler:
            timed = self._timed[method] = _TimedMethod(method.removeprefix("/"), handler)
        return timed.handler_of(metadata)

    def _refusal(self, method: str, error: ShashinError) -> Any:
        if not isinstance(error, Overloaded):
            return _refusal(method, error)
        key = method, error.message, error.retry_after_seconds
        if (known := self._overloaded.get(key)) is None:
            known = self._overloaded[key] = _refusal(method, error)
        return known


class _TimedMethod:
    """The handlers of a method's calls: those that are part of a trace have another one."""

    def __init__(self, full_name: str, handler: Any) -> None:
        self.handler = handler
        """As it is, untimed."""
        self._full_name = full_name
        self._answer = _timed(full_name, handler.unary_unary)
        self._untraced = self._answering(self._answer)
        self._traced: tuple[Tracer, Any] | None = None

    def handler_of(self, metadata: Iterable[tuple[str, str | bytes]]) -> Any:
        """Return the handler of a call."""
        tracer = tracing.tracer()
        if tracer is None or not is_traced(tracer, self._full_name, metadata):
            return self._untraced
        if self._traced is None or self._traced[0] is not tracer:
            answer = traced(tracer, self._full_name, self._answer)
            self._traced = tracer, self._answering(answer)
        return self._traced[1]

    def _answering(self, answer: Answer) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            answer, _parsed(self.handler.request_deserializer), self.handler.response_serializer
        )


def _refusal(method: str, error: ShashinError) -> Any:
    """Return a handler that refuses calls: one of a stream, since those do not receive the request first."""
    status = metrics.RATE_LIMITED if isinstance(error, RateLimited) else error.grpc_status
    answers = metrics.ANSWERS.labels(method.rpartition("/")[2], status)
    code, message = grpc.StatusCode[error.grpc_status], message_of(error)
    metadata = trailing_metadata(error)

    async def refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        answers.inc()
        await context.abort(code, message, metadata)

    return grpc.stream_unary_rpc_method_handler(refuse)


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], error: ShashinError, fields: Collection[str]
) -> None:
    await context.abort(
        grpc.StatusCode[error.grpc_status], message_of(error), trailing_metadata(error, fields)
    )


def _parsed(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return what parses a request; None in place of one that is not parsable, which would be UNKNOWN."""

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return None

    return parse


def _timed(full_name: str, inner: Answer) -> Answer:
    method = full_name.rpartition("/")[2]
    latency, succeeded = metrics.LATENCY.labels(method), metrics.ANSWERS.labels(method, "OK")

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        started = time.perf_counter()
        status, reason = "OK", ""
        try:
            if request is None:
                raise InvalidQuery(
                    f"the request is not a message of {full_name}, or has a string that is not UTF-8: "
                    "expected protobuf as in proto/shashin/v1"
                )
            return await inner(request, context)
        except ShashinError as error:
            status, reason = error.grpc_status, error.reason
            fields = () if request is None else request.DESCRIPTOR.fields_by_name
            await _abort(context, error, fields)
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

    return answer


class _TimingServer:
    """Takes the handlers of services for a server."""

    def __init__(self, server: grpc.aio.Server, guard: Guard | None) -> None:
        self._server = server
        self._guard = guard

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add the handlers of a service."""
        self._server.add_generic_rpc_handlers([_Timed(one, self._guard) for one in handlers])

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Ignore what ``add_generic_rpc_handlers`` has got as well."""


@asynccontextmanager
async def grpc_server(
    add: Callable[[grpc.aio.Server], None],
    *,
    host: str,
    port: int,
    drain_seconds: float,
    health: HealthService | None = None,
    limits: ServerLimits | None = None,
    certificates: ServerCertificates | None = None,
    guard: Guard | None = None,
    socket: Path | None = None,
) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port.

    With ``certificates`` it serves TLS. It also serves the Unix socket, without TLS: for this process alone.
    On exit, health is NOT_SERVING, new calls are refused, and calls in progress get ``drain_seconds`` to
    finish.

    Raises:
        UserError: when the port is in use.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            *(
                [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
                if limits is None
                else limits.options()
            ),
        ],
    )
    health = health or HealthService()
    timing = cast("grpc.aio.Server", _TimingServer(server, guard))
    add(timing)
    health_pb2_grpc.add_HealthServicer_to_server(health, timing)
    address = f"{host}:{port}"
    try:
        if certificates is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, certificates.credentials)
        if socket is not None:
            server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise UserError(
            f"cannot listen on {address} for gRPC: set SHASHIN_GRPC_PORT to a free port"
        ) from error
    await server.start()
    try:
        yield bound
    finally:
        health.drain()
        await server.stop(drain_seconds)
