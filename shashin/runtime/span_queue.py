"""Sends ended spans in batches from a thread of its own; the SDK calls it for each span.

The SDK's own batching neither counts what it drops nor bounds how long a process waits at its end. Here the
queue is bounded, what does not fit is dropped and counted, and nobody waits for the collector.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from shashin.metrics import tracing as metrics
from shashin.runtime.logging import get_logger

QUEUE_SPANS = 4096
BATCH_SPANS = 512
BATCH_SECONDS = 5.0
"""For how long an ended span waits for others, at most: to send a batch costs several milliseconds of CPU."""
CLOSE_SECONDS = 2.0
"""For how long the end of the process waits for the spans that are left."""

log = get_logger(__name__)


class SpanQueue(SpanProcessor):
    """The spans that wait for the collector."""

    def __init__(self, exporter: SpanExporter, *, close_seconds: float = CLOSE_SECONDS) -> None:
        self._exporter = exporter
        self._close_seconds = close_seconds
        self._waiting: deque[ReadableSpan] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._abandoned = False
        self._delivers = True
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: spans are sent once they have ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span; drop it if too many wait. Never blocks on the collector."""
        with self._changed:
            if self._closing:
                metrics.DROPPED_SPANS.labels(metrics.AT_SHUTDOWN).inc()
            elif len(self._waiting) >= QUEUE_SPANS:
                metrics.DROPPED_SPANS.labels(metrics.QUEUE_FULL).inc()
            else:
                self._waiting.append(span)
                if len(self._waiting) == BATCH_SPANS:
                    self._changed.notify()

    def shutdown(self) -> None:
        """Send what waits, for ``close_seconds`` at most; the rest is dropped and counted."""
        deadline = time.monotonic() + self._close_seconds
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._abandoned = True
            metrics.DROPPED_SPANS.labels(metrics.AT_SHUTDOWN).inc(len(self._waiting))
            self._waiting.clear()
        # Ends the call under way, if there is one.
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Do nothing: spans are sent within a second, and at the end."""
        del timeout_millis
        return True

    def _run(self) -> None:
        while batch := self._next():
            accepted = self._export(batch)
            if accepted:
                metrics.SENT_SPANS.inc(len(batch))
            else:
                metrics.DROPPED_SPANS.labels(metrics.NOT_DELIVERED).inc(len(batch))
            self._note(accepted)

    def _next(self) -> list[ReadableSpan]:
        """Return the next batch, once it is full or time is up; nothing if this is the end."""
        with self._changed:
            while not self._closing:
                self._changed.wait_for(
                    lambda: self._closing or len(self._waiting) >= BATCH_SPANS, BATCH_SECONDS
                )
                if self._waiting:
                    break
            if self._abandoned:
                return []
            return [self._waiting.popleft() for _ in range(min(BATCH_SPANS, len(self._waiting)))]

    def _export(self, batch: Sequence[ReadableSpan]) -> bool:
        try:
            return self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001 - whatever it is, tracing must not end
            log.warning("spans could not be sent", error=repr(error))
            return False

    def _note(self, accepted: bool) -> None:
        if accepted != self._delivers:
            self._delivers = accepted
            if accepted:
                log.info("the collector accepts spans again")
            else:
                log.warning(
                    "the collector does not accept spans: they are dropped and counted",
                    metric="shashin_trace_dropped_spans_total",
                )
