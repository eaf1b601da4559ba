"""The trace of a call, in gRPC's metadata: what a server finds there, and the span that it makes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc

from shashin.runtime import tracing
from shashin.runtime.trace_context import HEADERS, Carrier

if TYPE_CHECKING:
    from shashin.runtime.spans import Span, Tracer

Answer = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]

STATUS_CODE = "rpc.response.status_code"
"""The attribute with the name of a call's gRPC status."""

_POLLED = frozenset({"Check", "Describe", "Status"})
"""Methods that are called all the time: a call of these begins no trace."""

_FAULTS_OF_SERVERS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses with which a server's span has failed; with the others, what its caller has sent is wrong."""


def extract(metadata: Iterable[tuple[str, str | bytes]]) -> Carrier | None:
    """Return the trace that a call's metadata name; None if they name none."""
    found = {name: value for name, value in metadata if name in HEADERS and isinstance(value, str)}
    return found or None


def traced(tracer: Tracer, method: str, answer: Answer) -> Answer:
    """Return a handler whose calls are spans; ``method`` is ``PACKAGE.SERVICE/METHOD``."""
    begins_traces = method.rpartition("/")[2] not in _POLLED
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}

    async def answer_in_span(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        parent = extract(context.invocation_metadata() or ())
        if parent is None and not begins_traces:
            return await answer(request, context)
        span = tracer.start(method, "server", parent=parent, attributes=attributes)
        try:
            with tracing.within(span):
                return await answer(request, context)
        except asyncio.CancelledError:
            span.cancel()
            raise
        finally:
            span.end()

    return answer_in_span


def note_answered(span: Span, status: str, reason: str) -> None:
    """Note the gRPC status of a server's call; ``reason`` is the name of the error, if it has failed."""
    span.set(STATUS_CODE, status)
    if status in _FAULTS_OF_SERVERS:
        span.fail(reason or status)
    elif reason:
        span.set("error.type", reason)
