"""Turns tracing on in a test's own process, with a collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shashin.runtime import tracing
from shashin.runtime.spans import Tracer
from tests.support.collector import Collector


@contextmanager
def tracing_on(collector: Collector, *, share: float = 1.0) -> Iterator[Tracer]:
    """Trace while the context is open; at its end, the collector has every span that has ended."""
    tracing.start("test", endpoint=collector.endpoint, share=share)
    tracer = tracing.tracer()
    assert tracer is not None
    try:
        yield tracer
    finally:
        tracing.stop()
