"""The canary: how soon a listing is found after its event, and gone after its sale."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label

_BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 60)

FOUND_SECONDS = histogram(
    "shashin_canary_found_seconds",
    "Time from sending a listing's event to the answer that has it first, completely; searched for "
    "every 0.02 to 0.25 s.",
    unit="seconds",
    buckets=_BUCKETS,
)
GONE_SECONDS = histogram(
    "shashin_canary_gone_seconds",
    "Time from sending a sale to the complete answer without the listing; searched for every 0.02 "
    "to 0.25 s.",
    unit="seconds",
    buckets=_BUCKETS,
)
CYCLES = counter("shashin_canary_cycles", "Cycles that have ended, whatever came of them.")
FAILURES = counter(
    "shashin_canary_failures",
    "Cycles that failed, by kind: unavailable is no answer, incomplete no complete one.",
    [
        Label(
            "kind",
            "what failed",
            values=("publish_failed", "unavailable", "incomplete", "not_found", "not_gone"),
        )
    ],
)
LAST_SUCCESS = gauge(
    "shashin_canary_last_success_timestamp_seconds",
    "Time at which a listing was last found and gone in time, in Unix seconds; 0 before the first.",
    unit="seconds",
)
