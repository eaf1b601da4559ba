"""Turns tracing on in a test's own process, with a collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from shashin.runtime import span_queue, tracing
from shashin.runtime.spans import Tracer
from tests.support.collector import Collector


@contextmanager
def tracing_on(
    collector: Collector, *, share: float = 1.0, per_second: float = 1e6
) -> Iterator[Tracer]:
    """Trace while the context is open; at its end, the collector has every span that has ended."""
    with mock.patch.object(span_queue, "BATCH_SECONDS", 0.1):
        tracing.start("test", endpoint=collector.endpoint, share=share, per_second=per_second)
        tracer = tracing.tracer()
        assert tracer is not None
        try:
            yield tracer
        finally:
            tracing.stop()
