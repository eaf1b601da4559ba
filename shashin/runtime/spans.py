"""Makes spans with OpenTelemetry's SDK; imported only where tracing is on (shashin.runtime.tracing).

Spans say nothing that could be a secret: no message of an error, no photo and no URL, only names.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shashin.errors import ShashinError
from shashin.runtime import tracing
from shashin.runtime.span_queue import SpanQueue
from shashin.runtime.trace_context import EXEMPLAR_TRACE, Carrier
from shashin.runtime.tracing import Kind

Value = str | bool | int | float
Attributes = Mapping[str, Value]

CANCELLED = "cancelled"
"""The attribute of a span whose work was no longer needed, as the slower call of a hedge."""

EXPORT_SECONDS = 5.0
"""For how long one batch is tried to be delivered."""

_W3C = TraceContextTextMapPropagator()
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class Span:
    """A part of a trace: it begins when it is made, and is sent once it has ended."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._failed = False

    @property
    def context(self) -> trace.SpanContext:
        """What identifies it."""
        return self._span.get_span_context()

    @property
    def is_sampled(self) -> bool:
        """Whether it is kept."""
        return self._span.is_recording()

    @property
    def carrier(self) -> Carrier:
        """The headers by which another process continues the trace."""
        headers: dict[str, str] = {}
        _W3C.inject(headers, trace.set_span_in_context(self._span, Context()))
        return headers

    @property
    def log_fields(self) -> dict[str, str]:
        """The fields of a log line that was written in it, in hex digits."""
        context = self.context
        return {
            "trace_id": trace.format_trace_id(context.trace_id),
            "span_id": trace.format_span_id(context.span_id),
        }

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The labels of an exemplar that leads to it; None if it is not kept."""
        context = self.context
        if not context.trace_flags.sampled:
            return None
        return {EXEMPLAR_TRACE: trace.format_trace_id(context.trace_id)}

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""
        self._span.set_attribute(name, value)

    def event(self, name: str) -> None:
        """Note that something has happened now."""
        self._span.add_event(name)

    def link(self, other: Span) -> None:
        """Link it to a span of another trace that belongs to it."""
        self._span.add_link(other.context)

    def fail(self, reason: str) -> None:
        """Mark it as failed; ``reason`` is the name of an error. The first one counts."""
        if not self._failed:
            self._failed = True
            self._span.set_attribute("error.type", reason)
            self._span.set_status(Status(StatusCode.ERROR))

    def cancel(self) -> None:
        """Mark its work as no longer needed."""
        self._span.set_attribute(CANCELLED, True)

    def end(self) -> None:
        """End it."""
        self._span.end()


class Tracer:
    """Makes the spans of a process and sends them."""

    def __init__(self, service: str, *, endpoint: str, share: float) -> None:
        instance = f"{socket.gethostname()}:{os.getpid()}"
        resource = Resource.create(
            {
                "service.name": service,
                "service.namespace": "shashin",
                "service.instance.id": instance,
            }
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=resource,
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(SpanQueue(exporter))
        self._tracer = self._provider.get_tracer("shashin")

    def close(self) -> None:
        """Send what waits, within the bound of SpanQueue."""
        self._provider.shutdown()

    def start(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: Span | Carrier | None = None,
        links: Iterable[Span | Carrier] = (),
        attributes: Attributes | None = None,
        began_ns: int | None = None,
    ) -> Span:
        """Begin a span, of a new trace if it has no parent or a malformed one.

        ``began_ns`` is its beginning if that is not now, in Unix nanoseconds. Malformed links are left out.
        """
        contexts = (_context_of(link) for link in links)
        return Span(
            self._tracer.start_span(
                name,
                trace.set_span_in_context(trace.NonRecordingSpan(_context_of(parent)), Context()),
                _KINDS[kind],
                attributes,
                [trace.Link(context) for context in contexts if context.is_valid],
                began_ns,
                record_exception=False,
                set_status_on_exception=False,
            )
        )

    @contextmanager
    def span(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: Span | Carrier | None = None,
        links: Iterable[Span | Carrier] = (),
        attributes: Attributes | None = None,
        began_ns: int | None = None,
    ) -> Iterator[Span]:
        """Make a span the current one while the context is open, and note how that ends."""
        span = self.start(
            name, kind, parent=parent, links=links, attributes=attributes, began_ns=began_ns
        )
        try:
            with tracing.within(span):
                yield span
        except asyncio.CancelledError:
            span.cancel()
            raise
        except BaseException as error:
            span.fail(error.reason if isinstance(error, ShashinError) else type(error).__name__)
            raise
        finally:
            span.end()

    @contextmanager
    def serving(
        self,
        name: str,
        kind: Kind,
        served: Sequence[Span],
        attributes: Attributes,
        *,
        began_ns: int | None = None,
    ) -> Iterator[Span]:
        """Make a span that serves several others at once the current one while the context is open.

        It is part of the trace of the first that is kept, and linked with the others, in both directions.
        """
        parent, others = _first(served)
        with self.span(
            name, kind, parent=parent, links=others, attributes=attributes, began_ns=began_ns
        ) as span:
            for other in others:
                other.link(span)
            yield span

    def shared(
        self, name: str, served: Sequence[Span], seconds: float, attributes: Attributes
    ) -> None:
        """Make a span as ``serving`` does, of work that took so many seconds until now; none for nobody."""
        if served:
            began_ns = now_ns() - int(seconds * 1e9)
            with self.serving(name, "internal", served, attributes, began_ns=began_ns):
                pass


def now_ns() -> int:
    """Return the time in Unix nanoseconds, for ``began_ns``."""
    return time.time_ns()


def _first(served: Sequence[Span]) -> tuple[Span | None, Sequence[Span]]:
    """Return the first span that is kept, or the first of all, and the others."""
    if not served:
        return None, ()
    first = next((span for span in served if span.is_sampled), served[0])
    return first, [span for span in served if span is not first]


def _context_of(origin: Span | Carrier | None) -> trace.SpanContext:
    if isinstance(origin, Span):
        return origin.context
    found = _W3C.extract(dict(origin or {}), Context())
    return trace.get_current_span(found).get_span_context()
