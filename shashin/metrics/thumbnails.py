"""The store of thumbnails for web pages: what is written to it, and what is read from it."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import REASON

NEW, EXISTING = "new", "existing"
NO_ROOM, AT_SHUTDOWN = "no_room", "at_shutdown"
CACHED, FOUND, MISSING, FAILED = "cached", "found", "missing", "failed"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)

WRITTEN = counter(
    "shashin_thumbnails_written",
    "Thumbnails that are in the store after a write: new ones, and those that existed.",
    [Label("outcome", "whether it was there before", values=(NEW, EXISTING))],
)
DROPPED = counter(
    "shashin_thumbnails_dropped",
    "Thumbnails that were not written, by reason: SHASHIN_THUMBNAIL_QUEUE_BYTES had no room for them, or the "
    "process ended first. Listings are complete without them.",
    [Label("reason", "why", values=(NO_ROOM, AT_SHUTDOWN))],
)
FAILURES = counter(
    "shashin_thumbnails_failed",
    "Thumbnails that the store did not take, after all attempts, by error.",
    [REASON],
)
WRITE_SECONDS = histogram(
    "shashin_thumbnails_write_seconds",
    "Time of a write to the store that succeeded.",
    unit="seconds",
    buckets=_SECONDS,
)
WAITING_BYTES = gauge(
    "shashin_thumbnails_waiting_bytes",
    "Thumbnails that wait to be written, or are being written.",
    unit="bytes",
)
READS = counter(
    "shashin_thumbnails_reads",
    "Thumbnails that were asked for, by outcome: cached (in memory), found (in the store), missing, or failed.",
    [Label("outcome", "the outcome", values=(CACHED, FOUND, MISSING, FAILED))],
)
READ_SECONDS = histogram(
    "shashin_thumbnails_read_seconds",
    "Time of a read from the store, whatever its outcome.",
    unit="seconds",
    buckets=_SECONDS,
)
CACHE_BYTES = gauge(
    "shashin_thumbnails_cache_bytes", "Thumbnails that are kept in memory.", unit="bytes"
)
