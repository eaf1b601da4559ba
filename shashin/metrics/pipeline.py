"""The way of a listing through the pipeline: the time since its event, at the end of each stage."""

from __future__ import annotations

from shashin.metrics.core import histogram
from shashin.metrics.definitions import Label

DOWNLOADED, EMBEDDED, SEARCHABLE = "downloaded", "embedded", "searchable"
"""What a listing is at the end of a stage."""

SINCE_EVENT_SECONDS = histogram(
    "shashin_pipeline_since_event_seconds",
    "Time from the append of a listing's event to listings.events until the listing is downloaded, embedded "
    "and searchable, by the clocks of the broker and of this machine. What an indexer reads again after its "
    "start is left out.",
    [Label("stage", "what the listing is at its end", values=(DOWNLOADED, EMBEDDED, SEARCHABLE))],
    unit="seconds",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400),
)
