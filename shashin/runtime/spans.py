"""Makes spans with OpenTelemetry's SDK; imported only where tracing is on (shashin.runtime.tracing).

Spans say nothing that could be a secret: no message of an error, no photo and no URL, only names.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shashin.errors import ShashinError
from shashin.runtime import tracing
from shashin.runtime.span_queue import SpanQueue
from shashin.runtime.token_bucket import TokenBucket
from shashin.runtime.trace_context import EXEMPLAR_TRACE, TRACEPARENT, Carrier, is_unkept
from shashin.runtime.tracing import Kind

Value = str | bool | int | float
Attributes = Mapping[str, Value]

CANCELLED = "cancelled"
"""The attribute of a span whose work was no longer needed, as the slower call of a hedge."""

EXPORT_SECONDS = 5.0
"""For how long one batch is tried to be delivered."""

_BURST_SECONDS = 10
"""After a pause, the traces of so many seconds may begin at once."""

_W3C = TraceContextTextMapPropagator()
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class Span(ABC):
    """A part of a trace."""

    __slots__ = ()

    @property
    @abstractmethod
    def is_kept(self) -> bool:
        """Whether it will be sent."""

    @property
    @abstractmethod
    def carrier(self) -> Carrier:
        """The headers by which another process continues the trace."""

    @property
    @abstractmethod
    def log_fields(self) -> dict[str, str]:
        """The fields of a log line that was written in it, in hex digits."""

    @property
    @abstractmethod
    def exemplar(self) -> dict[str, str] | None:
        """The labels of an exemplar that leads to it; None if it is not kept."""

    @abstractmethod
    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""

    @abstractmethod
    def event(self, name: str) -> None:
        """Note that something has happened now."""

    @abstractmethod
    def link(self, other: Span) -> None:
        """Link it to a span of another trace that belongs to it."""

    @abstractmethod
    def fail(self, reason: str) -> None:
        """Mark it as failed; ``reason`` is the name of an error. The first one counts."""

    @abstractmethod
    def cancel(self) -> None:
        """Mark its work as no longer needed."""

    @abstractmethod
    def end(self) -> None:
        """End it."""


class _KeptSpan(Span):
    """It begins when it is made, and is sent once it has ended."""

    __slots__ = ("_failed", "_span")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._failed = False

    @property
    def context(self) -> trace.SpanContext:
        """What identifies it."""
        return self._span.get_span_context()

    @property
    def is_kept(self) -> bool:
        return True

    @property
    def carrier(self) -> Carrier:
        return _carrier_of(self._span)

    @property
    def log_fields(self) -> dict[str, str]:
        context = self.context
        return _log_fields(
            trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)
        )

    @property
    def exemplar(self) -> dict[str, str] | None:
        return {EXEMPLAR_TRACE: trace.format_trace_id(self.context.trace_id)}

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def link(self, other: Span) -> None:
        if isinstance(other, _KeptSpan):
            self._span.add_link(other.context)

    def fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._span.set_attribute("error.type", reason)
            self._span.set_status(Status(StatusCode.ERROR))

    def cancel(self) -> None:
        self._span.set_attribute(CANCELLED, True)

    def end(self) -> None:
        self._span.end()


class _UnkeptSpan(Span):
    """All that a process knows of a trace that is not kept: the headers that say so to the next process.

    Its parts need not be told apart, so one object is all of them, and costs a small part of an SDK's span.
    """

    __slots__ = ("_carrier",)

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    @property
    def is_kept(self) -> bool:
        return False

    @property
    def carrier(self) -> Carrier:
        return self._carrier

    @property
    def log_fields(self) -> dict[str, str]:
        _, trace_id, span_id, *_ = self._carrier[TRACEPARENT].split("-")
        return _log_fields(trace_id, span_id)

    @property
    def exemplar(self) -> None:
        return None

    def set(self, name: str, value: Value) -> None:
        pass

    def event(self, name: str) -> None:
        pass

    def link(self, other: Span) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def cancel(self) -> None:
        pass

    def end(self) -> None:
        pass


class Tracer:
    """Makes the spans of a process and sends them."""

    def __init__(self, service: str, *, endpoint: str, share: float, per_second: float) -> None:
        instance = f"{socket.gethostname()}:{os.getpid()}"
        resource = Resource.create(
            {
                "service.name": service,
                "service.namespace": "shashin",
                "service.instance.id": instance,
            }
        )
        self._share = share
        self._begun = TokenBucket(per_second, max(1.0, _BURST_SECONDS * per_second))
        self._provider = TracerProvider(
            # ``start`` decides what is kept, before it asks for a span.
            sampler=ALWAYS_ON,
            resource=resource,
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(SpanQueue(exporter))
        self._tracer = self._provider.get_tracer("shashin")

    def close(self) -> None:
        """Send what waits, within the bound of SpanQueue."""
        self._provider.shutdown()

    def keeps_another(self) -> bool:
        """Decide whether a trace that begins now is kept: by the share, and by the limit a second."""
        return random.random() < self._share and self._begun.take()

    def start(
        self,
        name: str,
        kind: Kind = "internal",
        *,
        parent: Span | Carrier | None = None,
        links: Iterable[Span | Carrier] = (),
        attributes: Attributes | None = None,
        began_ns: int | None = None,
        is_chosen: bool = False,
    ) -> Span:
        """Begin a span, of a new trace if it has no parent or a malformed one.

        ``began_ns`` is its beginning if that is not now, in Unix nanoseconds. Links that are malformed, or
        lead to a trace that is not kept, are left out. ``is_chosen`` says that ``keeps_another`` has decided
        to keep the trace that it begins.
        """
        origin = _origin(parent)
        if origin is None and not (is_chosen or self.keeps_another()):
            return _begin_unkept()
        if isinstance(origin, _UnkeptSpan):
            return origin
        linked = (_origin(link) for link in links)
        return _KeptSpan(
            self._tracer.start_span(
                name,
                _context_within(origin),
                _KINDS[kind],
                attributes,
                [trace.Link(one) for one in linked if isinstance(one, trace.SpanContext)],
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
        is_chosen: bool = False,
    ) -> Iterator[Span]:
        """Make a span the current one while the context is open, and note how that ends."""
        span = self.start(
            name,
            kind,
            parent=parent,
            links=links,
            attributes=attributes,
            began_ns=began_ns,
            is_chosen=is_chosen,
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
        """Make a span as ``serving`` does, of work that took so many seconds until now.

        It makes none if none of them is kept.
        """
        if any(span.is_kept for span in served):
            began_ns = now_ns() - int(seconds * 1e9)
            with self.serving(name, "internal", served, attributes, began_ns=began_ns):
                pass


def now_ns() -> int:
    """Return the time in Unix nanoseconds, for ``began_ns``."""
    return time.time_ns()


def _first(served: Sequence[Span]) -> tuple[Span | None, Sequence[Span]]:
    """Return the first span that is kept and the others that are; the first of all if none is kept."""
    kept = [span for span in served if span.is_kept]
    return next(iter(kept or served), None), kept[1:]


def _origin(parent: Span | Carrier | None) -> trace.SpanContext | _UnkeptSpan | None:
    """Return what a span is part of, or the trace that is not kept; None if it has to begin a trace."""
    if parent is None or isinstance(parent, _UnkeptSpan):
        return parent
    if isinstance(parent, _KeptSpan):
        return parent.context
    assert not isinstance(parent, Span)
    if is_unkept(parent.get(TRACEPARENT, "")):
        return _UnkeptSpan(parent)
    extracted = trace.get_current_span(_W3C.extract(dict(parent), Context()))
    context = extracted.get_span_context()
    if not context.is_valid:
        return None
    return context if context.trace_flags.sampled else _UnkeptSpan(_carrier_of(extracted))


def _begin_unkept() -> _UnkeptSpan:
    trace_id, span_id = random.getrandbits(128), random.getrandbits(64)
    return _UnkeptSpan({TRACEPARENT: f"00-{trace_id:032x}-{span_id:016x}-00"})


def _context_within(parent: trace.SpanContext | None) -> Context:
    if parent is None:
        return Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())


def _carrier_of(span: trace.Span) -> Carrier:
    headers: dict[str, str] = {}
    _W3C.inject(headers, trace.set_span_in_context(span, Context()))
    return headers


def _log_fields(trace_id: str, span_id: str) -> dict[str, str]:
    return {"trace_id": trace_id, "span_id": span_id}
