"""Traces: the spans that were sent to the collector, and those that were not."""

from __future__ import annotations

from shashin.metrics.core import counter
from shashin.metrics.definitions import Label

QUEUE_FULL, NOT_DELIVERED, AT_SHUTDOWN = "queue_full", "not_delivered", "at_shutdown"

SENT_SPANS = counter("shashin_trace_sent_spans", "Spans that the collector has accepted.")
DROPPED_SPANS = counter(
    "shashin_trace_dropped_spans",
    "Spans that the collector never got, by reason: the queue was full, the collector did not accept them in "
    "time, or the process ended first. Nothing else waits for the collector.",
    [Label("reason", "why", values=(QUEUE_FULL, NOT_DELIVERED, AT_SHUTDOWN))],
)
