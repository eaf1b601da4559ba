"""Runs gRPC servers: health service, mapping of errors to statuses, metrics, graceful shutdown.

On HTTP/2 of its own (shashin.rpc.server_connection), since the server of grpc.aio needs several times as long
for a call; handlers and registrations are those of grpc.aio.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2_grpc

from shashin.errors import InvalidQuery, Overloaded, RateLimited, ShashinError, UserError
from shashin.metrics import rpc as metrics
from shashin.rpc.call_traces import is_traced, note_answered, traced
from shashin.rpc.error_details import message_of, trailing_metadata
from shashin.rpc.health_service import HealthService
from shashin.rpc.server_call import FAILED, Ended, Method, ServerCall, Stream
from shashin.rpc.server_connection import Connections, ServerConnection
from shashin.rpc.server_limits import ServerLimits
from shashin.rpc.server_tls import ServerCertificates
from shashin.rpc.wire import Status
from shashin.runtime import tracing
from shashin.runtime.logging import debug_check, get_logger

if TYPE_CHECKING:
    from shashin.runtime.spans import Tracer

_BACKLOG = 1024
"""Connections that wait until they are accepted."""
_CANCEL_SECONDS, _LOOK_SECONDS = 1.0, 0.02
_OWN_PACKAGE, _OWN_REQUEST_BYTES = "grpc.", 64 * 1024
"""Services of gRPC itself, such as health, are called without a key, and with a few bytes."""

log = get_logger(__name__)
_debugging = debug_check(__name__)


class Guard(Protocol):
    """Decides on a call before its request is received."""

    def __call__(self, method: str, call: ServerCall) -> ShashinError | None:
        """Return why a call of ``/PACKAGE.SERVICE/METHOD`` is refused; None if it is not."""
        ...


class _Services:
    """Takes the handlers of services as generated code registers them, and finds those of calls."""

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard
        self._methods: dict[str, _TimedMethod | Method] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ignore what ``add_registered_method_handlers`` gets as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Add the methods of a service."""
        request_bytes = _OWN_REQUEST_BYTES if service.startswith(_OWN_PACKAGE) else None
        for name, handler in handlers.items():
            full_name = f"{service}/{name}"
            self._methods[f"/{full_name}"] = (
                _TimedMethod(full_name, handler, request_bytes)
                if handler.unary_unary is not None
                else Method(
                    stream=_streamed(handler),
                    takes_many=handler.stream_stream is not None,
                    request_bytes=request_bytes,
                )
            )

    def find(self, path: str, call: ServerCall) -> Method | Status:
        """Return what answers a call, or why it is refused."""
        method = self._methods.get(path)
        if method is None:
            # Clients that are still sending a request when they get a status may take that for an error of
            # their own.
            return Method(
                refusal=Status(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {path[:200]}")
            )
        if self._guard is not None:
            error = self._guard(path, call)
            if error is not None:
                return self._refusal(path, error)
        return method if isinstance(method, Method) else method.of(call)

    def _refusal(self, path: str, error: ShashinError) -> Status:
        status = metrics.RATE_LIMITED if isinstance(error, RateLimited) else error.grpc_status
        metrics.ANSWERS.labels(path.rpartition("/")[2], status).inc()
        return _status_of(error)


class _TimedMethod:
    """A method of which each call is timed, and a ShashinError mapped to its status and message.

    Its calls that are part of a trace have another handler.
    """

    def __init__(self, full_name: str, handler: Any, request_bytes: int | None) -> None:
        self._full_name = full_name
        self._answer = _timed(full_name, handler)
        self._untraced = Method(unary=self._answer, request_bytes=request_bytes)
        self._traced: tuple[Tracer, Method] | None = None

    def of(self, call: ServerCall) -> Method:
        """Return what answers a call."""
        tracer = tracing.tracer()
        if tracer is None or not is_traced(tracer, self._full_name, call.invocation_metadata()):
            return self._untraced
        if self._traced is None or self._traced[0] is not tracer:
            answer: Any = traced(tracer, self._full_name, self._answer)
            self._traced = tracer, replace(self._untraced, unary=answer)
        return self._traced[1]


def _streamed(handler: Any) -> Stream:
    """Return a method whose responses are a stream; its requests are one, or a stream as well."""
    parse, serialize = handler.request_deserializer, handler.response_serializer

    async def parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for request in requests:
            yield _parsed(parse, request)

    async def answer(requests: AsyncIterator[bytes], call: ServerCall) -> AsyncIterator[bytes]:
        if handler.stream_stream is not None:
            answers = handler.stream_stream(parsed(requests), call)
        else:
            request = await anext(parsed(requests), None)
            if request is None:
                raise Ended(Status(grpc.StatusCode.INTERNAL, "expected one request"))
            answers = handler.unary_stream(request, call)
        async for one in answers:
            yield serialize(one)

    return answer


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError:
        raise Ended(
            Status(grpc.StatusCode.INVALID_ARGUMENT, "the request is not a message of this method")
        ) from None


def _status_of(error: ShashinError, fields: Collection[str] = ()) -> Status:
    if isinstance(error, Overloaded):
        return _overloaded(error.message, error.retry_after_seconds)
    return _new_status(error, fields)


def _new_status(error: ShashinError, fields: Collection[str] = ()) -> Status:
    return Status(
        grpc.StatusCode[error.grpc_status], message_of(error), trailing_metadata(error, fields)
    )


@lru_cache(maxsize=16)
def _overloaded(message: str, retry_after_seconds: float) -> Status:
    """Return the status of a call that is refused for too much load.

    There are a few. They are kept since they are needed most when there is no time to make them.
    """
    return _new_status(Overloaded(message, retry_after_seconds=retry_after_seconds))


def _timed(full_name: str, handler: Any) -> Any:
    method = full_name.rpartition("/")[2]
    latency, succeeded = metrics.LATENCY.labels(method), metrics.ANSWERS.labels(method, "OK")
    parse, serialize = handler.request_deserializer, handler.response_serializer
    inner = handler.unary_unary

    async def answer(data: bytes, call: ServerCall) -> bytes:
        started = time.perf_counter()
        status, reason = "OK", ""
        request: Any = None
        try:
            try:
                request = parse(data)
            except DecodeError:
                raise InvalidQuery(
                    f"the request is not a message of {full_name}, or has a string that is not UTF-8: "
                    "expected protobuf as in proto/shashin/v1"
                ) from None
            return cast("bytes", serialize(await inner(request, call)))
        except ShashinError as error:
            status, reason = error.grpc_status, error.reason
            fields = () if request is None else request.DESCRIPTOR.fields_by_name
            raise Ended(_status_of(error, fields)) from None
        except Ended:
            status = metrics.ABORTED_BY_HANDLER
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception:
            status = "INTERNAL"
            log.exception("a call failed unexpectedly", method=method)
            raise Ended(FAILED) from None
        finally:
            latency.observe(time.perf_counter() - started, tracing.exemplar())
            (succeeded if status == "OK" else metrics.ANSWERS.labels(method, status)).inc()
            if _debugging():
                seconds = time.perf_counter() - started
                log.debug("call answered", method=method, status=status, seconds=round(seconds, 6))
            if (span := tracing.current()) is not None:
                note_answered(span, status, reason)

    return answer


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
) -> AsyncIterator[int]:
    """Serve while the context is open; yields the port. With ``certificates`` it serves TLS.

    On exit, health is NOT_SERVING, nobody can connect, and calls in progress, with those that clients send
    before they know, get ``drain_seconds`` to finish.

    Raises:
        UserError: when the port is in use.
    """
    health, limits = health or HealthService(), limits or ServerLimits()
    services = _Services(guard)
    add(cast("grpc.aio.Server", services))
    health_pb2_grpc.add_HealthServicer_to_server(health, cast("grpc.aio.Server", services))
    connections = Connections()
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(services.find, limits, connections),
            sock=_listening(host.strip("[]"), port),
            backlog=_BACKLOG,
            ssl=None if certificates is None else certificates.context("h2"),
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} for gRPC: set SHASHIN_GRPC_PORT to a free port"
        ) from error
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        health.drain()
        server.close()
        await _end(connections, drain_seconds)


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; on ``::``, also for IPv4.

    Raises:
        OSError: when that is not possible.
    """
    (family, _, _, _, address), *_ = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)


async def _end(connections: Connections, drain_seconds: float) -> None:
    """Let connections answer what they have for so long, and close them."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + drain_seconds
    connections.is_draining = True
    for connection in list(connections.open):
        connection.drain()
    await _finished(connections, ends_at)
    stopped = [connection for connection in connections.open if not connection.is_closed]
    for connection in stopped:
        connection.stop()
    # Neither handlers that do not heed their cancellation are waited for, nor clients that do not read.
    ends_at = loop.time() + _CANCEL_SECONDS
    if tasks := [task for connection in stopped for task in connection.tasks]:
        await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
    await _finished(connections, ends_at)
    for connection in list(connections.open):
        connection.abort("the server has stopped")


async def _finished(connections: Connections, ends_at: float) -> None:
    """Wait until none has calls, or something that its client has not read yet; at most until then."""
    loop = asyncio.get_running_loop()
    while (left := ends_at - loop.time()) > 0:
        gone = [one.gone for one in connections.open if not one.is_closed or one.unread_bytes()]
        if not gone:
            return
        await asyncio.wait(gone, timeout=min(left, _LOOK_SECONDS))
