"""Searches: their stages, coverage, and the state of endpoints."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import STATUS, TIER

SEARCH_SECONDS = histogram(
    "shashin_router_search_seconds",
    "Duration of a search by stage: embed (a photo), lookup (a listing's vectors), fan_out, merge, total.",
    [
        Label(
            "stage",
            "the part of the search",
            values=("embed", "lookup", "fan_out", "merge", "total"),
        )
    ],
    unit="seconds",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5),
)
FAILED_EMBEDS = counter(
    "shashin_router_failed_embeds",
    "Calls to embedders that failed for a reason other than the photo, by gRPC status.",
    [STATUS],
)
OVER_FETCH_ROUNDS = counter(
    "shashin_router_over_fetch_rounds",
    "Over-fetch rounds: more hits requested because newer versions superseded too many.",
)
INCOMPLETE_ANSWERS = counter(
    "shashin_router_incomplete_answers", "Searches with incomplete coverage."
)
FILLED_GAPS = counter(
    "shashin_router_filled_gaps",
    "Searches in which another replica of a group had log ranges that the one asked first lacked.",
    [TIER],
)
COVERAGE_COMPLETE = gauge(
    "shashin_router_coverage_complete",
    "1 while the ready endpoints cover the log from its horizon to the live position, else 0.",
)
MISSING_OFFSETS = gauge(
    "shashin_router_missing_offsets", "Offsets of the log that no ready endpoint holds."
)
UNKNOWN_PARTITIONS = gauge(
    "shashin_router_unknown_partitions", "Partitions whose live position no endpoint reports."
)
ENDPOINTS = gauge(
    "shashin_router_endpoints",
    "Index endpoints in discovery, by state: ready, unready, or other_model if it holds a model "
    "other than the active one.",
    [TIER, Label("state", "the state", values=("ready", "unready", "other_model"))],
)
BATCHED_QUERIES = histogram(
    "shashin_router_batched_queries",
    "Query vectors per call to an index endpoint: those of searches at the same time share calls.",
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
