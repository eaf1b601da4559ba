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

_BEGIN = frozenset({"shashin.v1.SearchService/Search"})
"""Methods whose calls begin a trace if they do not continue one.

Those of the endpoints do not: a router that sends no trace does not keep it.
"""

_FAULTS_OF_SERVERS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses with which a server's span has failed; with the others, what its caller has sent is wrong."""


def extract(metadata: Iterable[tuple[str, str | bytes]]) -> Carrier | None:
    """Return the trace that a call's metadata name; None if they name none."""
    found = {name: value for name, value in metadata if name in HEADERS and isinstance(value, str)}
    return found or None


def is_traced(tracer: Tracer, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Return whether a call of ``PACKAGE.SERVICE/METHOD`` continues a trace, or begins one that is kept.

    Asked once for each call, since the number of traces that begin is limited.
    """
    return extract(metadata) is not None or (method in _BEGIN and tracer.keeps_another())


def traced(tracer: Tracer, method: str, answer: Answer) -> Answer:
    """Return a handler whose calls are spans: those for which ``is_traced`` was true.

    A call whose trace another process does not keep has no current span.
    """
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}

    async def answer_in_span(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        parent = extract(context.invocation_metadata() or ())
        span = tracer.start(
            method, "server", parent=parent, attributes=attributes, is_chosen=parent is None
        )
        if not span.is_kept:
            return await answer(request, context)
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
