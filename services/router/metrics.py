"""Metrics of the router."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SEARCH_SECONDS = Histogram(
    "shashin_router_search_seconds",
    "Duration of a search by stage, in seconds: embed (a photo), lookup (a listing's vectors), "
    "fan_out, merge, total.",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5),
)
FAILED_EMBEDS = Counter(
    "shashin_router_failed_embeds",
    "Calls to embedders that failed for a reason other than the photo, by gRPC status.",
    ["status"],
)
OVER_FETCH_ROUNDS = Counter(
    "shashin_router_over_fetch_rounds",
    "Over-fetch rounds: more hits requested because newer versions superseded too many.",
)
INCOMPLETE_ANSWERS = Counter(
    "shashin_router_incomplete_answers", "Searches with incomplete coverage."
)
FILLED_GAPS = Counter(
    "shashin_router_filled_gaps",
    "Searches in which another replica of a group had log ranges that the one asked first lacked.",
    ["tier"],
)
COVERAGE_COMPLETE = Gauge(
    "shashin_router_coverage_complete",
    "1 while the ready endpoints cover the log from its horizon to the live position, else 0.",
)
MISSING_OFFSETS = Gauge(
    "shashin_router_missing_offsets", "Offsets of the log that no ready endpoint holds."
)
UNKNOWN_PARTITIONS = Gauge(
    "shashin_router_unknown_partitions", "Partitions whose live position no endpoint reports."
)
ENDPOINTS = Gauge(
    "shashin_router_endpoints",
    "Index endpoints in discovery, by state: ready, unready, or other_model if it holds a model "
    "other than the active one.",
    ["tier", "state"],
)
BATCHED_QUERIES = Histogram(
    "shashin_router_batched_queries",
    "Query vectors per call to an index endpoint: those of searches at the same time share calls.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
