"""A collector of traces: takes spans by OTLP over gRPC, as OpenTelemetry's own does, and keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | bool | int | float


@dataclass(frozen=True)
class Received:
    """A span as it came in; ids are hex digits, and a parent's is empty for the first of a trace."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Value]
    links: tuple[tuple[str, str], ...]
    """Trace and span of each."""
    events: tuple[str, ...]
    failed: bool
    began_ns: int
    ended_ns: int

    @property
    def log_ids(self) -> dict[str, str]:
        """The fields of log lines that were written in it."""
        return {"trace_id": self.trace_id, "span_id": self.span_id}

    @property
    def identity(self) -> tuple[str, str]:
        """Trace and span, as links name them."""
        return self.trace_id, self.span_id


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.headers: list[dict[str, Any]] = []

    def start(self, port: int = 0) -> None:
        """Listen on a port; by default on a free one."""
        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        self._port = server.add_insecure_port(f"127.0.0.1:{port}")
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._server = server
        server.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.stop(grace=None).wait()

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Be away while the context is open."""
        self.stop()
        try:
            yield
        finally:
            self.start(self._port)

    def Export(  # noqa: N802
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.headers.append(dict(context.invocation_metadata()))
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, *, service: str = "", name: str = "") -> list[Received]:
        """Return the spans that have come in, of one service or name if that is given."""
        found = [
            _received(_attributes(of.resource.attributes), span)
            for request in list(self.requests)
            for of in request.resource_spans
            for scope in of.scope_spans
            for span in scope.spans
        ]
        return [span for span in found if service in {"", span.service} and name in {"", span.name}]

    def text(self) -> str:
        """Return everything that has come in as text, to look for what must not be in it."""
        return "\n".join(map(str, list(self.requests)))


def _received(resource: dict[str, Value], span: Span) -> Received:
    return Received(
        service=str(resource["service.name"]),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        events=tuple(event.name for event in span.events),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
    )


def _attributes(found: Any) -> dict[str, Value]:
    pairs: list[KeyValue] = list(found)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    found: Value = getattr(value, value.WhichOneof("value") or "string_value")
    return found


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Run a collector on this machine while the context is open; by default on a free port."""
    collector = Collector()
    collector.start(port)
    try:
        yield collector
    finally:
        collector.stop()
