"""The time of a listing's event, which the records of later stages carry in a header.

So each stage knows how long a listing has taken since its event, by the broker's clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from shashin.kafka.producer import OutRecord
from shashin.kafka.record_spans import trace_headers
from shashin.kafka.record_traces import exemplar
from shashin.kafka.records import InRecord
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.metrics import pipeline as metrics
from shashin.runtime import tracing

EVENT_TIME = "event-time-ms"
"""The header: when the event was appended to listings.events, in Unix milliseconds, decimal."""

_MAX_DIGITS = 15

_WRITTEN = {IMAGES_DOWNLOADED: metrics.DOWNLOADED, VECTORS_EMBEDDED: metrics.EMBEDDED}
"""What a listing is once its record is in a topic."""


def event_ms(record: InRecord) -> int | None:
    """Return when the event that led to a record was appended; None if the record does not say."""
    if record.topic == LISTINGS_EVENTS:
        return record.timestamp_ms if record.timestamp_ms > 0 else None
    return _carried(record.headers)


def event_headers(record: InRecord) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers of a record that a stage writes for a record that it has read: the time of
    its event and, while tracing is on, its trace.
    """
    found = event_ms(record)
    of_event = () if found is None else ((EVENT_TIME, str(found).encode()),)
    return of_event if tracing.tracer() is None else (*of_event, *trace_headers())


def observe_since_event(written: Iterable[OutRecord]) -> None:
    """Observe the time since their events of records that end a stage and are acknowledged."""
    now, traced = time.time(), tracing.tracer() is not None
    for record in written:
        stage = _WRITTEN.get(record.topic)
        if stage is not None and (found := _carried(record.headers)) is not None:
            metrics.SINCE_EVENT_SECONDS.labels(stage).observe(
                max(0.0, now - found / 1000), exemplar(record.headers) if traced else None
            )


def _carried(headers: Sequence[tuple[str, bytes | None]]) -> int | None:
    for name, value in headers:
        if (
            name == EVENT_TIME
            and value is not None
            and value.isdigit()
            and len(value) <= _MAX_DIGITS
        ):
            return int(value)
    return None
