"""Traces, off unless a service is told where to send them; every part that makes spans calls this.

Nothing of OpenTelemetry is imported before ``start``. Until then ``tracer()`` is None, and whoever would
make a span asks for that first, once per batch or call:

    if (tracer := tracing.tracer()) is not None: ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

# Exposed from the start on, as every area of the catalogue: what counts is imported only once tracing is on.
from shashin.metrics import tracing as _metrics  # noqa: F401

if TYPE_CHECKING:
    from shashin.runtime.spans import Span, Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]

_tracer: Tracer | None = None
_current: ContextVar[Span | None] = ContextVar("current span", default=None)


def tracer() -> Tracer | None:
    """Return what makes spans; None while tracing is off."""
    return _tracer


def start(service: str, *, endpoint: str, share: float, per_second: float) -> None:
    """Turn tracing on if an endpoint is given: ``http://HOST:PORT`` of a collector that takes OTLP by gRPC.

    ``share`` is how many of the traces that begin here are kept, 0 to 1, up to ``per_second`` of them. A
    trace that began elsewhere is kept if it was there.
    """
    global _tracer  # noqa: PLW0603
    if endpoint:
        from shashin.runtime.spans import Tracer

        _tracer = Tracer(service, endpoint=endpoint, share=share, per_second=per_second)


def stop() -> None:
    """Send the spans that wait, for two seconds at most, and turn tracing off."""
    global _tracer
    stopped, _tracer = _tracer, None
    if stopped is not None:
        stopped.close()


def current() -> Span | None:
    """Return the span in which the caller runs; None outside of one, and while tracing is off."""
    return _current.get()


def exemplar() -> dict[str, str] | None:
    """Return the labels of an exemplar that leads from a metric to the current trace; None if it is not kept."""
    span = _current.get()
    return None if span is None else span.exemplar


@contextmanager
def within(span: Span) -> Iterator[None]:
    """Make a span the current one while the context is open; it does not end with it."""
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)
