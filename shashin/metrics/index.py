"""Searching shards and hiding rows: what index servers and indexers serve."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.labels import MODEL, TIER

_SERVED = [TIER, MODEL]

SEARCH_SECONDS = histogram(
    "shashin_index_search_seconds",
    "Time per search over all shards.",
    [TIER],
    unit="seconds",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
BATCHED_QUERIES = histogram(
    "shashin_index_batched_queries",
    "Query vectors that are searched in one go: those of calls at the same time, or a part of a large "
    "call.",
    buckets=(1, 2, 4, 8, 16),
)
ROWS = gauge("shashin_index_rows", "Rows served, including hidden ones.", _SERVED)
HIDDEN_ROWS = gauge("shashin_index_hidden_rows", "Hidden rows served.", _SERVED)
INDEX_BYTES = gauge(
    "shashin_index_bytes",
    "Memory used by indexes; mapped files belong to the page cache.",
    _SERVED,
    unit="bytes",
)
SHARDS = gauge("shashin_index_shards", "Shards served.", _SERVED)
HIDDEN_LISTINGS = gauge(
    "shashin_hidden_listings",
    "Hidden listings that the process knows: of an indexer all, on disk; of an index server the "
    "latest, in memory.",
)
HIDDEN_LAG = gauge(
    "shashin_hidden_lag_records",
    "Offsets of listings.hidden that are not read yet, as of the last read of each partition.",
)
HIDDEN_RECORDS = counter("shashin_hidden_records", "Records of listings.hidden applied.")
BAD_HIDDEN_RECORDS = counter(
    "shashin_hidden_bad_records", "Invalid records of listings.hidden, which are skipped."
)
