"""Metrics of the canary."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 60)

FOUND_SECONDS = Histogram(
    "shashin_canary_found_seconds",
    "Seconds from sending a listing's event to the answer that has it first, completely; searched for "
    "every 0.02 to 0.25 s.",
    buckets=BUCKETS,
)
GONE_SECONDS = Histogram(
    "shashin_canary_gone_seconds",
    "Seconds from sending a sale to the complete answer without the listing; searched for every 0.02 "
    "to 0.25 s.",
    buckets=BUCKETS,
)
CYCLES = Counter("shashin_canary_cycles", "Cycles that have ended, whatever came of them.")
FAILURES = Counter(
    "shashin_canary_failures",
    "Cycles that failed, by kind: publish_failed, unavailable (no answer), incomplete (no complete "
    "answer), not_found, not_gone.",
    ["kind"],
)
LAST_SUCCESS = Gauge(
    "shashin_canary_last_success_timestamp_seconds",
    "Unix time at which a listing was last found and gone in time; 0 before the first.",
)
